#!/usr/bin/env bash
# What is to hold before a release, by hand: its tools take minutes to install, so .ci/run has no part in it.
#
#     .ci/release.sh                      all of it
#     .ci/release.sh api types            these steps of it
#     .ci/release.sh --bless              makes the listing of the public face what it is now
#     BASELINE=HEAD~20 .ci/release.sh semver
#
# It needs a nightly toolchain: what the tools read, rustdoc's JSON, is not stable, so a newer nightly may want newer tools.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec </dev/null

all=(api types semver powerset minimal docsrs package)
face=.ci/public-api.txt
root=$PWD
scratch=$(mktemp -d)
step=''
trap 'status=$?; rm -rf "$scratch"; [[ $status == 0 ]] || printf "\nrelease: FAILED: %s\n" "$step" >&2' EXIT

fail() {
    printf '\nrelease: %s\n' "$1" >&2
    exit 1
}

# With these, the listing was made last.
declare -A versions=([public-api]=0.52.0 [semver-checks]=0.51.0 [check-external-types]=0.5.0 [hack]=0.6.46)

need() {
    cargo "$1" --help >/dev/null 2>&1 && return
    echo "-- cargo-$1 is not installed; that takes minutes, once"
    nice cargo install --locked "cargo-$1@${versions[$1]}"
}

# The tree as it stands, uncommitted changes included, for what changes its manifest. To cargo it is the same package as the one
# here, and so is what is packaged: without --touch it would find them built, and look no further.
copy() {
    cd "$root"
    rm -rf "$scratch/copy"
    mkdir "$scratch/copy"
    git ls-files -z | tar --null --create --files-from - | tar --extract --touch --directory "$scratch/copy"
    cd "$scratch/copy"
    # The library alone: a member's dependencies would have a say in what is the oldest.
    sed -i '/^\[workspace\]$/,/^$/d' Cargo.toml
}

# Without what every type has, and without the compiler's own auto traits, which no user can name.
listing() {
    cargo +nightly public-api --all-features --omit blanket-impls --color never |
        sed -E '/ core::marker::(Freeze|StructuralPartialEq|UnsafeUnpin) for /d'
}

# The public face is what was last agreed to.
api() {
    need public-api
    listing >"$scratch/face"
    diff -u "$face" "$scratch/face" || fail "the public face has changed; if it should have, .ci/release.sh --bless"
    echo "api: $(wc -l <"$face") lines, as in $face"
}

bless() {
    need public-api
    listing >"$scratch/face"
    diff -u "$face" "$scratch/face" || true
    cp "$scratch/face" "$face"
}

# Of other crates, the public face names the types in external-types.toml alone.
types() {
    need check-external-types
    cargo +nightly check-external-types --all-features --config .ci/external-types.toml
}

# The version is as much newer than the last release as the changes want.
semver() {
    local baseline=${BASELINE:-$(git tag --list 'v*' --sort=-version:refname | sed -n 1p)}
    if [[ -z $baseline ]]; then
        echo 'semver: skipped: no release yet, that is, no tag v*; BASELINE=<revision> compares with any other'
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

# The lower bounds in Cargo.toml are true: the library builds with the oldest versions that they allow.
minimal() (
    copy
    echo '-- everything at its oldest'
    cargo +nightly update -Zminimal-versions --quiet
    cargo check --locked --all-features
    # Without tokio-util, which wants a newer tokio than the library does.
    copy
    echo '-- the direct dependencies but tokio-util at their oldest'
    awk '/^\[/ { skip = /dev-dependencies/ } !skip && !/^tokio-util = /' Cargo.toml >"$scratch/manifest"
    cp "$scratch/manifest" Cargo.toml
    rm Cargo.lock
    cargo +nightly update -Zdirect-minimal-versions --quiet
    # Nor does rustc know the feature now.
    RUSTFLAGS='-A unexpected_cfgs' cargo check --locked --all-features
    cargo tree --locked --all-features --edges normal --depth 1
)

# The documentation as docs.rs builds it.
docsrs() {
    RUSTDOCFLAGS='--cfg docsrs -D warnings' cargo +nightly doc --no-deps --all-features
}

# What is published is complete: it builds by itself, with its tests, examples and benches, and so does the library for its users.
package() {
    cargo package --list
    cargo publish --dry-run
    # Which leaves no file.
    cargo package --no-verify --quiet
    local version
    version=$(sed -n '0,/^version *= */s/^version *= *"\(.*\)"$/\1/p' Cargo.toml)
    tar --extract --touch --gzip --file "${CARGO_TARGET_DIR:-target}/package/errgroup-$version.crate" --directory "$scratch"
    (
        target=$(realpath "${CARGO_TARGET_DIR:-target}")
        cd "$scratch/errgroup-$version"
        CARGO_TARGET_DIR=$target cargo check --locked --all-targets --all-features
    )
}

rustc +nightly --version >/dev/null 2>&1 || fail 'no nightly toolchain: rustup toolchain install nightly'

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
    # Not as a condition, which would switch errexit off in it.
    "$step"
    printf 'release: <== %s: ok, %d s\n' "$step" $((SECONDS - began))
done

printf '\nrelease: held, in %d s: %s\n' "$SECONDS" "$*"
