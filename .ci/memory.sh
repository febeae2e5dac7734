#!/usr/bin/env bash
# Memory stays flat over ten million items: with optimizations, or it would take minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo test --release --test allocs_fan_out
