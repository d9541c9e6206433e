//! Names the source that is compiled (`SOURCE_HASH`, which run locks record), and compiles `src/distributed/c10d.cpp`
//! and `src/model/onednn.cpp` against LibTorch for the feature `tch`.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=SOURCE_HASH={:032x}", source_hash());
    #[cfg(feature = "tch")]
    c10d::compile();
}

/// FNV-1a, 128 bits, over the names and contents of all files that decide what the program does.
fn source_hash() -> u128 {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<PathBuf> = ["Cargo.toml", "Cargo.lock"].map(PathBuf::from).into();
    let mut folders = vec![PathBuf::from("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root.join(&folder)).into_iter().flatten().flatten() {
            let path = folder.join(entry.file_name());
            if root.join(&path).is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    for path in ["src", "Cargo.toml", "Cargo.lock"] {
        println!("cargo:rerun-if-changed={path}");
    }
    files.sort();
    let mut hash = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58du128;
    for file in files {
        let content = std::fs::read(root.join(&file)).unwrap_or_default();
        let length = (content.len() as u64).to_le_bytes();
        let name = file.as_os_str().as_encoded_bytes();
        for byte in name.iter().chain(&length).chain(&content) {
            hash = (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
        }
    }
    hash
}

#[cfg(feature = "tch")]
mod c10d {
    use std::path::{Path, PathBuf};

    /// Headers of Gloo that PyTorch's headers include, and that LibTorch's packages lack.
    const GLOO: [&str; 5] = ["algorithm.h", "common/error.h", "context.h", "rendezvous/store.h", "transport/device.h"];

    /// Headers of libraries that PyTorch's CUDA headers include, and whose functions are not called here.
    const HANDLES: [&str; 5] = ["cublas_v2.h", "cublasLt.h", "cusparse.h", "cusolverDn.h", "cusolver_common.h"];

    pub fn compile() {
        for name in ["LIBTORCH", "LIBTORCH_CXX11_ABI", "VLP_NCCL_INCLUDE", "VLP_CUDA_INCLUDE", "CUDA_HOME"] {
            println!("cargo:rerun-if-env-changed={name}");
        }
        for name in [
            "distributed/c10d.cpp",
            "distributed/gloo.h",
            "distributed/cuda_handles.h",
            "model/onednn.cpp",
            "guarded.h",
        ] {
            println!("cargo:rerun-if-changed=src/{name}");
        }
        let Some(torch) = variable("LIBTORCH") else {
            fail("LIBTORCH is not set");
        };
        let include = torch.join("include");
        if !include.join("torch/csrc/distributed/c10d/ProcessGroupGloo.hpp").is_file() {
            fail(&format!("{} has no headers of PyTorch's process groups", include.display()));
        }
        let mut build = cc::Build::new();
        build.cpp(true).std("c++17").warnings(false).define("USE_C10D_GLOO", None);
        build.files(["src/distributed/c10d.cpp", "src/model/onednn.cpp"]);
        if std::env::var("LIBTORCH_CXX11_ABI").is_ok_and(|abi| abi == "0") {
            build.define("_GLIBCXX_USE_CXX11_ABI", "0");
        }
        if !include.join("gloo/context.h").is_file() {
            build.include(declarations("gloo.h", "gloo", GLOO));
        }
        build.include(&include).include(include.join("torch/csrc/api/include"));

        let cuda = torch.join("lib/libtorch_cuda.so").is_file();
        println!("cargo:rustc-link-search=native={}", torch.join("lib").display());
        match nccl_headers(&torch, cuda) {
            Some(headers) => {
                let mut with_nccl = build.clone();
                with_nccl.define("USE_C10D_NCCL", None);
                // Found headers come first; what they lack is declared.
                headers.iter().for_each(|folder| _ = with_nccl.include(folder));
                with_nccl.include(declarations("cuda_handles.h", "", HANDLES));
                if cuda {
                    with_nccl.compile("vlp_c10d");
                } else {
                    // There is nothing to link it to: only checked, and the program gets the other one.
                    println!(
                        "cargo:warning=compiled with NCCL as a check; LIBTORCH has no CUDA, so the program is without"
                    );
                    with_nccl.out_dir(out().join("with_nccl")).compile_intermediates();
                    build.compile("vlp_c10d");
                }
            }
            None => {
                if cuda {
                    println!(
                        "cargo:warning=no headers of NCCL and CUDA: several GPUs will not work together; \
                         `eval \"$(scripts/nccl_headers.sh)\"` gets them"
                    );
                }
                build.compile("vlp_c10d");
            }
        }
        if cuda {
            println!("cargo:rustc-link-lib=torch_cuda");
            println!("cargo:rustc-link-lib=c10_cuda");
        }
        println!("cargo:rustc-link-lib=torch_cpu");
        println!("cargo:rustc-link-lib=c10");
    }

    /// Folders with `nccl.h` and CUDA's runtime: those that the variables name; with a LibTorch that has CUDA, those of
    /// its Python packages or of an installed toolkit. None when one of the two is missing.
    fn nccl_headers(torch: &Path, cuda: bool) -> Option<Vec<PathBuf>> {
        let given = ["VLP_NCCL_INCLUDE", "VLP_CUDA_INCLUDE"].map(variable);
        let mut folders: Vec<PathBuf> = given.iter().flatten().cloned().collect();
        for (name, folder) in ["VLP_NCCL_INCLUDE", "VLP_CUDA_INCLUDE"].iter().zip(&given) {
            let header = if name.contains("NCCL") { "nccl.h" } else { "cuda_runtime_api.h" };
            if let Some(folder) = folder.as_ref().filter(|folder| !folder.join(header).is_file()) {
                fail(&format!("{name} is {}, which has no {header}", folder.display()));
            }
        }
        if cuda {
            let packages = torch.parent().map(|site| site.join("nvidia"));
            let parts = ["nccl", "cu13", "cuda_runtime", "cuda_nvcc", "cuda_cccl", "cublas", "cusparse", "cusolver"];
            let in_packages = packages.iter().flat_map(|n| parts.map(|part| n.join(part).join("include")));
            let toolkit = variable("CUDA_HOME").unwrap_or_else(|| PathBuf::from("/usr/local/cuda"));
            let others = [toolkit.join("include"), toolkit.join("include/cccl"), PathBuf::from("/usr/include")];
            folders.extend(in_packages.chain(others).filter(|folder| folder.is_dir()));
        }
        let has = |header: &str| folders.iter().any(|folder| folder.join(header).is_file());
        // The compiler looks in /usr/include anyway, and must not do so before its own folders.
        (has("nccl.h") && has("cuda_runtime_api.h"))
            .then(|| folders.into_iter().filter(|folder| *folder != Path::new("/usr/include")).collect())
    }

    fn variable(name: &str) -> Option<PathBuf> {
        std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    fn out() -> PathBuf {
        PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default())
    }

    /// A folder in which each of these headers, below `folder`, is the file of ours.
    fn declarations(ours: &str, folder: &str, names: [&str; 5]) -> PathBuf {
        let root = out().join(format!("{ours}.headers"));
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/distributed").join(ours);
        for name in names {
            let header = root.join(folder).join(name);
            let written = std::fs::create_dir_all(header.parent().unwrap_or(&root))
                .and_then(|()| std::fs::write(&header, format!("#include \"{}\"\n", file.display())));
            if let Err(error) = written {
                fail(&format!("cannot write {}: {error}", header.display()));
            }
        }
        root
    }

    fn fail(reason: &str) -> ! {
        println!("cargo::error={reason}; `eval \"$(scripts/libtorch.sh)\"` sets it (README.md, \"LibTorch\")");
        std::process::exit(1);
    }
}
