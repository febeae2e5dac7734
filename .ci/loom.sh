#!/usr/bin/env bash
# Runs the models of the core in every interleaving that loom tries. Then runs each mutant, which
# the models named in its head must find. A mutant is a patch to a copy under target/, so the code
# has no trace of it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The copy is inside a repository, and `git apply` must not search for that.
export CARGO_TARGET_DIR=$PWD/target/loom GIT_CEILING_DIRECTORIES=$PWD/target/loom
export RUSTFLAGS='--cfg errgroup_loom'
copy=$CARGO_TARGET_DIR/mutant
rm -rf "$copy"
mkdir -p "$copy"
# All of it, since the manifest names its benches and tests. The build of the models uses the target
# directory above.
cp -R Cargo.toml src tests benches examples models "$copy"
cd "$copy/models"

# compile OPTIONS..: outside of the time limit of the models, since a busy machine may need long.
compile() {
    cargo test --release --quiet "$@" --no-run
}

# models OPTIONS..: runs what is compiled. Quiet: a mutant prints a lot when it is found. A model
# that hangs fails with status 124.
models() {
    timeout 1800 cargo test --release --quiet "$@"
}

compile
models -- --test-threads 2

# A mutant changes a few lines, so it is compiled incrementally and with fewer optimizations. Its
# model fails soon, and the compiler takes most of the time.
export CARGO_INCREMENTAL=1
quickly=(--lib)
for crate in errgroup models; do
    quickly+=(--config "profile.release.package.$crate.opt-level=1")
done

log=$CARGO_TARGET_DIR/mutant.log
cd "$copy"
found=0
for mutant in models/mutants/*.patch; do
    git apply "$mutant"
    # Its warnings mean nothing, because a mutant leaves something out on purpose.
    if ! (cd models && compile "${quickly[@]}") >"$log" 2>&1; then
        cat "$log" >&2
        exit 1
    fi
    for model in $(sed -n 's/^Model: //p' "$mutant"); do
        status=0
        (cd models && models "${quickly[@]}" -- --exact "$model") >"$log" 2>&1 || status=$?
        if ((status == 0)); then
            echo "loom: $model does not find $mutant" >&2
            exit 1
        elif ((status == 124)); then
            echo "loom: $model hangs with $mutant" >&2
            exit 1
        # A deadlock ends the process, and its threads hold guards.
        elif ! grep -q '^running 1 test' "$log" || ! grep -q 'panicked at' "$log"; then
            cat "$log" >&2
            echo "loom: $mutant: neither found nor missed" >&2
            exit 1
        fi
        found=$((found + 1))
    done
    git apply --reverse "$mutant"
done
echo "loom: all models hold, and $found times out of $found a model found its mutant"
