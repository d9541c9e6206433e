//! The machine and the build: devices that compute, processors, memory, disk, the HDF5 library.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use burn::tensor::Tensor;

use super::Finding;
use crate::model::{device, host_values};
use crate::track::{Gpus, NVML};

/// What of this machine matters to a run in the folder `runs`.
pub fn findings(runs: &str) -> Vec<Finding> {
    let mut findings: Vec<Finding> = device::ALL.into_iter().rev().map(device_of).collect();
    findings.extend([threads(), memory(), driver(), gpus(), nvml(), disk(Path::new(runs)), hdf5()]);
    findings
}

/// Opens a device and adds two numbers on it.
fn device_of(name: &'static str) -> Finding {
    let item = format!("device {name}");
    match device::open(name) {
        Ok(device) => {
            let sum = host_values(Tensor::<1>::from_floats([1.0, 2.0], &device).sum());
            match sum.as_slice() {
                [three] if *three == 3.0 => {
                    let default =
                        if device::resolve("auto", 1) == name { "computes; `auto` is this one" } else { "computes" };
                    Finding::ok(item, default)
                }
                other => {
                    let found = format!("1 + 2 gave {other:?}");
                    Finding::missing(item, found, Vec::new(), vec!["use another device".into()])
                }
            }
        }
        Err(error) => Finding::missing(item, error.reason, Vec::new(), vec![error.help.to_owned()]),
    }
}

fn threads() -> Finding {
    match std::thread::available_parallelism() {
        Ok(count) => Finding::ok("processors", count.to_string()),
        Err(error) => {
            let help = "set `launch.threads`".to_owned();
            Finding::missing("processors", error.to_string(), vec!["their number".into()], vec![help])
        }
    }
}

fn memory() -> Finding {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    match (kibibytes(&text, "MemTotal:"), kibibytes(&text, "MemAvailable:")) {
        (Some(total), Some(free)) => {
            Finding::ok("memory", format!("{} GiB, {} GiB available", gib(total * 1024), gib(free * 1024)))
        }
        _ => {
            let help = "`vlp plan FILE` says what a run needs".to_owned();
            Finding::missing("memory", "not known", vec!["/proc/meminfo".into()], vec![help])
        }
    }
}

/// The number of a line like `MemTotal:       24689764 kB`.
fn kibibytes(meminfo: &str, name: &str) -> Option<u64> {
    meminfo.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

/// NVIDIA's kernel driver.
fn driver() -> Finding {
    const VERSION: &str = "/proc/driver/nvidia/version";
    match std::fs::read_to_string(VERSION).ok().as_deref().and_then(driver_version) {
        Some(version) => Finding::ok("NVIDIA driver", version),
        None => Finding::missing(
            "NVIDIA driver",
            "for the devices tch-cuda and cuda",
            vec![VERSION.into()],
            vec!["on a machine with a GPU, install NVIDIA's driver; in a container, start it with `--gpus all`".into()],
        ),
    }
}

/// `570.86.15` of the line `NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu …`.
fn driver_version(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("NVRM version:"))?;
    let numeric = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    line.split_whitespace().find(numeric).map(str::to_owned)
}

/// Names and memory of the GPUs, as nvidia-smi tells them.
fn gpus() -> Finding {
    let query = ["--query-gpu=index,name,memory.total,memory.free", "--format=csv,noheader"];
    let answer = std::process::Command::new("nvidia-smi").args(query).output();
    let text = answer.ok().filter(|o| o.status.success()).map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
    match text.map(|text| text.lines().filter_map(gpu).collect::<Vec<_>>()).filter(|found| !found.is_empty()) {
        Some(found) => Finding::ok("GPUs", found.join("; ")),
        None => Finding::missing(
            "GPUs",
            "for the devices tch-cuda and cuda",
            vec!["an answer of `nvidia-smi`".into()],
            vec!["on a machine with a GPU, install NVIDIA's driver and its tools".into()],
        ),
    }
}

/// `0: NVIDIA H200, 143771 MiB, 143000 MiB free` of a line of nvidia-smi.
fn gpu(line: &str) -> Option<String> {
    let [index, name, total, free] = <[&str; 4]>::try_from(line.split(", ").collect::<Vec<_>>()).ok()?;
    Some(format!("{index}: {name}, {total}, {free} free"))
}

/// What measures the GPUs while a run goes on.
fn nvml() -> Finding {
    match Gpus::open(&[], None).and_then(|gpus| gpus.describe()) {
        Ok((driver, names)) => {
            let names: Vec<String> = names.iter().enumerate().map(|(i, name)| format!("{i}: {name}")).collect();
            let names = if names.is_empty() { "no GPU".to_owned() } else { names.join("; ") };
            Finding::ok("NVML", format!("driver {driver}; {names}"))
        }
        Err(reason) => Finding::missing(
            "NVML",
            format!("for GPU measurements in the journal; {reason}"),
            vec![NVML.into()],
            vec![
                "it comes with NVIDIA's driver; in a container, start it with `--gpus all`; runs go on without".into(),
            ],
        ),
    }
}

fn gib(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / f64::from(1u32 << 30))
}

/// Free space where the runs go, or would go.
fn disk(runs: &Path) -> Finding {
    let absolute = std::path::absolute(runs).unwrap_or_else(|_| runs.to_owned());
    let existing = absolute.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    let what = format!("disk of `{}`", runs.display());
    match free_bytes(existing) {
        Some(bytes) => Finding::ok(what, format!("{} GiB free", gib(bytes))),
        None => {
            let help = "`vlp plan FILE` says what a run needs".to_owned();
            Finding::missing(what, "not known", vec![existing.display().to_string()], vec![help])
        }
    }
}

fn free_bytes(folder: &Path) -> Option<u64> {
    let path = CString::new(folder.as_os_str().as_bytes()).ok()?;
    // SAFETY: statvfs is plain numbers, for which zeros are a value.
    let mut found: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends with a zero and `found` is writable; both live through the call.
    let status = unsafe { libc::statvfs(path.as_ptr(), &mut found) };
    (status == 0).then(|| found.f_bavail as u64 * found.f_frsize as u64)
}

fn hdf5() -> Finding {
    let (major, minor, patch) = hdf5::library_version();
    Finding::ok("HDF5 library", format!("{major}.{minor}.{patch}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_lines() {
        let text = "MemTotal:       24689764 kB\nMemFree:        18000000 kB\nMemAvailable:   23000000 kB\n";
        assert_eq!(kibibytes(text, "MemTotal:"), Some(24_689_764));
        assert_eq!(kibibytes(text, "MemAvailable:"), Some(23_000_000));
        assert_eq!(kibibytes(text, "SwapTotal:"), None);
        assert_eq!(gib(3 << 29), "1.5");
    }

    #[test]
    fn drivers_and_gpus_are_read_off_their_lines() {
        let text =
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Thu Jan 23 2025\nGCC version:  gcc 12.2\n";
        assert_eq!(driver_version(text).as_deref(), Some("570.86.15"));
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n";
        assert_eq!(driver_version(open).as_deref(), Some("580.65.06"));
        assert_eq!(driver_version("GCC version:  gcc 12.2\n"), None);
        let found = gpu("0, NVIDIA H200, 143771 MiB, 143000 MiB");
        assert_eq!(found.as_deref(), Some("0: NVIDIA H200, 143771 MiB, 143000 MiB free"));
        assert_eq!(gpu("No devices were found"), None);
    }

    #[test]
    fn a_folder_that_is_not_there_yet_has_the_disk_around_it() {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("a/b");
        let found = disk(&runs);
        assert_eq!(found.state, super::super::State::Ok, "{found:?}");
        assert_eq!(found.item, format!("disk of `{}`", runs.display()));
        assert!(free_bytes(folder.path()).is_some());
        assert_eq!(free_bytes(&runs), None);
    }
}
