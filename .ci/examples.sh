#!/usr/bin/env bash
# The examples build, and fetch_all is run for real: what must work, and what must fail and say why.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Everything here is on loopback: a proxy that the environment names has no part in it.
export NO_PROXY=127.0.0.1,localhost no_proxy=127.0.0.1,localhost

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

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

cargo build --examples
fetch_all=$(cargo build --quiet --example fetch_all --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[[ -x $fetch_all ]] || die 'fetch_all was not built'

succeeds
succeeds --limit 1
succeeds --pages 5000

fails 1 http://127.0.0.1:9/ # discard: nobody listens
fails any --file /dev/null  # an empty list
fails any --limit 0
fails any 'not a url'
fails any --file "$scratch/missing"
fails any --file "$scratch" # a directory
