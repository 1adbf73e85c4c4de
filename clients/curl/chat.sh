#!/bin/sh
# Asks one question and shows the answer as it is generated.
#
#   chat.sh [--text] PROMPT
#
# Without --text: the server-sent events as they arrive. With --text: only the text (needs jq).
# MILLSTREAM_URL names the server, http://127.0.0.1:8080 by default. Ctrl-C stops the answer, on
# the server too. When the server is busy (429) or refuses the request, the status is not 0;
# with `--retry 5`, curl would wait for as long as it is told and try again.
set -eu

text=
if [ "${1:-}" = --text ]; then
    text=yes
    shift
fi
prompt=${1:?usage: chat.sh [--text] PROMPT}

# A JSON string: backslash, quote, tab, return and line feed escaped, other controls left out.
# LC_ALL=C: bytes, so that UTF-8 passes through untouched.
tab=$(printf '\t')
return=$(printf '\r')
escaped=$(
    printf '%s' "$prompt" |
        LC_ALL=C tr -d '\000-\010\013\014\016-\037' |
        LC_ALL=C sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e "s/$tab/\\\\t/g" -e "s/$return/\\\\r/g" |
        LC_ALL=C awk 'NR > 1 { printf "\\n" } { printf "%s", $0 }'
)

# -N: do not buffer. --fail-with-body: an error status is an error, and its message is shown.
ask() {
    curl -sS -N --fail-with-body "${MILLSTREAM_URL:-http://127.0.0.1:8080}/v1/chat/completions" \
        -H 'Content-Type: application/json' \
        -d "{\"messages\": [{\"role\": \"user\", \"content\": \"$escaped\"}], \"stream\": true}"
}

if [ -z "$text" ]; then
    ask
    exit
fi
# A pipe has the status of its last command, so a failure of curl travels as a line of its own.
{ ask || printf '\nfailed\n'; } | jq -R -r -j --unbuffered '
    ltrimstr("data: ")
    | if . == "[DONE]" then "\n" elif . == "failed" then "" | halt_error(1) else fromjson? end
    | if type == "string" then .
      elif .error then "\(.error.message)\n" | halt_error(1)
      else .choices[0].delta.content // empty end'
