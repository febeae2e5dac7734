#!/usr/bin/env bash
# Builds the documentation with every feature, without a warning (a dead link is one), and runs its
# examples.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features
cargo test --doc --all-features
