#!/usr/bin/env bash
# Each feature builds alone, and so does none. The dev-dependencies are left out, because their
# features would hide a missing one. Then all tests run with all features, and those of the members.
# The budgets of memory hold without feature `inspect`.
# docs.sh has run the doctests, and examples.sh runs the examples.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

features=$(awk '
    /^\[/ { inside = ($1 == "[features]") }
    inside && /^[A-Za-z0-9_-]+[ \t]*=/ { sub(/[ \t]*=.*/, ""); if ($0 != "default") print }
' Cargo.toml)

echo '-- no feature'
cargo check --no-default-features
for feature in $features; do
    echo "-- $feature"
    cargo check --no-default-features --features "$feature"
done

cargo test --workspace --exclude distributed --exclude jobs --all-features --lib --tests

others=$(grep -vx inspect <<<"$features" | paste -sd, -)
cargo test --features "$others" --test allocs_group --test allocs_fan_out --test sizes
