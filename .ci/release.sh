#!/usr/bin/env bash
# The checks before a release, run by hand: their tools take minutes to install, so .ci/run does not
# run them.
#
#     .ci/release.sh                      all steps
#     .ci/release.sh api types            these steps only
#     .ci/release.sh --bless              rewrites the listing of the public API
#     BASELINE=HEAD~20 .ci/release.sh semver
#
# It needs a nightly toolchain: the tools read rustdoc's JSON, which is not stable, so a newer
# nightly may require newer tools.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

all=(api types semver powerset minimal docsrs package)
face=.ci/public-api.txt
root=$PWD
scratch=$(mktemp -d)
step=''
trap 'status=$?
    rm -rf "$scratch"
    [[ $status == 0 ]] || printf "\nrelease: FAILED: %s\n" "$step" >&2' EXIT

fail() {
    printf '\nrelease: %s\n' "$1" >&2
    exit 1
}

# The versions with which the listing was made last.
declare -A versions=(
    [public-api]=0.52.0 [semver-checks]=0.51.0 [check-external-types]=0.5.0 [hack]=0.6.46
)

need() {
    cargo "$1" --help >/dev/null 2>&1 && return
    echo "-- cargo-$1 is not installed; that takes minutes, once"
    nice cargo install --locked "cargo-$1@${versions[$1]}"
}

# Copies the tree with its uncommitted changes, for steps that change its manifest. To cargo the
# copy is the same package as the one here, and so is the packaged one. Without --touch, cargo would
# take them for already built.
copy() {
    cd "$root"
    rm -rf "$scratch/copy"
    mkdir "$scratch/copy"
    git ls-files -z | tar --null --create --files-from - |
        tar --extract --touch --directory "$scratch/copy"
    cd "$scratch/copy"
    # The library alone: the dependencies of a member would influence which version is the oldest.
    sed -i '/^\[workspace\]$/,/^$/d' Cargo.toml
}

# Without what every type has, without the compiler's own auto traits, which users cannot name, and
# without the modules that only rustdoc has.
listing() {
    cargo +nightly public-api --all-features --omit blanket-impls --color never |
        sed -E '/ core::marker::(Freeze|StructuralPartialEq|UnsafeUnpin) for /d
            /^pub mod errgroup::_documentation/d'
}

# The public API is the one that was last agreed on.
api() {
    need public-api
    listing >"$scratch/face"
    diff -u "$face" "$scratch/face" ||
        fail "the public face has changed; if it should have, .ci/release.sh --bless"
    echo "api: $(wc -l <"$face") lines, as in $face"
}

bless() {
    need public-api
    listing >"$scratch/face"
    diff -u "$face" "$scratch/face" || true
    cp "$scratch/face" "$face"
}

# The public API names no types of other crates but those in external-types.toml.
types() {
    need check-external-types
    cargo +nightly check-external-types --all-features --config .ci/external-types.toml
}

# The version number fits the changes since the last release.
semver() {
    local baseline=${BASELINE:-$(git tag --list 'v*' --sort=-version:refname | sed -n 1p)}
    if [[ -z $baseline ]]; then
        echo 'semver: skipped: there is no tag v*; BASELINE=<revision> compares with any other'
        return
    fi
    need semver-checks
    cargo semver-checks --all-features --baseline-rev "$baseline"
}

# Every set of features builds, without a warning.
powerset() (
    need hack
    copy
    RUSTFLAGS='-D warnings' cargo hack check --feature-powerset --no-dev-deps
)

# The lower bounds in Cargo.toml are true: the library builds with the oldest versions that they
# allow.
minimal() (
    copy
    echo '-- everything at its oldest'
    cargo +nightly update -Zminimal-versions --quiet
    cargo check --locked --all-features
    # Without tokio-util, which needs a newer tokio than the library.
    copy
    echo '-- the direct dependencies but tokio-util at their oldest'
    awk '/^\[/ { skip = /dev-dependencies/ } !skip && !/^tokio-util = /' Cargo.toml \
        >"$scratch/manifest"
    cp "$scratch/manifest" Cargo.toml
    rm Cargo.lock
    cargo +nightly update -Zdirect-minimal-versions --quiet
    # Now rustc does not know the feature either.
    RUSTFLAGS='-A unexpected_cfgs' cargo check --locked --all-features
    cargo tree --locked --all-features --edges normal --depth 1
)

# The documentation as docs.rs builds it.
docsrs() {
    RUSTDOCFLAGS='--cfg docsrs -D warnings' cargo +nightly doc --no-deps --all-features
}

# The published package is complete: it builds by itself with its tests and examples, and
# the library builds for its users.
package() {
    cargo package --list
    cargo publish --dry-run
    # This leaves no file.
    cargo package --no-verify --quiet
    local version
    version=$(sed -n '0,/^version *= */s/^version *= *"\(.*\)"$/\1/p' Cargo.toml)
    tar --extract --touch --gzip --directory "$scratch" \
        --file "${CARGO_TARGET_DIR:-target}/package/errgroup-$version.crate"
    (
        target=$(realpath "${CARGO_TARGET_DIR:-target}")
        cd "$scratch/errgroup-$version"
        CARGO_TARGET_DIR=$target cargo check --locked --all-targets --all-features
    )
}

rustc +nightly --version >/dev/null 2>&1 ||
    fail 'no nightly toolchain: rustup toolchain install nightly'

if [[ ${1-} == --bless ]]; then
    bless
    exit
fi
[[ $# -gt 0 ]] || set -- "${all[@]}"
for step in "$@"; do
    [[ " ${all[*]} " == *" $step "* ]] || fail "no step $step: ${all[*]}"
done
printf 'release: %s\n' "$(rustc --version)" "nightly: $(rustc +nightly --version)"

for step in "$@"; do
    printf '\nrelease: ==> %s\n' "$step"
    began=$SECONDS
    # Not as a condition, because that would switch errexit off.
    "$step"
    printf 'release: <== %s: ok, %d s\n' "$step" $((SECONDS - began))
done

printf '\nrelease: held, in %d s: %s\n' "$SECONDS" "$*"
