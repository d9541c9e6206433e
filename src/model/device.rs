//! The engines of this build and their devices, by the names that `launch.device` takes.
//!
//! Which GPU a process of a run takes is decided in `config`; here a name is opened, or refused with what is missing.

use std::sync::Once;

use burn::tensor::{Device, Tensor};

use super::threads;

/// All devices that a build can have, the fastest first. Those with GPUs also take a number, as in `tch-cuda:1`.
pub const ALL: [&str; 4] = ["tch-cuda", "cuda", "tch-cpu", "flex"];

/// A device that this build or this machine does not have.
#[derive(Debug, thiserror::Error)]
#[error("device `{name}` is not available: {reason}\n  help: {help}")]
pub struct DeviceError {
    /// What was asked for.
    pub name: String,
    /// Why not.
    pub reason: String,
    /// What to do.
    pub help: &'static str,
}

/// Names of the devices of this build that this machine has, the fastest first.
pub fn available() -> Vec<&'static str> {
    ALL.into_iter().filter(|name| find(name).is_ok()).collect()
}

/// The name that `auto` stands for when `processes` share this machine: the fastest device that all of them find.
pub fn resolve(name: &str, processes: usize) -> String {
    if name != "auto" {
        return name.to_owned();
    }
    let works = |name: &&str| match *name {
        "tch-cuda" => tch_gpus() >= processes.max(1),
        "cuda" => cuda_gpus() >= processes.max(1),
        name => find(name).is_ok(),
    };
    // `flex` is always there.
    ALL.iter().copied().find(works).unwrap_or("flex").to_owned()
}

/// Opens a device by name, without autodiff; `auto` is the fastest. Loops between its products run on its threads from now on.
pub fn open(name: &str) -> Result<Device, DeviceError> {
    let device =
        find(&resolve(name, 1)).map_err(|(reason, help)| DeviceError { name: name.to_owned(), reason, help })?;
    let libtorch_cpu = is_libtorch_cpu(&device);
    if libtorch_cpu {
        call_vector_functions(&device);
    }
    threads::run_on_openmp(libtorch_cpu);
    Ok(device)
}

/// Calls MKL's vector functions a first time, on one value and so on one thread.
///
/// MKL looks for the kernel of a function at its first call. When LibTorch makes that call from several threads at once, one of them can
/// get a kernel of low accuracy for its part (<https://github.com/pytorch/pytorch/issues/188792>): the first loss of a process was off by
/// 10⁻⁵ in a few of a hundred processes on a loaded machine.
fn call_vector_functions(device: &Device) {
    static CALLED: Once = Once::new();
    CALLED.call_once(|| {
        let x = Tensor::<1>::from_floats([0.5], device);
        for function in [Tensor::exp, Tensor::log, Tensor::log1p, Tensor::sqrt, Tensor::erf, Tensor::tanh] {
            function(x.clone());
        }
    });
}

/// Whether LibTorch computes on the host's processors.
pub fn is_libtorch_cpu(device: &Device) -> bool {
    #[cfg(feature = "tch")]
    {
        #[allow(deprecated)] // as below
        let libtorch = Device::libtorch();
        device.clone().inner() == libtorch
    }
    #[cfg(not(feature = "tch"))]
    {
        let _ = device;
        false
    }
}

/// Whether a device is a GPU: none of those that compute on the host's processors.
pub fn is_gpu(device: &Device) -> bool {
    !is_libtorch_cpu(device) && device.clone().inner() != Device::flex()
}

/// The number of the GPU on which LibTorch computes; none for any other device.
#[cfg(feature = "tch")]
#[allow(deprecated)] // as below
pub fn libtorch_gpu(device: &Device) -> Option<usize> {
    use burn::backend::DispatchDevice;
    use burn::backend::libtorch::LibTorchDevice;
    match device.clone().inner().as_dispatch() {
        DispatchDevice::LibTorch(LibTorchDevice::Cuda(gpu)) => Some(*gpu),
        _ => None,
    }
}

/// The number of the GPU on which LibTorch computes: this build has no LibTorch.
#[cfg(not(feature = "tch"))]
pub fn libtorch_gpu(_device: &Device) -> Option<usize> {
    None
}

/// GPUs that LibTorch finds.
pub fn tch_gpus() -> usize {
    #[cfg(feature = "tch")]
    {
        let all = Device::enumerate(burn::tensor::DeviceType::LibTorch).into_vec();
        // burn marks its LibTorch backend as deprecated; it is one of the engines here, by request.
        #[allow(deprecated)]
        (0..all.len()).take_while(|gpu| all.contains(&Device::libtorch_cuda(*gpu))).count()
    }
    #[cfg(not(feature = "tch"))]
    0
}

/// GPUs that burn's own CUDA engine finds. It is asked only where there is a driver: without one it panics.
pub fn cuda_gpus() -> usize {
    #[cfg(feature = "cuda")]
    {
        let driver = std::path::Path::new("/dev/nvidiactl").exists() || std::path::Path::new("/dev/dxg").exists();
        if driver { Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec().len() } else { 0 }
    }
    #[cfg(not(feature = "cuda"))]
    0
}

#[cfg(not(feature = "tch"))]
const NO_LIBTORCH: &str = "this binary was built without LibTorch";
#[cfg(any(test, feature = "tch", feature = "cuda"))]
const NEEDS_GPU: &str = "`vlp doctor` says what it finds of GPUs, driver and libraries; or use `--device auto`";
const NAMES: &str =
    "use auto, flex, tch-cpu, tch-cuda or cuda; the last two also with the number of a GPU, as in tch-cuda:1";

/// The device, or why there is none and what to do.
fn find(name: &str) -> Result<Device, (String, &'static str)> {
    let (engine, number) = match name.split_once(':') {
        Some((engine @ ("tch-cuda" | "cuda"), number)) => (engine, number.parse::<usize>().ok()),
        Some(_) => ("", None),
        None => (name, Some(0)),
    };
    let refused = |reason: &str, help| Err((reason.to_owned(), help));
    match (engine, number) {
        ("flex", Some(_)) => Ok(Device::flex()),
        #[cfg(feature = "tch")]
        ("tch-cpu", Some(_)) => {
            #[allow(deprecated)] // as above
            let device = Device::libtorch();
            Ok(device)
        }
        #[cfg(not(feature = "tch"))]
        ("tch-cpu", Some(_)) => refused(
            NO_LIBTORCH,
            "build with `cargo build --release --features tch` (README.md, \"LibTorch\"), or use `--device flex`",
        ),
        #[cfg(feature = "tch")]
        ("tch-cuda", Some(gpu)) => match tch_gpus() {
            0 => refused("LibTorch finds no GPU, or was built without CUDA", NEEDS_GPU),
            count if gpu >= count => Err((format!("LibTorch finds {count} GPUs, counted from 0"), NEEDS_GPU)),
            _ => {
                #[allow(deprecated)] // as above
                let device = Device::libtorch_cuda(gpu);
                Ok(device)
            }
        },
        #[cfg(not(feature = "tch"))]
        ("tch-cuda", Some(_)) => refused(
            NO_LIBTORCH,
            "build with `cargo build --release --features tch` and a LibTorch with CUDA (README.md, \"GPUs\"), or use `--device flex`",
        ),
        #[cfg(feature = "cuda")]
        ("cuda", Some(gpu)) => match cuda_gpus() {
            0 => refused("burn's CUDA engine finds no GPU", NEEDS_GPU),
            count if gpu >= count => Err((format!("burn's CUDA engine finds {count} GPUs, counted from 0"), NEEDS_GPU)),
            _ => Ok(Device::cuda(gpu)),
        },
        #[cfg(not(feature = "cuda"))]
        ("cuda", Some(_)) => refused(
            "this binary was built without burn's CUDA engine",
            "build with `cargo build --release --features cuda` (README.md, \"GPUs\"), or use `--device flex`",
        ),
        _ => refused("there is no device of this name", NAMES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str) -> String {
        open(name).unwrap_err().to_string()
    }

    #[test]
    fn what_is_not_a_device_is_told_what_is() {
        for name in ["gpu", "tch-cuda:x", "flex:0", "tch-cpu:1", ""] {
            let expected =
                format!("device `{name}` is not available: there is no device of this name\n  help: {NAMES}");
            assert_eq!(refusal(name), expected);
        }
    }

    #[test]
    fn a_build_without_an_engine_names_the_feature() {
        if !cfg!(feature = "cuda") {
            let expected = "device `cuda:1` is not available: this binary was built without burn's CUDA engine\n  help: build with \
                            `cargo build --release --features cuda` (README.md, \"GPUs\"), or use `--device flex`";
            assert_eq!(refusal("cuda:1"), expected);
        }
        if cfg!(feature = "tch") {
            let gpus = tch_gpus();
            let reason = match gpus {
                0 => "LibTorch finds no GPU, or was built without CUDA".to_owned(),
                _ => format!("LibTorch finds {gpus} GPUs, counted from 0"),
            };
            let expected = format!("device `tch-cuda:99` is not available: {reason}\n  help: {NEEDS_GPU}");
            assert_eq!(refusal("tch-cuda:99"), expected);
        } else {
            let expected = "device `tch-cuda` is not available: this binary was built without LibTorch\n  help: build with \
                            `cargo build --release --features tch` and a LibTorch with CUDA (README.md, \"GPUs\"), or use `--device flex`";
            assert_eq!(refusal("tch-cuda"), expected);
        }
    }

    #[test]
    fn auto_is_the_fastest_that_every_process_finds() {
        assert_eq!(resolve("flex", 8), "flex");
        assert_eq!(resolve("tch-cuda:3", 1), "tch-cuda:3");
        assert_eq!(resolve("auto", 1), available()[0]);
        let gpus = available().into_iter().filter(|name| is_gpu(&open(name).unwrap().autodiff())).count();
        assert_eq!(gpus, available().iter().filter(|name| name.ends_with("cuda")).count());
        let crowded = resolve("auto", 1000);
        assert_eq!(crowded, if cfg!(feature = "tch") { "tch-cpu" } else { "flex" });
        assert!(open("auto").is_ok());
    }
}
