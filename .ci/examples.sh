#!/usr/bin/env bash
# Builds the examples and runs them: some must work, others must fail and print why.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# All connections use loopback, so a proxy of the environment must not be used.
export NO_PROXY=127.0.0.1,localhost no_proxy=127.0.0.1,localhost

scratch=$(mktemp -d)
server=''
client=''
trap 'for process in $server $client; do kill -KILL "$process" 2>/dev/null || true; done; rm -rf "$scratch"' EXIT

die() {
    printf 'examples: %s\n' "$1" >&2
    exit 1
}

# An example that hangs fails with status 124. Without timeout(1), it hangs.
bounded() {
    if command -v timeout >/dev/null; then timeout 300 "$@"; else "$@"; fi
}

succeeds() {
    echo "-- fetch_all${*:+ $*}"
    bounded cargo run --quiet --example fetch_all -- "$@" >"$scratch/out" || die "fetch_all $*: status $?"
    tail -n 3 "$scratch/out"
}

# fails STATUS ARGUMENTS..: the program exits with this status (`any`: any but 0) and prints
# something on stderr. It is run without cargo, so stderr is its own. A panic (101), a signal and a
# hang do not count as a failure.
fails() {
    local want=$1 got=0
    shift
    echo "-- fetch_all $* (must fail)"
    bounded "$fetch_all" "$@" >/dev/null 2>"$scratch/err" || got=$?
    cat "$scratch/err"
    [[ $got -ne 0 ]] || die "fetch_all $*: ended with status 0"
    [[ $got -lt 101 ]] || die "fetch_all $*: status $got: a panic, a signal or a hang"
    [[ $want == any || $got -eq $want ]] || die "fetch_all $*: status $got instead of $want"
    [[ -s $scratch/err ]] || die "fetch_all $*: failed and said nothing"
}

# shows 'NAME ARGUMENTS' PATTERN..: the example exits with status 0, and its output matches each
# pattern. It is built only with the features that it needs: with `tracing`, tasks keep their
# parent's span, and `values` would prove nothing.
shows() {
    local command=$1 name arguments pattern features=''
    shift
    echo "-- $command"
    read -r name arguments <<<"$command"
    case $name in
        child_process | graceful_shutdown | shutdown) features=--all-features ;;
    esac
    # shellcheck disable=SC2086 # the arguments are words
    bounded cargo run --quiet $features --example "$name" -- $arguments >"$scratch/out" || die "$command: status $?"
    cat "$scratch/out"
    for pattern in "$@"; do
        grep -Eq -- "$pattern" "$scratch/out" || die "$command: printed nothing like: $pattern"
    done
}

# The path of an example's program, to run it without cargo.
executable() {
    cargo build --quiet --all-features --example "$1" --message-format=json |
        sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}

# Tries for ten seconds.
eventually() {
    local tries
    for ((tries = 0; tries < 100; tries++)); do
        "$@" && return
        sleep 0.1
    done
    return 1
}

# starts NAME ARGUMENTS..: starts an example that is a server.
starts() {
    name=$1
    shift
    : >"$scratch/out" # so that the output of the previous server is not found
    "${!name}" "$@" >"$scratch/out" &
    server=$!
    eventually grep -q '^listening on' "$scratch/out" || die "$name does not listen"
    address=$(sed -n 's/^listening on \([0-9.:]*\).*/\1/p' "$scratch/out")
}

# The last line of the server's response to a GET of this path.
fetches() {
    exec 4<>"/dev/tcp/${address%:*}/${address#*:}"
    printf 'GET %s HTTP/1.1\r\nhost: %s\r\nconnection: close\r\n\r\n' "$1" "$address" >&4
    tail -n 1 <&4
    exec 4>&-
}

# connects PORT: opens a connection to that port on loopback, as file descriptor 3.
connects() {
    { exec 3<>"/dev/tcp/127.0.0.1/$1"; } 2>/dev/null
}

# signals NAME PATTERN: sends the signal to the server, and waits until it has printed the pattern.
signals() {
    kill -s "$1" "$server"
    eventually grep -Eq -- "$2" "$scratch/out" || die "$name: SIG$1: printed nothing like: $2"
}

# ended STATUS: the server exits by itself, with this status.
ended() {
    local got=0
    eventually gone || die "$name does not end"
    wait "$server" || got=$?
    server=''
    cat "$scratch/out"
    [[ $got -eq $1 ]] || die "$name: status $got instead of $1"
}

gone() {
    ! kill -0 "$server" 2>/dev/null
}

# lives GROUP: a process of this process group is running; a zombie is not.
lives() {
    ps -A -o pgid= -o stat= | awk -v group="$1" '$1 == group && $2 !~ /^Z/ { found = 1 } END { exit !found }'
}

# A client sends the request that is never answered.
asks_forever() {
    exec 3<>"/dev/tcp/${address%:*}/${address#*:}"
    printf 'GET /forever HTTP/1.1\r\nhost: %s\r\n\r\n' "$address" >&3
    eventually is_accepted || die 'graceful_shutdown does not accept'
}

is_accepted() {
    [[ $(fetches /accepted) == '1 accepted' ]]
}

# Many clients, which request one job after another and count, until the server is gone.
loads() {
    : >"$scratch/load"
    "$graceful_shutdown" --load "$address" >"$scratch/load" 2>"$scratch/err" &
    client=$!
    eventually grep -q '^under load' "$scratch/load" || die 'the server does not answer its clients'
}

# The clients have exited; $lost is their status, which is not 0 if a request was lost.
unloaded() {
    lost=0
    wait "$client" || lost=$?
    client=''
    tail -n 1 "$scratch/load"
}

# Sets $request to the command that sends a request: request VERSION PATH [HEADER]. It prints the
# status of the response.
request() {
    local url=http://$address$2
    if [[ $has_curl ]]; then
        request=(curl --silent --no-buffer --max-time 30 --output /dev/null --write-out '%{http_code}\n')
        case $1 in
            1.1) request+=(--http1.1) ;;
            2) request+=(--http2-prior-knowledge) ;;
        esac
    else
        request=("$http_server")
        [[ $1 == 1.1 ]] || request+=(--http2)
    fi
    [[ -z ${3-} ]] || request+=(--header "$3")
    [[ $has_curl ]] || request+=(--get)
    request+=("$url")
}

# answers STATUS VERSION PATH [HEADER]: the response has this status.
answers() {
    local got
    request "${@:2}"
    got=$("${request[@]}") || true
    [[ $got == "$1" ]] || die "$name: HTTP/$2 $3 ${4-}: status $got instead of $1"
}

# asks VERSION PATH PIECES: a client sends a request, and this many pieces of work are alive then.
asks() {
    request "$1" "$2"
    "${request[@]}" >"$scratch/status" &
    client=$!
    eventually alive "$3" || die "$name: HTTP/$1 $2: there are no $3 pieces of work alive"
}

# The client is killed, and its connection with it.
leaves() {
    kill -KILL "$client"
    wait "$client" 2>/dev/null || true
    client=''
}

alive() {
    [[ $(fetches /alive) == "$1" ]]
}

# said TIMES PATTERN: the server has printed this many lines that match.
said() {
    eventually counted "$@" || die "$name: did not print $1 times: $2"
}

counted() {
    [[ $(grep -Ec -- "$2" "$scratch/out") == "$1" ]]
}

# Built first, before anything is timed.
cargo build --examples
cargo build --examples --all-features
fetch_all=$(executable fetch_all)
[[ -x $fetch_all ]] || die 'fetch_all was not built'
graceful_shutdown=$(executable graceful_shutdown)
[[ -x $graceful_shutdown ]] || die 'graceful_shutdown was not built'
child_process=$(executable child_process)
[[ -x $child_process ]] || die 'child_process was not built'
http_server=$(executable http_server)
[[ -x $http_server ]] || die 'http_server was not built'
# If there is no curl with HTTP/2, the example is its own client.
has_curl=''
[[ $(curl --version 2>/dev/null) != *HTTP2* ]] || has_curl=yes

succeeds
succeeds --limit 1
succeeds --pages 5000

fails 1 http://127.0.0.1:9/ # discard: no server listens
fails any --file /dev/null  # an empty list
fails any --limit 0
fails any 'not a url'
fails any --file "$scratch/missing"
fails any --file "$scratch" # a directory

shows results 'after wait: .* Ada' 'sibling: .* 27$' 'closed$' '\[1, 4, 9, 16, 25, 36, 49, 64\]'
shows crawler ' 210 pages, 19 links deep, [2-8] at once' ' 210 pages, 19 links deep, 1 at once'
shows blocking 'deadline exceeded: nobody waits' 'next query: 1000$'
shows race_mirrors 'ap wins .* 0 requests are left' 'eu saw the connection closed' 'hedged after 50 ms +[0-9.]+ms +[0-9.]+ms' \
    'price: [0-9]+ extra requests'
shows quorum_write 'acknowledged by [ace], [ace], [ace] after' 'd: ConnectionClosed$' '2 more failed, 2 were stopped' \
    '  replica\[[124]\]: [bce] at ' '  replica\[[03]\]: context cancelled: quorum can no longer be reached'
shows pipeline '^100000 lines in .* over 64 connections' '  fetch +64 +64$' 'all, and between them +74 ' \
    'every line is there: 100000,'
shows dashboard 'orders +17 open' 'stock .*deadline exceeded: the page is due' 'weather .*failed: .*503'

shows dependent_operations '^first: +failed: out of stock$' '^second: halted after [0-9.]+m?s, because: out of stock$'
shows client_timeout '^client: context deadline exceeded, after [0-9]' '^server: the client has gone, [0-9]'
shows query_databases '^SQLite: 3 queries run, and rows come; the client leaves$' \
    'rows .* after [1-9][0-9]* rows: context cancelled: the client has gone$' '^  0 queries run on; 3 of 3 '
shows 'server_in_a_struct' 'the answer: HELLO' 'idle: false, 2 tasks' 'at the end: goodbye, 0 tasks'
shows 'shutdown --demo' 'done: three' 'server: .*stopped' 'workers: 3 finished' 'journal: 1 finished'
shows 'query_databases --leave 60000 --deadline 1000' 'count .* context deadline exceeded: the page is due$' '^  0 queries run on; 3 of 3 '
shows process_stream '^the channel was closed: 30 jobs done, 0 left$' '^context cancelled: nobody reads .*: [0-9]+ jobs done, [0-9]+ left$' \
    'job [0-9]+ went back to the producer$' '^context deadline exceeded: the page is due: .* it stopped after '

shows values 'begins$' 'calls the next service header="00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000001-01"$'
ids=$(grep -Eo 'request\{id=[0-9]+ trace=[0-9a-f]{32}\}' "$scratch/out" | sort | uniq -c)
[[ $(wc -l <"$scratch/out") -eq 24 && $(wc -l <<<"$ids") -eq 3 ]] || die "values: not 24 lines of 3 requests: $ids"
! grep -Ev 'request\{id=[0-9]+ trace=[0-9a-f]{32}\}' "$scratch/out" || die 'values: a line has no ids'

shows child_process '^polite +group [0-9]+: .*, not killed; exit status: 0; "tidied up.n"$' \
    '^deaf +group [0-9]+: all gone after .*, killed; ' '^careless +group [0-9]+: .*, not killed; exit status: 3; ' \
    '^dropped +group [0-9]+: all gone after '
while read -r group; do
    ! lives "$group" || die "child_process: a process of group $group is left"
done < <(sed -nE 's/^[a-z]+ +group ([0-9]+):.*/\1/p' "$scratch/out")

# Its grandchild ignores SIGTERM. The signal is sent only to the example.
echo '-- child_process, SIGTERM'
"$child_process" --grace 0.3 sh -c 'sh -c "trap \"\" TERM; echo group \$PPID; sleep 600; :" & wait' >"$scratch/out" 2>"$scratch/err" &
server=$!
eventually grep -q '^group' "$scratch/out" || die 'child_process: the command does not run'
group=$(sed -n 's/^group //p' "$scratch/out")
lives "$group" || die "child_process: group $group has no process"
kill -s TERM "$server"
got=0
eventually gone || die 'child_process does not end'
wait "$server" || got=$?
server=''
cat "$scratch/err"
[[ $got -eq 1 ]] || die "child_process: status $got instead of 1"
grep -q 'received SIGTERM' "$scratch/err" || die 'child_process does not say why'
if lives "$group"; then
    kill -KILL -- "-$group" || true
    die "child_process: a process of group $group is left"
fi

straggler='task "connection [0-9]+ of .*\(started at .*server\.rs:[0-9:]+\): .*; it ran [0-9.]+'
shows 'graceful_shutdown --demo' 'received SIGTERM' 'is refused$' 'has an answer still$' 'to the last byte$' \
    'request GET /forever, after [0-9.]+' "$straggler"

echo '-- graceful_shutdown, SIGTERM and a request that does not end'
starts graceful_shutdown
asks_forever
signals TERM '^stopping: .*received SIGTERM'
ended 0
grep -Eq 'request GET /forever, after [0-9.]+' "$scratch/out" || die 'graceful_shutdown: the straggler is not named'
read -r -t 10 answer <&3 || true
exec 3>&-
[[ $answer == 'HTTP/1.1 503 '* ]] || die "graceful_shutdown: the straggler's client was told: $answer"

echo '-- graceful_shutdown, SIGTERM under load'
starts graceful_shutdown
loads
signals TERM '^stopping: .*received SIGTERM'
ended 0
unloaded
[[ $lost -eq 0 ]] || die 'graceful_shutdown: requests were lost'
accepted=$(sed -n 's/^\([0-9]*\) requests accepted$/\1/p' "$scratch/out")
answered=$(sed -n 's/^\([0-9]*\) answered, .*/\1/p' "$scratch/load")
[[ $answered -ge 64 && $answered == "$accepted" ]] || die "graceful_shutdown: $accepted accepted, $answered answered"
grep -q '^stopped: everybody' "$scratch/out" || die 'graceful_shutdown: not everybody has finished'

echo '-- graceful_shutdown, SIGTERM under load, that does not wait (must fail)'
starts graceful_shutdown --naive
loads
signals TERM '^stopping'
ended 0
unloaded
[[ $lost -ne 0 ]] || die 'graceful_shutdown: the clients do not see that their requests were lost'

for signal in INT TERM; do
    echo "-- graceful_shutdown, SIG$signal twice"
    starts graceful_shutdown
    asks_forever
    signals "$signal" "^stopping: .*received SIG$signal"
    kill -s "$signal" "$server"
    ended 130
    exec 3>&-
    ! grep -q '^stopped' "$scratch/out" || die 'graceful_shutdown: the second signal waited for the grace'
done

echo '-- http_server'
starts http_server
answers 200 1.1 /
answers 200 2 /
answers 200 1.1 /rows
answers 200 2 /rows
said 4 '^request processed'
kill -s TERM "$server"
ended 0

echo '-- http_server --seconds 60' # and everything must be over long before
began=$SECONDS
starts http_server --seconds 60
left=0
for version in 1.1 2; do
    asks "$version" / 3
    leaves
    said $((left += 1)) '^request cancelled: client disconnected'
    eventually alive 0 || die "http_server: HTTP/$version: work goes on without a client"
    asks "$version" /rows 1
    leaves
    said $((left += 1)) '^request cancelled: client disconnected'
    eventually alive 0 || die "http_server: HTTP/$version: the body's task goes on without a client"
done
asks 2 / 3
kill -s STOP "$client" # it closes nothing, and does not answer pings
said $((left += 1)) '^request cancelled: client disconnected'
leaves
late=0
for version in 1.1 2; do
    for header in 'grpc-timeout: 300m' 'x-request-timeout: 300ms'; do
        answers 504 "$version" / "$header"
        # Well below five seconds.
        said $((late += 1)) '^request out of time: the time that the client allows.*after ([0-9.]+ms|[1-4]\.[0-9]s);'
        eventually alive 0 || die "http_server: HTTP/$version, $header: work goes on after the deadline"
    done
done
[[ $((SECONDS - began)) -lt 60 ]] || die 'http_server: it waited for the work'
asks 1.1 / 3 # and then the server stops
kill -s TERM "$server"
wait "$client" || true
client=''
[[ $(<"$scratch/status") == 503 ]] || die "http_server: SIGTERM: status $(<"$scratch/status") instead of 503"
ended 0
counted 1 '^request cancelled: received SIGTERM' || die 'http_server: SIGTERM: the request was not told'

echo '-- http_server, whose work is not cancelled (must fail)'
starts http_server --naive --seconds 60
asks 2 / 3
leaves
sleep 1 # by then, hyper has dropped the handler
alive 3 || die 'http_server: the naive server stops, too: what do the checks prove?'
{
    kill -KILL "$server" # it would otherwise wait for its blocking thread
    wait "$server"
} 2>/dev/null || true
server=''
starts http_server --naive
answers 200 1.1 / 'x-request-timeout: 300ms'
signals TERM '^request processed'
ended 0
