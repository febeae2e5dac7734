#!/usr/bin/env bash
# Checks that memory stays flat over ten million items. A debug build would take minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo test --release --test allocs_fan_out
