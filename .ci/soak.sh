#!/usr/bin/env bash
# The fault soak, for a minute, from a new seed, which it prints; .ci/soak.sh --seconds 600 --seed 17 does as it is told.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[[ $# -gt 0 ]] || set -- --seconds 60
cargo test --release --test soak -- "$@"
