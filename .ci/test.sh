#!/usr/bin/env bash
# The tests, by the README's command and nothing else.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo test
