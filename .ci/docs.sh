#!/usr/bin/env bash
# Builds the documentation with every feature, without a warning (a dead link is one), and runs its
# examples. Those that need an HTTP server or client are in tests/http/docs.rs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --all-features

# On docs.rs, a relative link to a file of the repository is dead: src/_documentation.rs.
pages=${CARGO_TARGET_DIR:-target}/doc/errgroup/_documentation
if grep -roE '(href|src)="[^":]+\.(md|svg|rs)(#[^"]*)?"' "$pages" | grep -v 'static\.files/'; then
    echo 'docs: these links of documents are not in src/_documentation.rs' >&2
    exit 1
fi

cargo test --doc --workspace --exclude distributed --exclude jobs --all-features
