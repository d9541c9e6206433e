//! Reading golden data: the folder named by `VLP_GOLDEN_DIR` when it is set, else the fixtures of the repository.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData};
use safetensors::{Dtype, SafeTensors};

/// Root of the golden data.
pub fn golden_dir() -> PathBuf {
    std::env::var_os("VLP_GOLDEN_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"), PathBuf::from)
}

/// The content of `path`, or of `path.gz` unpacked.
pub fn read(path: &Path) -> Vec<u8> {
    if path.exists() {
        return std::fs::read(path).unwrap();
    }
    let packed = PathBuf::from(format!("{}.gz", path.display()));
    let file = std::fs::File::open(&packed)
        .unwrap_or_else(|e| panic!("neither {} nor {}: {e}", path.display(), packed.display()));
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
    bytes
}

/// A JSON file.
pub fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&read(path)).unwrap()
}

/// Names of the files in `folder` that end with `suffix` (or `suffix.gz`), without it; sorted. Never empty.
pub fn cases(folder: &Path, suffix: &str) -> Vec<String> {
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let name = name.strip_suffix(".gz").unwrap_or(&name);
            name.strip_suffix(suffix).map(str::to_owned)
        })
        .collect();
    found.sort();
    found.dedup();
    assert!(!found.is_empty(), "no *{suffix} in {}", folder.display());
    found
}

/// A tensor of a safetensors file.
#[derive(Debug, Clone)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

impl Array {
    pub fn f32(&self) -> Vec<f32> {
        self.values.iter().map(|v| *v as f32).collect()
    }

    pub fn i64(&self) -> Vec<i64> {
        self.values.iter().map(|v| *v as i64).collect()
    }

    pub fn float<const D: usize>(&self, device: &Device) -> Tensor<D> {
        Tensor::from_data(TensorData::new(self.f32(), self.shape.clone()), device)
    }

    pub fn int<const D: usize>(&self, device: &Device) -> Tensor<D, Int> {
        Tensor::from_data(TensorData::new(self.i64(), self.shape.clone()), device)
    }

    /// Rows `index` of the first axis.
    pub fn rows(&self, index: &[i64]) -> Array {
        let width: usize = self.shape[1..].iter().product();
        let values =
            index.iter().flat_map(|i| &self.values[*i as usize * width..(*i as usize + 1) * width]).copied().collect();
        let mut shape = self.shape.clone();
        shape[0] = index.len();
        Array { shape, values }
    }
}

/// All tensors of a safetensors file.
pub fn arrays(path: &Path) -> BTreeMap<String, Array> {
    let bytes = read(path);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.tensors()
        .into_iter()
        .map(|(name, view)| {
            let data = view.data();
            let values = match view.dtype() {
                Dtype::F32 => {
                    data.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect()
                }
                Dtype::F64 => data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
                Dtype::F16 => {
                    data.chunks_exact(2).map(|b| half::f16::from_le_bytes(b.try_into().unwrap()).to_f64()).collect()
                }
                Dtype::I64 => data.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
                Dtype::U8 => data.iter().map(|b| f64::from(*b)).collect(),
                other => panic!("{}: {name} is {other:?}", path.display()),
            };
            (name, Array { shape: view.shape().to_vec(), values })
        })
        .collect()
}

/// Largest difference between two rows of numbers, which must be equally long.
#[track_caller]
pub fn assert_close(what: &str, ours: &[f32], golden: &[f64], absolute: f64, relative: f64) {
    assert_eq!(ours.len(), golden.len(), "{what}: length");
    for (i, (o, g)) in ours.iter().zip(golden).enumerate() {
        let off = (f64::from(*o) - g).abs();
        assert!(off <= absolute + relative * g.abs(), "{what}[{i}]: {o} instead of {g} (off by {off:e})");
    }
}
