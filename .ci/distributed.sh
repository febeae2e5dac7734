#!/usr/bin/env bash
# Checks the example over several processes, a workspace member with dependencies of its own: its
# formatting, its lints, the tests that start and kill processes, and the output of the program.
# protoc is not needed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

die() {
    printf 'distributed: %s\n' "$1" >&2
    exit 1
}

# A program that hangs fails with status 124. Without timeout(1), it hangs.
bounded() {
    if command -v timeout >/dev/null; then timeout 300 "$@"; else "$@"; fi
}

# shows STATUS 'ARGUMENTS' PATTERN..: the program exits with this status, and its output matches
# each pattern. The pipe is closed when the last process that holds it as standard error has exited,
# so a worker that is left behind shows as a hang.
shows() {
    local want=$1 arguments=$2 got=0 pattern
    shift 2
    echo "-- distributed run $arguments"
    # shellcheck disable=SC2086 # the arguments are words
    { bounded "$distributed" run $arguments 2>&1 || echo "status $?"; } |
        bounded cat >"$scratch/out" || die "$arguments: a process is left"
    cat "$scratch/out"
    got=$(sed -n 's/^status \([0-9]*\)$/\1/p' "$scratch/out")
    [[ ${got:-0} -eq $want ]] || die "run $arguments: status ${got:-0} instead of $want"
    for pattern in "$@"; do
        grep -Eq -- "$pattern" "$scratch/out" || die "run $arguments: did not print: $pattern"
    done
}

cargo fmt --package distributed --check
cargo clippy --package distributed --all-targets -- -D warnings
RUSTDOCFLAGS="-D warnings" cargo doc --package distributed --no-deps
cargo test --package distributed

distributed=$(cargo build --quiet --package distributed --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[[ -x $distributed ]] || die 'the program was not built'

all='^1000 items in .*: 9592 primes below 100000$'
settled=', 0 running$'
shows 0 '' "$all" "the workers that are left: 1000 started, 1000 done, .*$settled"
shows 0 '--fault kill' '^Kill: worker' "$all" '; lost, and [0-9]+ items left to others: ' "$settled"
shows 0 '--fault stop' '^Stop: worker' "$all" '; lost, and [0-9]+ items left to others: ' "$settled"
shows 0 '--fault term' '^Term: worker' "$all" '; lost, and [0-9]+ items left to others: ' "$settled"
shows 1 '--fault fail' '^error: worker [0-2]: item [0-9]+ is broken$' ', 1 failed, ' \
    'the last task of any worker has ended: [0-9.]+ ms ± [0-9.]+ ms$' "$settled"
shows 1 '--deadline 2s --items 1000000' \
    '^error: context deadline exceeded: --deadline 2s$' ' 0 failed, ' "$settled"
