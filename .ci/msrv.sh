#!/usr/bin/env bash
# Builds the library with the oldest compiler that Cargo.toml promises, if it is installed. With
# ERRGROUP_INSTALL_MSRV=1, rustup installs it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=$(sed -n 's/^rust-version *= *"\([^"]*\)".*/\1/p' Cargo.toml)
[[ -n $version ]] || {
    echo 'msrv: Cargo.toml has no rust-version' >&2
    exit 1
}

toolchain=''
if command -v rustup >/dev/null; then
    if [[ ${ERRGROUP_INSTALL_MSRV-} == 1 ]]; then
        # It may fail, without a network. Then the line at the end says that nothing was checked.
        timeout 300 rustup toolchain install "$version" --profile minimal || true
    fi
    while read -r name _; do
        case $name in
            "$version" | "$version"-* | "$version".*) toolchain=$name ;;
        esac
    done <<<"$(rustup toolchain list)"
fi

if [[ -n $toolchain ]]; then
    rustup run "$toolchain" cargo check --locked --no-default-features
    rustup run "$toolchain" cargo check --locked --all-features
else
    echo "msrv: skipped: toolchain $version is not installed (rustup toolchain install $version)"
fi
