#!/usr/bin/env bash
# Runs the tests, with the command of the README and nothing else.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo test
