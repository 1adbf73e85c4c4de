#!/bin/sh
# Begins an answer, leaves it after a few events, and reads it on from there. Needs jq.
#
#   resume.sh PROMPT [EVENTS]
#
# Each event has an id; who comes back sends the last one that was read as Last-Event-ID, as
# browsers do. MILLSTREAM_URL names the server, http://127.0.0.1:8080 by default.
set -eu

prompt=${1:?usage: resume.sh PROMPT [EVENTS]}
events=${2:-8}
url=${MILLSTREAM_URL:-http://127.0.0.1:8080}/v1/responses

# An event is four lines: id, event, data, and an empty one. `background`: it runs on without us.
# Sed reads no more than it shows, so curl is cut off there; that is the point.
begun=$(
    jq -n --arg input "$prompt" '{input: $input, stream: true, background: true}' |
        curl -sS -N "$url" -H 'Content-Type: application/json' -d @- 2>/dev/null |
        sed "$((events * 4))q"
)
printf '%s\n\n' "$begun"
last=$(printf '%s\n' "$begun" | sed -n 's/^id: //p' | tail -n 1)
id=$(printf '%s\n' "$begun" | sed -n 's/^data: //p' | head -n 1 | jq -r '.response.id // empty')
[ -n "$id" ] || { printf 'no response was begun\n' >&2; exit 1; }

printf ': left after event %s\n\n' "$last"
curl -sS -N --fail-with-body "$url/$id?stream=true" -H "Last-Event-ID: $last"
