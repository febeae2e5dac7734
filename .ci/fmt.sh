#!/usr/bin/env bash
# Checks the formatting, of the members too.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo fmt --all --check
