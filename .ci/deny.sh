#!/usr/bin/env bash
# Checks the dependencies' licences, bans and sources (deny.toml), if cargo-deny is installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if cargo deny --version >/dev/null 2>&1; then
    cargo deny check licenses bans sources
else
    echo 'deny: skipped: cargo-deny is not installed (cargo install --locked cargo-deny)'
fi
