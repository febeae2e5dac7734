#!/usr/bin/env bash
# Runs groups and fan-outs in 100,000 random schedules, and in as many with feature `inspect` while
# another thread takes snapshots. The target directory is one of their own, because the flag would
# rebuild the other one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export RUSTFLAGS="--cfg errgroup_shuttle${RUSTFLAGS:+ $RUSTFLAGS}"
shuttle() {
    cargo test --release --manifest-path models/Cargo.toml --target-dir target/shuttle \
        --test shuttle "$@"
}

shuttle
shuttle --features inspect
