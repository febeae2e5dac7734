#!/usr/bin/env bash
# Runs the fault soak for a minute from a new seed, which it prints. Arguments go to the soak:
# .ci/soak.sh --seconds 600 --seed 17
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[[ $# -gt 0 ]] || set -- --seconds 60
cargo test --release --test soak -- "$@"
