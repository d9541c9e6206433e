//! How busy the GPUs of a run are, as NVIDIA's management library (NVML) tells it.
//!
//! The library comes with the driver and is loaded when it is asked for: without it, and for what a GPU does not tell, there
//! are no values. Which GPUs a run computes on is the caller's to say.

use std::ffi::OsStr;

use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

/// The file that the dynamic linker is asked for.
pub const NVML: &str = "libnvidia-ml.so.1";

/// NVML, and the GPUs to be measured.
pub struct Gpus {
    nvml: Nvml,
    chosen: Vec<(usize, Selector)>,
}

/// How a GPU is named to NVML, which counts in the order of the PCI bus.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Selector {
    Index(u32),
    /// The beginning of its UUID.
    Uuid(String),
}

/// What one GPU said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Reading {
    /// Share of the time in which it computed, in percent.
    utilization: Option<u32>,
    /// Memory in use and memory that there is, in bytes.
    memory: Option<(u64, u64)>,
    /// Milliwatts.
    power: Option<u32>,
    /// Degrees Celsius.
    temperature: Option<u32>,
}

impl Gpus {
    /// The GPUs with these numbers, as `tch-cuda:1` counts them: among those that `visible`, the value of
    /// `CUDA_VISIBLE_DEVICES`, lists, or among all. NVML counts in the order of the PCI bus, CUDA so where all are alike or
    /// `CUDA_DEVICE_ORDER=PCI_BUS_ID`.
    ///
    /// # Errors
    /// Why there is no library, or no driver behind it.
    pub fn open(numbers: &[usize], visible: Option<&str>) -> Result<Self, String> {
        Self::open_library(OsStr::new(NVML), numbers, visible)
    }

    /// [`Self::open`] with another file than [`NVML`].
    ///
    /// # Errors
    /// As there.
    pub fn open_library(library: &OsStr, numbers: &[usize], visible: Option<&str>) -> Result<Self, String> {
        let nvml = Nvml::builder().lib_path(library).init().map_err(|error| match error {
            NvmlError::LibloadingError(error) => error.to_string(),
            other => format!("`{}`: {other}", library.to_string_lossy()),
        })?;
        Ok(Self { nvml, chosen: selectors(numbers, visible) })
    }

    /// Version of the driver, and the name of each GPU of the machine.
    ///
    /// # Errors
    /// The library's message.
    pub fn describe(&self) -> Result<(String, Vec<String>), String> {
        let all = || -> Result<_, NvmlError> {
            let names = (0..self.nvml.device_count()?).map(|index| self.nvml.device_by_index(index)?.name());
            Ok((self.nvml.sys_driver_version()?, names.collect::<Result<_, _>>()?))
        };
        all().map_err(|error| error.to_string())
    }

    /// Names and values for the journal: `system/gpu_0_percent` and so on.
    pub fn measure(&self) -> Vec<(String, f64)> {
        let found = self.chosen.iter().filter_map(|(number, selector)| Some((*number, self.device(selector)?)));
        found.flat_map(|(number, device)| points(number, &reading(&device))).collect()
    }

    fn device(&self, selector: &Selector) -> Option<Device<'_>> {
        match selector {
            Selector::Index(index) => self.nvml.device_by_index(*index).ok(),
            Selector::Uuid(start) => {
                let mut all = (0..self.nvml.device_count().ok()?).filter_map(|i| self.nvml.device_by_index(i).ok());
                all.find(|device| device.uuid().is_ok_and(|uuid| uuid.starts_with(start)))
            }
        }
    }
}

fn reading(device: &Device<'_>) -> Reading {
    Reading {
        utilization: device.utilization_rates().ok().map(|rates| rates.gpu),
        memory: device.memory_info().ok().map(|memory| (memory.used, memory.total)),
        power: device.power_usage().ok(),
        temperature: device.temperature(TemperatureSensor::Gpu).ok(),
    }
}

/// Percent, percent and MiB, watts, degrees Celsius.
fn points(number: usize, reading: &Reading) -> Vec<(String, f64)> {
    let memory = reading.memory.filter(|(_, total)| *total > 0);
    let values = [
        ("percent", reading.utilization.map(f64::from)),
        ("memory_percent", memory.map(|(used, total)| used as f64 / total as f64 * 100.0)),
        ("memory_mb", memory.map(|(used, _)| used as f64 / f64::from(1u32 << 20))),
        ("power_w", reading.power.map(|milliwatts| f64::from(milliwatts) / 1000.0)),
        ("temperature_c", reading.temperature.map(f64::from)),
    ];
    values.into_iter().filter_map(|(name, value)| Some((format!("system/gpu_{number}_{name}"), value?))).collect()
}

/// Which GPU of the machine each number means. `visible` lists numbers or UUIDs; what stands behind one that is neither, or
/// is a part of a GPU, is not visible to CUDA.
fn selectors(numbers: &[usize], visible: Option<&str>) -> Vec<(usize, Selector)> {
    let listed: Option<Vec<Selector>> = visible.map(|text| text.split(',').map_while(selector).collect());
    let of = |number: usize| match &listed {
        Some(listed) => listed.get(number).cloned(),
        None => u32::try_from(number).ok().map(Selector::Index),
    };
    numbers.iter().filter_map(|number| Some((*number, of(*number)?))).collect()
}

fn selector(text: &str) -> Option<Selector> {
    let text = text.trim();
    match text.parse() {
        Ok(index) => Some(Selector::Index(index)),
        Err(_) => text.starts_with("GPU-").then(|| Selector::Uuid(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_become_points_in_the_units_of_their_names() {
        let reading = Reading {
            utilization: Some(87),
            memory: Some((3 << 29, 6 << 30)),
            power: Some(312_500),
            temperature: Some(64),
        };
        let expected = [
            ("system/gpu_3_percent", 87.0),
            ("system/gpu_3_memory_percent", 25.0),
            ("system/gpu_3_memory_mb", 1536.0),
            ("system/gpu_3_power_w", 312.5),
            ("system/gpu_3_temperature_c", 64.0),
        ];
        assert_eq!(points(3, &reading), expected.map(|(name, value)| (name.to_owned(), value)));
        let little = Reading { memory: Some((1, 0)), temperature: Some(0), ..Reading::default() };
        assert_eq!(points(0, &little), [("system/gpu_0_temperature_c".to_owned(), 0.0)]);
    }

    #[test]
    fn numbers_count_among_the_visible_gpus() {
        let index = |number, index| (number, Selector::Index(index));
        assert_eq!(selectors(&[0, 2], None), [index(0, 0), index(2, 2)]);
        assert_eq!(selectors(&[0, 1, 2], Some("5, 3")), [index(0, 5), index(1, 3)]);
        let uuid = (1, Selector::Uuid("GPU-8a56".into()));
        assert_eq!(selectors(&[0, 1], Some("1,GPU-8a56")), [index(0, 1), uuid]);
        assert_eq!(selectors(&[0, 1], Some("1,-1,2")), [index(0, 1)]);
        assert_eq!(selectors(&[0], Some("")), []);
        assert_eq!(selectors(&[0], Some("MIG-8a56")), []);
    }

    #[test]
    fn a_machine_without_the_library_says_so() {
        let error = Gpus::open_library(OsStr::new("nowhere/libnvidia-ml.so.1"), &[0], None).err().unwrap();
        assert_eq!(error, "nowhere/libnvidia-ml.so.1: cannot open shared object file: No such file or directory");
    }
}
