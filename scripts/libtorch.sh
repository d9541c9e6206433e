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

. "$(dirname "${BASH_SOURCE[0]}")/wheels.bash"
folder "libtorch-$torch_version" "$torch_version-$cuda_version" "${1:-}"

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

if complete; then
    print_exports
    exit 0
fi

[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] ||
    fail "no recipe for LibTorch on $(uname -s) $(uname -m)" "set LIBTORCH to a LibTorch $torch_version of your own, as README.md says"
command -v cc >/dev/null || fail "no C compiler (cc)" "run ./bootstrap.sh setup"
begin "run ./bootstrap.sh setup-tch"
take "torch==$torch_version" 'torch/include/*' torch/lib/libtorch_cpu.so torch/lib/libc10.so torch/lib/libgomp.so.1
take "nvidia-cuda-runtime-cu12==$cuda_version" nvidia/cuda_runtime/lib/libcudart.so.12
take "nvidia-cuda-cupti-cu12==$cuda_version" nvidia/cuda_cupti/lib/libcupti.so.12
# The linker is told `-ltorch`; the wheel's own libtorch.so would pull in CUDA.
cc -shared -o "$work/out/lib/libtorch.so" -x c /dev/null
printf '%s\n' "$torch_version" >"$work/out/build-version"
finish
print_exports
