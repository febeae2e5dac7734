#!/usr/bin/env bash
# Checks the formatting.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo fmt --check
