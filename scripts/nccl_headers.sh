#!/usr/bin/env bash
# Takes the headers of NCCL and of CUDA's runtime (x86-64 Linux) from PyPI wheels: what the c10d shim needs besides LibTorch
# to be compiled with NCCL. No CUDA toolkit, no GPU.
#
#   scripts/nccl_headers.sh [DIR]          default DIR: ${XDG_CACHE_HOME:-~/.cache}/vlp/nccl-2.27.5
#   eval "$(scripts/nccl_headers.sh)"      the same, and sets the variables that build.rs reads
#
# stdout: `export …` lines; everything else goes to stderr. Downloads about 365 MB once and keeps about 6 MB.
# A second run only prints. The folder appears under its name when it is complete, never before.
set -euo pipefail

# Those that PyTorch 2.9.1 was built with. PyTorch for CUDA 13 brings headers of its own.
nccl_version=2.27.5
runtime_version=12.8.90
nvcc_version=12.8.93 # its `crt` folder, which the runtime's headers include
cccl_version=12.8.90 # its `nv` folder, likewise

say() { printf 'nccl headers: %s\n' "$*" >&2; }
fail() { # MESSAGE HELP
    printf 'error: %s\n  help: %s\n' "$1" "$2" >&2
    exit 1
}

dir=${1:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/vlp/nccl-$nccl_version}
case $dir in /*) ;; *) dir=$PWD/$dir ;; esac
marker=.complete-$nccl_version-$runtime_version-$nvcc_version-$cccl_version

print_exports() {
    printf 'export VLP_NCCL_INCLUDE=%q\n' "$dir/include"
    printf 'export VLP_CUDA_INCLUDE=%q\n' "$dir/include"
}

if [ -e "$dir/$marker" ]; then
    print_exports
    exit 0
fi

[ ! -e "$dir" ] ||
    fail "$dir exists, but this script did not complete it" "remove it, or name another folder: scripts/nccl_headers.sh DIR"
command -v python3 >/dev/null || fail "no python3, which fetches and unpacks the wheels" "run ./bootstrap.sh setup-tch"

mkdir -p "$(dirname "$dir")"
work=$(mktemp -d "$dir.part-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

. "$(dirname "${BASH_SOURCE[0]}")/wheels.bash"
take "nvidia-nccl-cu12==$nccl_version" 'nvidia/nccl/include/nccl.h'
take "nvidia-cuda-runtime-cu12==$runtime_version" 'nvidia/cuda_runtime/include/*'
take "nvidia-cuda-nvcc-cu12==$nvcc_version" 'nvidia/cuda_nvcc/include/crt/*'
take "nvidia-cuda-cccl-cu12==$cccl_version" 'nvidia/cuda_cccl/include/nv/*'
touch "$work/out/$marker"

# Another run may have finished meanwhile: its folder is as good as this one.
chmod 755 "$work/out"
mv -T "$work/out" "$dir" 2>/dev/null || [ -e "$dir/$marker" ] || fail "could not move the result to $dir" "check its permissions"
say "$(du -sh "$dir" | cut -f1) in $dir"
print_exports
