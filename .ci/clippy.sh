#!/usr/bin/env bash
# Runs clippy, with the lints of Cargo.toml denied: on the library and the members with every
# feature, and on the library with none. .ci/distributed.sh and .ci/jobs.sh do it for those members.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# -D is given to clippy only: RUSTFLAGS would rebuild the dependencies.
cargo clippy --workspace --exclude distributed --exclude jobs --all-targets --all-features -- \
    -D warnings
cargo clippy --all-targets --no-default-features -- -D warnings
