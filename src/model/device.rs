//! The engines of this build and their devices, by the names that `launch.device` takes.

use burn::tensor::Device;

/// A device that this build or this machine does not have.
#[derive(Debug, thiserror::Error)]
#[error("device `{name}` is not available: {reason}\n  help: {help}")]
pub struct DeviceError {
    /// What was asked for.
    pub name: String,
    /// Why not.
    pub reason: &'static str,
    /// What to do.
    pub help: &'static str,
}

/// Names of the devices of this build, the fastest first.
pub fn available() -> Vec<&'static str> {
    if cfg!(feature = "tch") { vec!["tch-cpu", "flex"] } else { vec!["flex"] }
}

/// The name that `auto` stands for.
pub fn resolve(name: &str) -> &str {
    if name == "auto" { available()[0] } else { name }
}

/// Opens a device by name, without autodiff.
pub fn open(name: &str) -> Result<Device, DeviceError> {
    match resolve(name) {
        "flex" => Ok(Device::flex()),
        #[cfg(feature = "tch")]
        "tch-cpu" => {
            // burn marks its LibTorch backend as deprecated; it is one of the two engines here, by request.
            #[allow(deprecated)]
            let device = Device::libtorch();
            Ok(device)
        }
        #[cfg(not(feature = "tch"))]
        "tch-cpu" => Err(DeviceError {
            name: name.to_owned(),
            reason: "this binary was built without LibTorch",
            help: "build with `cargo build --release --features tch` (README.md, \"LibTorch\"), or use `--device flex`",
        }),
        _ => Err(DeviceError {
            name: name.to_owned(),
            reason: "there is no device of this name",
            help: "use auto, flex or tch-cpu",
        }),
    }
}
