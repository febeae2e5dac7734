#!/usr/bin/env bash
# Checks the example on NATS JetStream, a workspace member with dependencies of its own: its
# formatting, its lints, its tests, and the program with each fault.
#
# If nats-server is not installed, the step is skipped. With ERRGROUP_INSTALL_NATS=1, as in .ci/run
# and .github/workflows/ci.yml, it installs Debian's package instead, which takes root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# Where Debian puts nats-server, which is not in every PATH.
PATH=$PATH:/usr/sbin

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

die() {
    printf 'jobs: %s\n' "$1" >&2
    exit 1
}

# A program that hangs fails with status 124. Without timeout(1), it hangs.
bounded() {
    if command -v timeout >/dev/null; then timeout 300 "$@"; else "$@"; fi
}

install_nats() {
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -qy --no-install-recommends nats-server
    # The example starts a server of its own.
    ! command -v systemctl >/dev/null || systemctl disable --now nats-server || true
}

if ! command -v nats-server >/dev/null; then
    if [[ ${ERRGROUP_INSTALL_NATS-} != 1 ]]; then
        echo 'jobs: skipped: nats-server is not installed. Install it (on Debian: apt-get install'
        echo 'nats-server), or let this script do so: ERRGROUP_INSTALL_NATS=1'
        exit 0
    fi
    if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
        die 'ERRGROUP_INSTALL_NATS=1 needs root and apt-get'
    fi
    echo '-- installing nats-server'
    install_nats >"$scratch/apt" 2>&1 || {
        cat "$scratch/apt" >&2
        die 'nats-server could not be installed'
    }
fi
echo "-- $(nats-server --version)"

cargo fmt --package jobs --check
cargo clippy --package jobs --all-targets -- -D warnings
cargo test --package jobs

jobs=$(cargo build --quiet --package jobs --message-format=json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[[ -x $jobs ]] || die 'the program was not built'
for fault in kill term fail cancel; do
    echo "-- jobs run --fault $fault"
    # The pipe is closed when the last process that holds it as standard error has exited, so a
    # process that is left behind shows as a hang.
    { bounded "$jobs" run --fault "$fault" 2>&1 || echo "status $?"; } |
        bounded cat >"$scratch/out" || die "$fault: a process is left"
    grep -v ': try [0-9] has failed, ' "$scratch/out"
    ! grep -q '^status ' "$scratch/out" || die "$fault: the program has failed"
done
