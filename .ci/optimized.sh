#!/usr/bin/env bash
# Runs, optimized, the tests that need it. In optimized programs only, the limit of a group was once
# exceeded. Memory must stay flat over ten million items, for which a debug build would take
# minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo test --release --test limit --test allocs_fan_out
