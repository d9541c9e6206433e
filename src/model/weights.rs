//! Parameters to and from safetensors files under the names of the published checkpoints.
//!
//! Files are whole or absent: written to a temporary name, synced, renamed. Reading names every tensor that does not fit.
//! PyTorch's own pickle containers are not read here.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::vlp::Vlp;

/// Stored twice by the reference: the output matrix is the word embedding.
const TIED: (&str, &str) = ("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight");

/// What can go wrong with a weight file.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be opened or mapped.
    #[error("cannot read the checkpoint {path}: {source}\n  help: check the path and its permissions")]
    Read {
        /// File.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {path}: {source}\n  help: check the free space and the permissions of the folder")]
    Write {
        /// File.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// Not a safetensors file, or a damaged one.
    #[error(
        "{path} is not a complete safetensors file: {reason}\n  help: use an earlier checkpoint, or copy the file again"
    )]
    Format {
        /// File.
        path: PathBuf,
        /// What the parser found.
        reason: String,
    },
    /// A tensor's shape or type does not fit the model.
    #[error(
        "{path}: tensor `{name}` is {found}, the model expects {expected}\n  help: `[model]` and the vocabulary must be those the checkpoint was trained with"
    )]
    Mismatch {
        /// File.
        path: PathBuf,
        /// Tensor.
        name: String,
        /// dtype and shape in the file.
        found: String,
        /// dtype and shape of the parameter.
        expected: String,
    },
    /// Parameters that the file does not have.
    #[error(
        "{path} has no weights for {}\n  help: if they are meant to start from random values, list them in `init.allow_missing`",
        names.join(", ")
    )]
    Missing {
        /// File.
        path: PathBuf,
        /// Parameters.
        names: Vec<String>,
    },
}

/// What a load left open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LoadReport {
    /// Parameters that kept their initial values.
    pub missing: Vec<String>,
    /// Tensors of the file that the model does not have.
    pub unexpected: Vec<String>,
}

/// Writes all parameters, the tied matrix under both of its names, to `path`.
pub fn save(model: &Vlp, path: &Path) -> Result<(), WeightsError> {
    let mut tensors: BTreeMap<String, (Vec<usize>, TensorData)> =
        model.parameters().into_iter().map(|p| (p.name, (p.shape, p.data))).collect();
    if let Some((shape, data)) = tensors.get(TIED.1) {
        let copy = (shape.clone(), data.clone());
        tensors.insert(TIED.0.to_owned(), copy);
    }
    save_tensors(tensors.iter().map(|(name, (shape, data))| (name.as_str(), shape.as_slice(), data.as_bytes())), path)
}

/// Writes f32 tensors (little endian bytes) to `path`.
pub fn save_tensors<'a>(
    tensors: impl Iterator<Item = (&'a str, &'a [usize], &'a [u8])>,
    path: &Path,
) -> Result<(), WeightsError> {
    let views: Vec<(&str, TensorView)> = tensors
        .map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F32, shape.to_vec(), bytes)
                .map_err(|e| WeightsError::Format { path: path.to_owned(), reason: e.to_string() })?;
            Ok((name, view))
        })
        .collect::<Result<_, WeightsError>>()?;
    let write = |source| WeightsError::Write { path: path.to_owned(), source };
    let partial = path.with_extension("partial");
    safetensors::serialize_to_file(views, None, &partial).map_err(|e| write(std::io::Error::other(e)))?;
    File::open(&partial).and_then(|f| f.sync_all()).map_err(write)?;
    std::fs::rename(&partial, path).map_err(write)
}

/// Reads parameters from `path` into `model`.
///
/// # Errors
/// A parameter that the file lacks is an error unless one of `allow_missing` (`*` matches anything) matches its name;
/// so is a tensor of another shape.
pub fn load(model: Vlp, path: &Path, allow_missing: &[String]) -> Result<(Vlp, LoadReport), WeightsError> {
    let map = map_file(path)?;
    let file = parse(&map, path)?;
    let mut report = LoadReport::default();
    let mut failure = None;
    let mut used = vec![TIED.0.to_owned()];
    let model = model.replace(&mut |name, shape, _| {
        let Ok(view) = file.tensor(name) else {
            report.missing.push(name.to_owned());
            return None;
        };
        used.push(name.to_owned());
        match values(&view, shape) {
            Some(values) => Some(TensorData::new(values, shape.to_vec())),
            None => {
                failure.get_or_insert_with(|| WeightsError::Mismatch {
                    path: path.to_owned(),
                    name: name.to_owned(),
                    found: format!("{:?} {:?}", view.dtype(), view.shape()),
                    expected: format!("F32 {shape:?}"),
                });
                None
            }
        }
    });
    if let Some(failure) = failure {
        return Err(failure);
    }
    let unlisted: Vec<String> =
        report.missing.iter().filter(|name| !allow_missing.iter().any(|p| matches(p, name))).cloned().collect();
    if !unlisted.is_empty() {
        return Err(WeightsError::Missing { path: path.to_owned(), names: unlisted });
    }
    report.unexpected = file.names().into_iter().filter(|n| !used.iter().any(|u| u == n)).map(str::to_owned).collect();
    report.unexpected.sort();
    Ok((model, report))
}

/// Reads all f32 tensors of `path`.
pub fn load_tensors(path: &Path) -> Result<BTreeMap<String, Vec<f32>>, WeightsError> {
    let map = map_file(path)?;
    let file = parse(&map, path)?;
    file.tensors()
        .into_iter()
        .map(|(name, view)| match values(&view, view.shape()) {
            Some(values) => Ok((name, values)),
            None => Err(WeightsError::Mismatch {
                path: path.to_owned(),
                name,
                found: format!("{:?}", view.dtype()),
                expected: "F32".to_owned(),
            }),
        })
        .collect()
}

fn map_file(path: &Path) -> Result<memmap2::Mmap, WeightsError> {
    let read = |source| WeightsError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(read)?;
    // SAFETY: checkpoints are written once under another name and renamed; nobody changes them in place.
    unsafe { memmap2::Mmap::map(&file) }.map_err(read)
}

fn parse<'a>(map: &'a memmap2::Mmap, path: &Path) -> Result<SafeTensors<'a>, WeightsError> {
    SafeTensors::deserialize(map).map_err(|e| WeightsError::Format { path: path.to_owned(), reason: e.to_string() })
}

/// The values of an f32 tensor of exactly this shape.
fn values(view: &TensorView, shape: &[usize]) -> Option<Vec<f32>> {
    if view.dtype() != Dtype::F32 || view.shape() != shape {
        return None;
    }
    Some(view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

/// Whether `pattern`, in which `*` matches any run of characters, matches all of `name`.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            rest.char_indices().map(|(i, _)| &rest[i..]).chain([""]).any(|rest| matches(tail, rest))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_matches_any_run() {
        assert!(matches("vis_*", "vis_embed.0.weight"));
        assert!(matches("*.bias", "cls.predictions.bias"));
        assert!(matches("a*b*c", "aXbYc"));
        assert!(!matches("vis_*", "cls.predictions.bias"));
        assert!(!matches("a*b", "abc"));
    }
}
