#!/usr/bin/env bash
# The documentation without a warning (a dead link is one), and its examples run, with every feature.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features
cargo test --doc --all-features
