#!/usr/bin/env bash
# From a fresh Debian or Ubuntu with a Rust toolchain to a trained model. Safe to run again: done work is not redone.
#
#   ./bootstrap.sh                 install what is missing, build, make the demo world, run the quickstart, print its table
#   ./bootstrap.sh test [ARGS]     install what is missing, run all tests (ARGS go to the test runner)
#   ./bootstrap.sh setup           only install what is missing
#   ./bootstrap.sh setup-tch       setup, and what assembling LibTorch needs (scripts/libtorch.sh)
#
# System packages come from apt, as root or through sudo. stdout is the table; everything else goes to stderr.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

rust_minimum=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

say() { printf '==> %s\n' "$*" >&2; }
fail() { # MESSAGE HELP
    printf 'error: %s\n  help: %s\n' "$1" "$2" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

have_hdf5() {
    [ -n "${HDF5_DIR:-}" ] || { have pkg-config && { pkg-config --exists hdf5 || pkg-config --exists hdf5-serial; }; }
}

# A compiler alone is not enough: linking needs the C library's development files.
can_compile() {
    have c++ && printf '#include <stdio.h>\nint main(void) { return 0; }\n' | cc -x c - -o /dev/null 2>/dev/null
}

install_packages() { # [python]: what assembling LibTorch needs besides
    local packages=()
    can_compile || packages+=(build-essential)
    have pkg-config || packages+=(pkg-config)
    have_hdf5 || packages+=(libhdf5-dev)
    if [ "${1:-}" = python ] && ! python3 -m pip --version >/dev/null 2>&1 && ! python3 -c 'import ensurepip' 2>/dev/null; then
        packages+=(python3-venv)
    fi
    [ ${#packages[@]} -gt 0 ] || return 0
    have apt-get || fail "missing: ${packages[*]} (Debian's names), and there is no apt-get to install them" \
        "install a C and C++ compiler, pkg-config and HDF5 (1.8.4 or newer, with headers); HDF5_DIR may name its folder"
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=300)
    if [ "$(id -u)" != 0 ]; then
        have sudo || fail "missing: ${packages[*]}; installing them needs root, and there is no sudo" \
            "as root, run: apt-get update && apt-get install ${packages[*]}"
        apt=(sudo "${apt[@]}")
    fi
    say "installing ${packages[*]}"
    "${apt[@]}" update >&2 || say "apt-get update failed; trying with the lists at hand"
    "${apt[@]}" install --no-install-recommends "${packages[@]}" >&2 ||
        fail "apt-get could not install ${packages[*]}" "install them yourself, then run this again"
}

check_rust() {
    if ! have cargo && [ -r "${CARGO_HOME:-${HOME:-}/.cargo}/env" ]; then
        # shellcheck disable=SC1091
        . "${CARGO_HOME:-${HOME:-}/.cargo}/env"
    fi
    have cargo && have rustc || fail "no Rust toolchain: cargo and rustc are not on PATH" \
        "install Rust $rust_minimum or newer from https://rustup.rs, then run this again"
    local found
    found=$(rustc --version | cut -d ' ' -f 2)
    if [ "$(printf '%s\n%s\n' "$rust_minimum" "${found%%-*}" | sort -V | head -n 1)" != "$rust_minimum" ]; then
        fail "rustc is $found, this project needs $rust_minimum or newer" "rustup update stable"
    fi
}

setup() {
    check_rust
    install_packages "$@"
}

build() {
    say "building (the first time takes several minutes)"
    cargo build --release --locked >&2
}

quickstart() {
    say "making the demo world in demo/"
    target/release/vlp data demo --out demo >&2
    say "training on it: vlp run experiments/quickstart/*.toml"
    DATA_ROOT=demo target/release/vlp run experiments/quickstart/*.toml
}

run_tests() {
    if cargo nextest --version >/dev/null 2>&1; then
        say "cargo nextest run --release"
        cargo nextest run --release --locked "$@" >&2
    else
        say "cargo test --release (cargo-nextest is not installed)"
        cargo test --release --locked --lib --bins --tests "$@" >&2
    fi
    say "cargo test --release --doc"
    cargo test --release --locked --doc >&2
}

action=${1:-run}
[ $# -eq 0 ] || shift
case $action in
test | --test) ;;
*) [ $# -eq 0 ] || fail "unexpected arguments after $action: $*" "./bootstrap.sh help" ;;
esac
case $action in
run)
    setup
    build
    quickstart
    ;;
test | --test)
    setup
    run_tests "$@"
    ;;
setup | --setup) setup ;;
setup-tch) setup python ;;
help | -h | --help) sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}" ;;
*) fail "unknown command \`$action\`" "./bootstrap.sh help" ;;
esac
