#!/usr/bin/env bash
# The benchmarks build. Nobody is asked to believe figures from a shared machine, so they are not run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if compgen -G 'benches/*.rs' >/dev/null || compgen -G 'benches/*/main.rs' >/dev/null; then
    cargo bench --no-run --features axum
else
    echo 'benches: skipped: there is none in benches/'
fi
