#!/usr/bin/env bash
# Runs clippy, with the lints of Cargo.toml denied: with every feature, and with none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# -D is given to clippy only: RUSTFLAGS would rebuild the dependencies.
cargo clippy --all-targets --all-features -- -D warnings
cargo clippy --all-targets --no-default-features -- -D warnings
