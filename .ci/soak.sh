#!/usr/bin/env bash
# Runs the fault soak for a minute from a new seed, which it prints, and for half a minute with
# feature `inspect` while another thread takes snapshots. Arguments go to the soak without it:
# .ci/soak.sh --seconds 600 --seed 17
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [[ $# -gt 0 ]]; then
    exec cargo test --release --test soak -- "$@"
fi
cargo test --release --test soak -- --seconds 60
cargo test --release --features inspect --test soak -- --seconds 30
