#!/usr/bin/env bash
# The lints of Cargo.toml, which warn in the tree, denied: with every feature, and with none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# -D goes to clippy alone: RUSTFLAGS would rebuild the dependencies.
cargo clippy --all-targets --all-features -- -D warnings
cargo clippy --all-targets --no-default-features -- -D warnings
