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

. "$(dirname "${BASH_SOURCE[0]}")/wheels.bash"
folder "nccl-$nccl_version" "$nccl_version-$runtime_version-$nvcc_version-$cccl_version" "${1:-}"

print_exports() {
    printf 'export VLP_NCCL_INCLUDE=%q\n' "$dir/include"
    printf 'export VLP_CUDA_INCLUDE=%q\n' "$dir/include"
}

if complete; then
    print_exports
    exit 0
fi

begin "run ./bootstrap.sh setup-tch"
take "nvidia-nccl-cu12==$nccl_version" 'nvidia/nccl/include/nccl.h'
take "nvidia-cuda-runtime-cu12==$runtime_version" 'nvidia/cuda_runtime/include/*'
take "nvidia-cuda-nvcc-cu12==$nvcc_version" 'nvidia/cuda_nvcc/include/crt/*'
take "nvidia-cuda-cccl-cu12==$cccl_version" 'nvidia/cuda_cccl/include/nv/*'
finish
print_exports
