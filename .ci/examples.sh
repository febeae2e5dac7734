#!/usr/bin/env bash
# Builds the examples and runs them: what they print, how they react to signals, and their exit
# status (tests/examples).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo test --test examples
