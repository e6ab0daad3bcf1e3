#!/bin/sh
# The same topics, read in three ways side by side; feed.sh --help says more.
#
# Each reader is a loop around one command. It notes the id of what it has dealt with, and comes back with it: so none is
# lost over a lost connection or a restart of the hub, and none comes twice.
set -eu

hub=${HUB:-http://127.0.0.1:8080}
again_after=1 # second
newline="
"

usage() {
    cat <<'END'
usage: feed.sh [TOPIC...]

Reads topics and patterns (demo, if there are none) in three ways side by side, until Ctrl-C:

  tidings    tidings subscribe, which resumes by itself
  curl -N    Server-Sent Events, read by the shell
  ndjson     curl and jq: a line of JSON for each event

HUB is where the hub is [http://127.0.0.1:8080], SINCE is where to start, such as 10m or earliest [now], and TIDINGS is the
hub's binary if it is neither in target/release nor on the path. Try, in another terminal:

  curl -d 'it works' http://127.0.0.1:8080/topics/demo
END
}

die() {
    echo "feed.sh: $*" >&2
    exit 1
}

show() { # show READER TEXT
    printf '%-7s | %s\n' "$1" "$2"
}

stream() { # stream FORMAT LAST-ID TOPIC...: one connection
    format=$1
    id=$2
    shift 2
    for topic in "$@"; do
        set -- "$@" --data-urlencode "topic=$topic"
        shift
    done
    # open=1: the id to come back with is known before the first event.
    set -- "$@" -d "format=$format" -d open=1
    if [ -n "$id" ]; then
        set -- "$@" -d "after=$id"
    elif [ -n "${SINCE:-}" ]; then
        set -- "$@" --data-urlencode "since=$SINCE"
    fi
    curl --silent --show-error --fail -N -G "$hub/events" "$@"
}

read_tidings() {
    if [ -n "${SINCE:-}" ]; then
        set -- --since "$SINCE" "$@"
    fi
    "$tidings" subscribe --url "$hub" "$@" | while IFS= read -r line; do
        show tidings "$line"
    done
}

read_sse() { # read_sse FILE TOPIC...
    file=$1
    shift
    while :; do
        stream sse "$(cat "$file")" "$@" | {
            event="" id="" data=""
            while IFS= read -r line; do
                case $line in
                "event: "*) event=${line#event: } ;;
                "id: "*) id=${line#id: } ;;
                "data: "*) data=$data${line#data: }$newline ;;
                "") # the end of an event: one that is cut off before comes again
                    about=""
                    case $event in
                    tidings.gap) about="missed something: " ;;
                    tidings.*) data="" ;;
                    esac
                    printf %s "$data" | while IFS= read -r line; do
                        show "curl -N" "$about$line"
                    done
                    [ -z "$id" ] || echo "$id" >"$file"
                    event="" id="" data=""
                    ;;
                esac
            done
        } || :
        sleep "$again_after"
    done
}

# An id and a line of text for each line of the stream.
lines='
    if .topic then "\(.id) \(.topic): \(.data | gsub("\n"; "\\n"))"
    elif .open then .open.cursor
    elif .gap then "- missed something: \(.gap)"
    else empty end'

read_ndjson() { # read_ndjson FILE TOPIC...
    file=$1
    shift
    while :; do
        stream ndjson "$(cat "$file")" "$@" | jq --unbuffered -r "$lines" | while IFS=" " read -r id text; do
            [ -z "$text" ] || show ndjson "$text"
            [ "$id" = - ] || echo "$id" >"$file"
        done || :
        sleep "$again_after"
    done
}

case ${1:-} in
-h | --help)
    usage
    exit 0
    ;;
-*)
    usage >&2
    exit 2
    ;;
esac
[ $# -gt 0 ] || set -- demo

# One of the three, started below.
if [ -n "${FEED_READER:-}" ]; then
    tidings=$TIDINGS
    case $FEED_READER in
    tidings) read_tidings "$@" ;;
    sse) read_sse "$FEED_HOME/sse" "$@" ;;
    ndjson) read_ndjson "$FEED_HOME/ndjson" "$@" ;;
    esac
    exit 0
fi

for program in curl jq setsid; do
    command -v "$program" >/dev/null || die "$program is not here"
done
here=$(cd "$(dirname "$0")" && pwd)
for try in "$here/../target/release/tidings" "$(command -v tidings || :)"; do
    if [ -z "${TIDINGS:-}" ] && [ -x "$try" ]; then
        TIDINGS=$try
    fi
done
[ -x "${TIDINGS:-}" ] || die "no tidings: build it with cargo build --release, or set TIDINGS to it"

FEED_HOME=$(mktemp -d "${TMPDIR:-/tmp}/tidings-feed-XXXXXX")
export TIDINGS FEED_HOME
: >"$FEED_HOME/sse"
: >"$FEED_HOME/ndjson"
readers=""

stop() {
    trap '' HUP INT TERM
    trap - EXIT
    # The one that was started last may not be in the list yet. And one that has not come so far as to have a session is
    # ended by itself; not by TERM, which it would lose as long as it still has the traps of this script.
    for reader in $readers ${!:-}; do
        kill -s KILL -- "$reader" "-$reader" 2>/dev/null || :
    done
    wait
    rm -rf "$FEED_HOME"
}
trap stop EXIT
trap 'exit 0' HUP INT TERM

# Each in a session of its own, so that it can be ended with all that it has started.
for FEED_READER in tidings sse ndjson; do
    export FEED_READER
    setsid "$0" "$@" </dev/null &
    readers="$readers $!"
done
wait
