//! GPUs through a library that stands in for NVIDIA's, compiled here: what it says arrives in the units of the journal. No GPU is
//! needed, and nothing is known of a real one.

use std::io::Write;
use std::process::Command;

use tempfile::TempDir;
use vlp::track::Gpus;

/// Two GPUs; the second has no power meter. Signatures and the struct of the memory as in NVIDIA's nvml.h.
const LIBRARY: &str = r#"
#include <stdio.h>
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_t;
typedef struct { unsigned gpu, memory; } utilization_t;
static int gpus[2] = {0, 1};
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *out, unsigned n) { snprintf(out, n, "570.86.15"); return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **out) { if (i > 1) return 2; *out = &gpus[i]; return 0; }
int nvmlDeviceGetName(void *d, char *out, unsigned n) { snprintf(out, n, "Card %d", *(int *)d); return 0; }
int nvmlDeviceGetUUID(void *d, char *out, unsigned n) { snprintf(out, n, "GPU-%dabc-def", *(int *)d + 7); return 0; }
int nvmlDeviceGetUtilizationRates(void *d, utilization_t *out) { out->gpu = 40 + *(int *)d; out->memory = 1; return 0; }
int nvmlDeviceGetMemoryInfo_v2(void *d, memory_t *out) { out->total = 8ull << 30; out->used = 2ull << 30; return 0; }
int nvmlDeviceGetPowerUsage(void *d, unsigned *out) { if (*(int *)d) return 3; *out = 250500; return 0; }
int nvmlDeviceGetTemperature(void *d, int sensor, unsigned *out) { *out = 55 + *(int *)d; return sensor ? 2 : 0; }
"#;

#[test]
fn what_the_library_says_arrives_in_the_units_of_the_journal() {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("nvml.c"), LIBRARY).unwrap();
    let library = folder.path().join("libnvidia-ml.so.1");
    let mut compiled = Command::new("cc");
    compiled.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(folder.path().join("nvml.c"));
    match compiled.status() {
        Ok(status) => assert!(status.success()),
        Err(error) => {
            let line =
                format!("SKIPPED: nvml::what_the_library_says_arrives_in_the_units_of_the_journal: no cc: {error}\n");
            return std::io::stderr().write_all(line.as_bytes()).unwrap();
        }
    }

    let first = [
        ("system/gpu_0_percent", 40.0),
        ("system/gpu_0_memory_percent", 25.0),
        ("system/gpu_0_memory_mb", 2048.0),
        ("system/gpu_0_power_w", 250.5),
        ("system/gpu_0_temperature_c", 55.0),
    ];
    let second = [
        ("system/gpu_1_percent", 41.0),
        ("system/gpu_1_memory_percent", 25.0),
        ("system/gpu_1_memory_mb", 2048.0),
        ("system/gpu_1_temperature_c", 56.0),
    ];
    let measure = |numbers: &[usize], visible: Option<&str>| {
        Gpus::open_library(library.as_os_str(), numbers, visible).unwrap().measure()
    };
    let owned = |points: &[(&str, f64)]| points.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect::<Vec<_>>();
    assert_eq!(measure(&[0, 1], None), owned(&[&first[..], &second[..]].concat()));
    // One that is not there has no points.
    assert_eq!(measure(&[1, 2], None), owned(&second));
    // The only visible GPU is number 0 of the run, whatever NVML calls it.
    let renamed: Vec<(String, f64)> =
        owned(&second).into_iter().map(|(n, v)| (n.replace("gpu_1", "gpu_0"), v)).collect();
    assert_eq!(measure(&[0, 1], Some("1")), renamed);
    assert_eq!(measure(&[0], Some("GPU-8abc")), renamed);
    assert_eq!(measure(&[0], Some("GPU-9abc")), []);

    let described = Gpus::open_library(library.as_os_str(), &[], None).unwrap().describe();
    assert_eq!(described, Ok(("570.86.15".to_owned(), vec!["Card 0".to_owned(), "Card 1".to_owned()])));

    // `vlp doctor` finds it where the dynamic linker does.
    let doctor = Command::new(env!("CARGO_BIN_EXE_vlp"))
        .args(["doctor", "--format", "json"])
        .current_dir(folder.path())
        .env("LD_LIBRARY_PATH", {
            let others = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
            format!("{}:{others}", folder.path().display())
        })
        .output()
        .unwrap();
    let found: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let nvml = found.as_array().unwrap().iter().find(|finding| finding["item"] == "NVML").unwrap();
    assert_eq!(nvml["found"], "driver 570.86.15; 0: Card 0; 1: Card 1");
}
