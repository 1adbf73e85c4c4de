#!/bin/sh
# Says something in the visitor's current chat, and prints the answer as it comes. Needs jq.
#
#   chat_session.sh MESSAGE        goes on in the chat in which something was last said
#   chat_session.sh --new MESSAGE  begins a new chat
#   chat_session.sh --show         prints what was said
#
# The jar of cookies is the visitor; JAR names it, ./chat.jar by default.
# MILLSTREAM_URL names the server, http://127.0.0.1:8080 by default.
set -eu

jar=${JAR:-chat.jar}
url=${MILLSTREAM_URL:-http://127.0.0.1:8080}/v1
usage='usage: chat_session.sh [--new] MESSAGE, or chat_session.sh --show'

ask() { curl -sS -N --fail-with-body -b "$jar" -c "$jar" -H 'Content-Type: application/json' "$@"; }

case ${1:?$usage} in
--show)
    ask "$url/chats/current" |
        jq -r '.messages[] | "\(.role): " + ([.items[].content[]?.text] | join("\n"))'
    exit
    ;;
--new)
    shift
    ask "$url/sessions" -X POST >/dev/null
    ask "$url/chats" -d '{}' >/dev/null
    ;;
esac

jq -n --arg content "${1:?$usage}" '{content: $content, stream: true}' |
    ask "$url/chats/current/messages" -d @- |
    sed -un 's/^data: //p' |
    jq -rj --unbuffered '
        if .type == "queue.position" then "(waiting: \(.position))\n"
        elif .type == "response.output_text.delta" then .delta
        elif .type == "response.failed" then "\n" + .response.error.message
        else empty end'
echo
