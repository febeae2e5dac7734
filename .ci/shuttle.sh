#!/usr/bin/env bash
# Runs groups and fan-outs in 100,000 random schedules, in a target directory of its own, because
# the flag would rebuild the other one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

export RUSTFLAGS="--cfg errgroup_shuttle${RUSTFLAGS:+ $RUSTFLAGS}"
cargo test --release --manifest-path models/Cargo.toml --target-dir target/shuttle --test shuttle
