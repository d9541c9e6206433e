//! Names the source that is compiled (`SOURCE_HASH`, which run locks record), and compiles `src/distributed/c10d.cpp`
//! against LibTorch for the feature `tch`.

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

    pub fn compile() {
        println!("cargo:rerun-if-env-changed=LIBTORCH");
        println!("cargo:rerun-if-changed=src/distributed/c10d.cpp");
        println!("cargo:rerun-if-changed=src/distributed/gloo.h");
        let Some(torch) = std::env::var_os("LIBTORCH").map(PathBuf::from) else {
            fail("LIBTORCH is not set");
        };
        let include = torch.join("include");
        if !include.join("torch/csrc/distributed/c10d/ProcessGroupGloo.hpp").is_file() {
            fail(&format!("{} has no headers of PyTorch's process groups", include.display()));
        }
        let mut build = cc::Build::new();
        build.cpp(true).std("c++17").warnings(false).define("USE_C10D_GLOO", None).file("src/distributed/c10d.cpp");
        if std::env::var("LIBTORCH_CXX11_ABI").is_ok_and(|abi| abi == "0") {
            build.define("_GLIBCXX_USE_CXX11_ABI", "0");
        }
        if !include.join("gloo/context.h").is_file() {
            build.include(gloo_headers());
        }
        build.include(&include).include(include.join("torch/csrc/api/include")).compile("vlp_c10d");
        println!("cargo:rustc-link-search=native={}", torch.join("lib").display());
        println!("cargo:rustc-link-lib=torch_cpu");
        println!("cargo:rustc-link-lib=c10");
    }

    /// A folder in which each missing header is our declarations.
    fn gloo_headers() -> PathBuf {
        let folder = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default()).join("gloo_headers");
        let declarations = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/distributed/gloo.h");
        for name in GLOO {
            let header = folder.join("gloo").join(name);
            let written = std::fs::create_dir_all(header.parent().unwrap_or(&folder))
                .and_then(|()| std::fs::write(&header, format!("#include \"{}\"\n", declarations.display())));
            if let Err(error) = written {
                fail(&format!("cannot write {}: {error}", header.display()));
            }
        }
        folder
    }

    fn fail(reason: &str) -> ! {
        println!("cargo::error={reason}; `eval \"$(scripts/libtorch.sh)\"` sets it (README.md, \"LibTorch\")");
        std::process::exit(1);
    }
}
