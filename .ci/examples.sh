#!/usr/bin/env bash
# The examples build, and are run for real: what must work and show it, and what must fail and say why.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Everything here is on loopback: a proxy that the environment names has no part in it.
export NO_PROXY=127.0.0.1,localhost no_proxy=127.0.0.1,localhost

scratch=$(mktemp -d)
server=''
trap '[[ -z $server ]] || kill -KILL "$server" 2>/dev/null || true; rm -rf "$scratch"' EXIT

die() {
    printf 'examples: %s\n' "$1" >&2
    exit 1
}

# An example that hangs fails (status 124). Where there is no timeout(1), it hangs.
bounded() {
    if command -v timeout >/dev/null; then timeout 300 "$@"; else "$@"; fi
}

succeeds() {
    echo "-- fetch_all${*:+ $*}"
    bounded cargo run --quiet --example fetch_all -- "$@" >"$scratch/out" || die "fetch_all $*: status $?"
    tail -n 3 "$scratch/out"
}

# fails STATUS ARGUMENTS..: ends with that status (`any`: any but 0) and says something on stderr. The program itself is
# run, not cargo, so that what is on stderr is its own. A panic (101), a signal and a hang are no answer.
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

# shows 'NAME ARGUMENTS' PATTERN..: that example ends with status 0, and what it prints matches each pattern.
shows() {
    local command=$1 name arguments pattern
    shift
    echo "-- $command"
    read -r name arguments <<<"$command"
    # shellcheck disable=SC2086 # the arguments are words
    bounded cargo run --quiet --all-features --example "$name" -- $arguments >"$scratch/out" || die "$command: status $?"
    cat "$scratch/out"
    for pattern in "$@"; do
        grep -Eq -- "$pattern" "$scratch/out" || die "$command: printed nothing like: $pattern"
    done
}

# The path of an example, for what concerns the process itself.
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

# Starts the server, and gives it the job that never ends.
serve() {
    local port answer=''
    "$graceful_shutdown" >"$scratch/out" &
    server=$!
    eventually grep -q '^listening on' "$scratch/out" || die 'graceful_shutdown does not listen'
    port=$(sed -n 's/^listening on 127\.0\.0\.1:\([0-9]*\),.*/\1/p' "$scratch/out")
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    echo forever >&3
    read -r -t 10 answer <&3 || true
    [[ $answer == 'started forever' ]] || die "graceful_shutdown answered: $answer"
}

# signals NAME PATTERN: sends the signal to the server, and waits until it has printed the pattern.
signals() {
    kill -s "$1" "$server"
    eventually grep -Eq -- "$2" "$scratch/out" || die "graceful_shutdown: SIG$1: printed nothing like: $2"
}

# ended STATUS: the server ends by itself, with that status.
ended() {
    local got=0
    eventually gone || die 'graceful_shutdown does not end'
    wait "$server" || got=$?
    server=''
    exec 3>&-
    cat "$scratch/out"
    [[ $got -eq $1 ]] || die "graceful_shutdown: status $got instead of $1"
}

gone() {
    ! kill -0 "$server" 2>/dev/null
}

# lives GROUP: somebody of that process group has not ended; a zombie has.
lives() {
    ps -A -o pgid= -o stat= | awk -v group="$1" '$1 == group && $2 !~ /^Z/ { found = 1 } END { exit !found }'
}

cargo build --examples --all-features
fetch_all=$(executable fetch_all)
[[ -x $fetch_all ]] || die 'fetch_all was not built'
graceful_shutdown=$(executable graceful_shutdown)
[[ -x $graceful_shutdown ]] || die 'graceful_shutdown was not built'
child_process=$(executable child_process)
[[ -x $child_process ]] || die 'child_process was not built'

succeeds
succeeds --limit 1
succeeds --pages 5000

fails 1 http://127.0.0.1:9/ # discard: nobody listens
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
    '  replica\[[124]\]: [bce] at ' '  replica\[[03]\]: context cancelled: enough cannot be reached'
shows pipeline '^100000 lines in .* over 64 connections' '  fetch +64 +64$' 'all, and between them +74 ' \
    'every line is there: 100000,'
shows dashboard 'orders +17 open' 'stock .*deadline exceeded: the page is due' 'weather .*failed: .*503'

shows dependent_operations '^first: +failed: out of stock$' '^second: halted after [0-9.]+m?s, because: out of stock$'
shows client_timeout '^client: context deadline exceeded, after [0-9]' '^server: the client has gone, [0-9]'
shows query_databases '^SQLite: 3 queries run, and rows come; the client leaves$' \
    'rows .* after [1-9][0-9]* rows: context cancelled: the client has gone$' '^  0 queries run on; 3 of 3 '
shows 'query_databases --leave 60000 --deadline 100' 'count .* context deadline exceeded: the page is due$' '^  0 queries run on; 3 of 3 '
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
    ! lives "$group" || die "child_process: somebody of group $group is left"
done < <(sed -nE 's/^[a-z]+ +group ([0-9]+):.*/\1/p' "$scratch/out")

# Its grandchild does not listen. SIGTERM goes to the example alone.
echo '-- child_process, SIGTERM'
"$child_process" --grace 0.3 sh -c 'sh -c "trap \"\" TERM; echo group \$PPID; sleep 600; :" & wait' >"$scratch/out" 2>"$scratch/err" &
server=$!
eventually grep -q '^group' "$scratch/out" || die 'child_process: the command does not run'
group=$(sed -n 's/^group //p' "$scratch/out")
lives "$group" || die "child_process: nobody is in group $group"
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
    die "child_process: somebody of group $group is left"
fi

straggler='task "worker [0-9]+ of .*\(started at .*server\.rs:[0-9:]+\): .*; it ran [0-9.]+'
shows 'graceful_shutdown --demo' 'received SIGTERM' "$straggler" 'is refused$'

echo '-- graceful_shutdown, SIGTERM'
serve
signals TERM '^stopping: .*received SIGTERM'
ended 0
grep -Eq "$straggler" "$scratch/out" || die 'graceful_shutdown: the straggler is not named'

echo '-- graceful_shutdown, Ctrl-C twice'
serve
signals INT '^stopping: .*received SIGINT'
kill -s INT "$server"
ended 130
! grep -q '^stopped' "$scratch/out" || die 'graceful_shutdown: the second Ctrl-C waited for the grace'
