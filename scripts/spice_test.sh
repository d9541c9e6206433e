#!/usr/bin/env bash
# Runs the test of the SPICE tool (tests/golden_spice.rs) without CoreNLP's 385 MiB of language models.
#
#   scripts/spice_test.sh [DIR] [-- CARGO-TEST-ARGS…]     default DIR: ${XDG_CACHE_HOME:-~/.cache}/vlp/spice-test
#
# DIR gets spice-1.0.jar and its libraries from PyPI's pycocoevalcap 1.2 (104 MB, fetched once). In place of CoreNLP 3.6.0 it
# gets the CoreNLP 3.4.1 of the same package: enough to load the classes, because the test's captions are parsed already.
# DIR IS FOR THIS TEST ONLY: on other captions the tool fails there. Needs pip, unzip and a JDK ($JAVA_HOME, or in PATH).
set -euo pipefail

dir=${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/vlp/spice-test
if [[ $# -gt 0 && $1 != -- ]]; then dir=$1; shift; fi
if [[ ${1-} == -- ]]; then shift; fi

if [[ ! -e $dir/.complete ]]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    pip download --quiet --no-deps --dest "$work" pycocoevalcap==1.2
    unzip -q "$work"/pycocoevalcap-1.2-*.whl 'pycocoevalcap/spice/*' 'pycocoevalcap/tokenizer/*.jar' -d "$work"
    mkdir -p "$dir"
    cp -r "$work"/pycocoevalcap/spice/{spice-1.0.jar,lib} "$dir"
    for name in stanford-corenlp-3.6.0 stanford-corenlp-3.6.0-models; do
        cp "$work/pycocoevalcap/tokenizer/stanford-corenlp-3.4.1.jar" "$dir/lib/$name.jar"
    done
    touch "$dir/.complete"
fi
VLP_SPICE_DIR=$dir exec cargo test --test golden_spice "$@"
