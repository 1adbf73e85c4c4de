#!/bin/sh
# Two turns that the server remembers: the second sends only what is new. Needs jq.
#
#   responses.sh FIRST SECOND
#
# MILLSTREAM_URL names the server, http://127.0.0.1:8080 by default.
set -eu

first=${1:?usage: responses.sh FIRST SECOND}
second=${2:?usage: responses.sh FIRST SECOND}
url=${MILLSTREAM_URL:-http://127.0.0.1:8080}/v1/responses

# --fail-with-body: an error status is an error, and its message is shown.
ask() {
    jq -n --arg input "$1" --arg before "$2" \
        '{input: $input} + if $before == "" then {} else {previous_response_id: $before} end' |
        curl -sS --fail-with-body "$url" -H 'Content-Type: application/json' -d @-
}
text() {
    printf '%s' "$1" |
        jq -r '[.output[] | select(.type == "message") | .content[].text] | join("")'
}

answer=$(ask "$first" "") || { printf '%s\n' "$answer" >&2; exit 1; }
text "$answer"
answer=$(ask "$second" "$(printf '%s' "$answer" | jq -r .id)") || { printf '%s\n' "$answer" >&2; exit 1; }
text "$answer"
