#!/usr/bin/env bash
# Runs the tests against a real MLflow server; makes its virtual environment on the first call, outside of this folder.
#
#   scripts/mlflow_test.sh             tests/mlflow.rs
#   scripts/mlflow_test.sh setup       only makes the environment; prints `export VLP_MLFLOW=…`, which the tests read
#
# Needs Python 3.10 or newer with venv; fetches about 200 MB from PyPI once. The environment appears under its name
# when it is complete. The servers of the tests listen on 127.0.0.1 only.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=3.17.2
dir=${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/vlp/mlflow-$version
marker=$dir/.complete

say() { printf 'mlflow_test: %s\n' "$*" >&2; }
fail() { # MESSAGE HELP
    printf 'error: %s\n  help: %s\n' "$1" "$2" >&2
    exit 1
}

if ! [ -e "$marker" ]; then
    command -v python3 >/dev/null || fail "no python3" "install Python 3.10 or newer with venv"
    say "fetching mlflow $version into $dir"
    mkdir -p "$(dirname "$dir")"
    # Environments cannot be moved: one that is not complete is made again in its place.
    python3 -m venv --clear "$dir" >&2 || fail "python3 cannot make a virtual environment" "install python3-venv"
    "$dir/bin/python" -m pip install --quiet --disable-pip-version-check "mlflow==$version" >&2 ||
        fail "mlflow==$version could not be installed" "check the network, and that Python is 3.10 or newer"
    [ "$("$dir/bin/mlflow" --version)" = "mlflow, version $version" ] ||
        fail "$dir/bin/mlflow is not version $version" "remove $dir, then run this again"
    : >"$marker"
fi

export VLP_MLFLOW=$dir/bin/mlflow
if [ "${1:-}" = setup ]; then
    printf 'export VLP_MLFLOW=%q\n' "$VLP_MLFLOW"
    exit 0
fi
if cargo nextest --version >/dev/null 2>&1; then
    exec cargo nextest run --release --locked --test mlflow "$@"
fi
exec cargo test --release --locked --test mlflow "$@"
