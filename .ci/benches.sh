#!/usr/bin/env bash
# Builds the benchmarks. They are not run, because figures from a shared machine prove nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo bench --package benches --no-run --features axum
