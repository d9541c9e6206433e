#!/usr/bin/env bash
# Assembles LibTorch for the CPU (x86-64 Linux) from PyPI wheels, without the 3 GB of CUDA libraries.
#
#   scripts/libtorch.sh [DIR]              default DIR: ${XDG_CACHE_HOME:-~/.cache}/vlp/libtorch-2.9.1
#   eval "$(scripts/libtorch.sh)"          the same, and sets the variables that the `tch` feature needs
#
# stdout: `export …` lines; everything else goes to stderr. Downloads about 900 MB once and keeps about 490 MB.
# A second run only prints. The folder appears under its name when it is complete, never before.
set -euo pipefail

torch_version=2.9.1
cuda_version=12.8.90 # of libcudart and libcupti, which this version's libtorch_cpu.so needs at load time

say() { printf 'libtorch: %s\n' "$*" >&2; }
fail() { # MESSAGE HELP
    printf 'error: %s\n  help: %s\n' "$1" "$2" >&2
    exit 1
}

dir=${1:-${XDG_CACHE_HOME:-${HOME:?HOME is not set}/.cache}/vlp/libtorch-$torch_version}
case $dir in /*) ;; *) dir=$PWD/$dir ;; esac
marker=.complete-$torch_version-$cuda_version

print_exports() {
    local lib
    printf 'export LIBTORCH=%q\n' "$dir"
    printf 'export LIBTORCH_CXX11_ABI=1\n'
    printf 'export LIBTORCH_BYPASS_VERSION_CHECK=1\n'
    case ":${LD_LIBRARY_PATH:-}:" in
    *":$dir/lib:"*) lib=$LD_LIBRARY_PATH ;;
    *) lib=$dir/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} ;;
    esac
    printf 'export LD_LIBRARY_PATH=%q\n' "$lib"
}

if [ -e "$dir/$marker" ]; then
    print_exports
    exit 0
fi

[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] ||
    fail "no recipe for LibTorch on $(uname -s) $(uname -m)" "set LIBTORCH to a LibTorch $torch_version of your own, as README.md says"
[ ! -e "$dir" ] ||
    fail "$dir exists, but this script did not complete it for torch $torch_version" "remove it, or name another folder: scripts/libtorch.sh DIR"
command -v cc >/dev/null || fail "no C compiler (cc)" "run ./bootstrap.sh setup"
command -v python3 >/dev/null || fail "no python3, which fetches and unpacks the wheels" "run ./bootstrap.sh setup-tch"

mkdir -p "$(dirname "$dir")"
work=$(mktemp -d "$dir.part-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

. "$(dirname "${BASH_SOURCE[0]}")/wheels.bash"
take "torch==$torch_version" 'torch/include/*' torch/lib/libtorch_cpu.so torch/lib/libc10.so torch/lib/libgomp.so.1
take "nvidia-cuda-runtime-cu12==$cuda_version" nvidia/cuda_runtime/lib/libcudart.so.12
take "nvidia-cuda-cupti-cu12==$cuda_version" nvidia/cuda_cupti/lib/libcupti.so.12
# The linker is told `-ltorch`; the wheel's own libtorch.so would pull in CUDA.
cc -shared -o "$work/out/lib/libtorch.so" -x c /dev/null
printf '%s\n' "$torch_version" >"$work/out/build-version"
touch "$work/out/$marker"

# Another run may have finished meanwhile: its folder is as good as this one.
chmod 755 "$work/out"
mv -T "$work/out" "$dir" 2>/dev/null || [ -e "$dir/$marker" ] || fail "could not move the result to $dir" "check its permissions"
say "$(du -sh "$dir" | cut -f1) in $dir"
print_exports
