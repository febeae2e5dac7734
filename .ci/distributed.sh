#!/usr/bin/env bash
# Checks the example of one request over many services, a workspace member with dependencies of its
# own: its formatting, its lints, and its tests, which run the program with each fault. protoc is
# not needed.
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

cargo fmt --package distributed --check
cargo clippy --package distributed --all-targets -- -D warnings
cargo test --package distributed

distributed=$(cargo build --quiet --package distributed --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[[ -x $distributed ]] || die 'the program was not built'
echo '-- distributed run --fault fail'
# The pipe is closed when the last process that holds it as standard error has exited, so a process
# that is left behind shows as a hang.
{ bounded "$distributed" run --fault fail 2>&1 || echo "status $?"; } |
    bounded cat >"$scratch/out" || die 'a process is left'
cat "$scratch/out"
! grep -q '^status ' "$scratch/out" || die 'the program has failed'
