#!/usr/bin/env bash
# Builds the benchmarks. They are not run, because figures from a shared machine prove nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if compgen -G 'benches/*.rs' >/dev/null || compgen -G 'benches/*/main.rs' >/dev/null; then
    cargo bench --no-run --features axum
else
    echo 'benches: skipped: there is none in benches/'
fi
