//! Parameters from and to checkpoint files, under the names of the published checkpoints.
//!
//! Written are safetensors files, whole or absent: to a temporary name, synced, renamed. Read is whatever `formats` opens;
//! every tensor that does not fit is named.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use burn::tensor::TensorData;
use safetensors::tensor::{Dtype, TensorView, View};

use super::vlp::Vlp;
use crate::formats::{self, AdaptError, Change, ElementType, FormatError, NamedTensor, StateDict, Target};

/// Stored twice by the reference: the output matrix is the word embedding.
const TIED: (&str, &str) = ("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight");

/// What can go wrong with a weight file.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be read, or is no checkpoint.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// An old checkpoint that no rule makes fit.
    #[error(transparent)]
    Adapt(#[from] AdaptError),
    /// The file cannot be written.
    #[error("cannot write {}: {source}\n  help: check the free space and the permissions of the folder", path.display())]
    Write {
        /// File.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A tensor's shape does not fit the model.
    #[error(
        "{}: tensor `{name}` has the shape {found}, the model expects {expected}\n  help: `[model]` and the vocabulary must be those the checkpoint was trained with",
        path.display()
    )]
    Mismatch {
        /// File.
        path: PathBuf,
        /// Tensor.
        name: String,
        /// Shape in the file.
        found: String,
        /// Shape of the parameter.
        expected: String,
    },
    /// Parameters that the file does not have.
    #[error(
        "{} has no weights for {}\n  help: if they are meant to start from random values, list them in `init.allow_missing`",
        path.display(),
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
    /// What was changed to make an old checkpoint fit.
    pub changes: Vec<String>,
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
                .map_err(|e| WeightsError::Write { path: path.to_owned(), source: std::io::Error::other(e) })?;
            Ok((name, view))
        })
        .collect::<Result<_, WeightsError>>()?;
    write(views, path, || Ok(()))
}

/// Writes `path` whole, or leaves it absent: `complete` says whether all that was written could be read.
fn write<N: AsRef<str> + Ord + std::fmt::Display, V: View>(
    views: impl IntoIterator<Item = (N, V)>,
    path: &Path,
    complete: impl FnOnce() -> Result<(), WeightsError>,
) -> Result<(), WeightsError> {
    let failed = |source| WeightsError::Write { path: path.to_owned(), source };
    let partial = path.with_extension("partial");
    let written = safetensors::serialize_to_file(views, None, &partial).map_err(|e| failed(std::io::Error::other(e)));
    if let Err(error) = complete() {
        // The cause is told; a leftover that cannot be removed either has another name than the file.
        let _ = std::fs::remove_file(&partial);
        return Err(error);
    }
    written?;
    File::open(&partial).and_then(|f| f.sync_all()).map_err(failed)?;
    std::fs::rename(&partial, path).map_err(failed)
}

/// How a checkpoint may differ from the model.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions<'a> {
    /// Patterns (`*` matches anything) of parameters that the file may lack; they keep their initial values.
    pub allow_missing: &'a [String],
    /// Which of a file's several transforms of the masked-word head is taken (the reference: 3 for captioning, 0 for VQA).
    pub task_idx: Option<usize>,
}

/// Reads parameters from `path` into `model`: PyTorch's two containers or safetensors, under the names of the published
/// checkpoints. Old files are made to fit by the rules of [`mod@crate::formats::adapt`].
///
/// # Errors
/// A file that is no checkpoint; a parameter that it lacks and that `options` does not allow to miss; a tensor of another
/// shape.
pub fn load(model: Vlp, path: &Path, options: LoadOptions) -> Result<(Vlp, LoadReport), WeightsError> {
    fill(model, &formats::open(path)?, options)
}

/// As [`load`], from an open file.
///
/// # Errors
/// Those of [`load`], but for opening.
pub fn fill(model: Vlp, file: &StateDict, options: LoadOptions) -> Result<(Vlp, LoadReport), WeightsError> {
    let mut sources: BTreeMap<String, &str> =
        file.tensors().map(|(name, _)| (formats::adapt::current_name(name), name)).collect();
    let tied = sources.remove(TIED.0);
    if let (None, Some(tied)) = (sources.get(TIED.1), tied) {
        sources.insert(TIED.1.to_owned(), tied);
    }
    let tables = &model.bert.embeddings;
    let target = Target {
        hidden_size: tables.word_embeddings.val().dims()[1],
        max_position_embeddings: tables.position_embeddings.val().dims()[0],
        type_vocab_size: tables.token_type_embeddings.val().dims()[0],
        transforms: 1,
        task_idx: options.task_idx,
    };
    let mut report = LoadReport::default();
    let mut failure = None;
    let model = model.replace(&mut |name, shape, _| {
        let Some(source) = sources.remove(name) else {
            report.missing.push(name.to_owned());
            return None;
        };
        if failure.is_some() {
            return None;
        }
        match read_adapted(file, name, source, shape, &target) {
            Ok((values, changes)) => {
                report.changes.extend(changes.iter().map(ToString::to_string));
                Some(TensorData::new(values, shape.to_vec()))
            }
            Err(error) => {
                failure = Some(error);
                None
            }
        }
    });
    if let Some(failure) = failure {
        return Err(failure);
    }
    let allowed = |name: &&String| options.allow_missing.iter().any(|p| matches(p, name));
    let unlisted: Vec<String> = report.missing.iter().filter(|name| !allowed(name)).cloned().collect();
    if !unlisted.is_empty() {
        return Err(WeightsError::Missing { path: file.path().to_owned(), names: unlisted });
    }
    report.unexpected = sources.into_values().map(str::to_owned).collect();
    Ok((model, report))
}

/// The values of the parameter `name`, which is called `source` in the file, and what was changed to make it fit.
fn read_adapted(
    file: &StateDict,
    name: &str,
    source: &str,
    shape: &[usize],
    target: &Target,
) -> Result<(Vec<f32>, Vec<Change>), WeightsError> {
    let found = file.get(source).map(|info| info.shape.clone()).unwrap_or_default();
    let tensor = NamedTensor { name: name.to_owned(), shape: found.clone(), values: file.read_f32(source)? };
    let (tensor, changes) = formats::adapt_tensor(tensor, target)?;
    if tensor.shape != shape {
        return Err(WeightsError::Mismatch {
            path: file.path().to_owned(),
            name: source.to_owned(),
            found: format!("{found:?}"),
            expected: format!("{shape:?}"),
        });
    }
    Ok((tensor.values, changes))
}

/// Puts the detector's fc7 layer (pickled numpy arrays) into the first linear map over the region features.
///
/// # Errors
/// A file that is no such array; an array of another shape.
pub fn load_fc7(model: Vlp, weight: &Path, bias: &Path) -> Result<Vlp, WeightsError> {
    let arrays = [("vis_embed.0.weight", weight), ("vis_embed.0.bias", bias)]
        .map(|(name, path)| formats::pickled_array(path).map(|array| (name, path, array)));
    let mut found = BTreeMap::new();
    for array in arrays {
        let (name, path, array) = array?;
        found.insert(name, (path, array));
    }
    let mut failure = None;
    let model = model.replace(&mut |name, shape, _| {
        let (path, array) = found.remove(name)?;
        if array.shape == shape {
            return Some(TensorData::new(array.values, shape.to_vec()));
        }
        failure.get_or_insert_with(|| WeightsError::Mismatch {
            path: path.to_owned(),
            name: name.to_owned(),
            found: format!("{:?}", array.shape),
            expected: format!("{shape:?}"),
        });
        None
    });
    match failure {
        None => Ok(model),
        Some(failure) => Err(failure),
    }
}

/// Rewrites a checkpoint of any container as safetensors with today's names, the tied matrix under both of its names.
/// Returns what was changed or left out, a line each.
pub fn convert(from: &Path, to: &Path) -> Result<Vec<String>, WeightsError> {
    let file = formats::open(from)?;
    let mut notes: Vec<String> =
        file.skipped().iter().map(|skipped| format!("left out {} ({})", skipped.name, skipped.kind)).collect();
    let failed = RefCell::new(None);
    let mut tensors: BTreeMap<String, Stored> = BTreeMap::new();
    for (source, info) in file.tensors().filter(|(_, info)| matches!(info.element, ElementType::Float(_))) {
        let name = formats::adapt::current_name(source);
        if name != source {
            notes.push(format!("renamed {source} to {name}"));
        }
        tensors.insert(name, Stored { file: &file, source, shape: &info.shape, failed: &failed });
    }
    for (one, other) in [(TIED.0, TIED.1), (TIED.1, TIED.0)] {
        if let (None, Some(tensor)) = (tensors.get(one), tensors.get(other).copied()) {
            notes.push(format!("added {one}, equal to {other}"));
            tensors.insert(one.to_owned(), tensor);
        }
    }
    write(tensors, to, || failed.take().map_or(Ok(()), |error| Err(WeightsError::Format(error))))?;
    Ok(notes)
}

/// A tensor that is read when it is written, so that one at a time is in memory.
#[derive(Debug, Clone, Copy)]
struct Stored<'a> {
    file: &'a StateDict,
    source: &'a str,
    shape: &'a [usize],
    /// The first failure to read.
    failed: &'a RefCell<Option<FormatError>>,
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self.file.read_f32(self.source) {
            Ok(values) => Cow::Owned(values.into_iter().flat_map(f32::to_le_bytes).collect()),
            Err(error) => {
                self.failed.borrow_mut().get_or_insert(error);
                Cow::Owned(Vec::new())
            }
        }
    }

    fn data_len(&self) -> usize {
        self.shape.iter().product::<usize>() * size_of::<f32>()
    }
}

/// Reads all f32 tensors of `path`.
pub fn load_tensors(path: &Path) -> Result<BTreeMap<String, Vec<f32>>, WeightsError> {
    Ok(formats::open(path)?.read_all_f32()?.into_iter().map(|tensor| (tensor.name, tensor.values)).collect())
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
