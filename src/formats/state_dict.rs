//! Tensors of a checkpoint by name, whatever file they are in, and their values as f32.
//!
//! Opening reads descriptions only and checks each against the file, so that reading a tensor later allocates no more than
//! the file holds. Values are read by position, several parts at a time. Names and shapes are left as they are:
//! `adapt.rs` makes old ones fit.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;

use super::adapt::NamedTensor;
use super::element::ElementType;
use super::error::{FormatError, printable};
use super::pytorch;
use super::safetensors_file;
use super::sniff::{self, Format};
use super::source::Source;

/// The kind of file that tensors come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// PyTorch's own of versions before 1.6: pickles, then the numbers.
    PytorchLegacy,
    /// PyTorch's own since 1.6: a zip archive.
    PytorchZip,
    /// safetensors.
    Safetensors,
}

/// Where the values of a tensor are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Type of the elements.
    pub element: ElementType,
    /// Length of each axis.
    pub shape: Vec<usize>,
    /// Distance of neighbours along each axis, in elements.
    pub strides: Vec<usize>,
    /// Number of the storage; tied tensors have the same one.
    pub storage: usize,
    /// First element in the storage.
    pub offset: usize,
}

/// An entry that is not a tensor that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Its key.
    pub name: String,
    /// What it is.
    pub kind: String,
}

/// Tensors of a file.
#[derive(Debug)]
pub struct StateDict {
    source: Arc<Source>,
    container: Container,
    under: Option<String>,
    storages: Vec<Storage>,
    tensors: Vec<(String, TensorInfo)>,
    places: BTreeMap<String, usize>,
    skipped: Vec<Skipped>,
}

/// A stretch of numbers in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Storage {
    pub(super) element: ElementType,
    /// First byte.
    pub(super) start: usize,
    /// Elements.
    pub(super) length: usize,
    pub(super) big_endian: bool,
}

/// How often the elements of a file may be used over by its tensors: tied weights are, each a few times.
const MAX_SHARING: usize = 16;

/// So many elements are always allowed.
const SMALL: usize = 1 << 26;

/// Elements that are read at a time by one thread.
const PART: usize = 1 << 18;

/// Opens a checkpoint: PyTorch's legacy or zip container, or safetensors, told apart by their first bytes.
///
/// # Errors
/// A file of another kind, a pickle that asks for more than tensors and plain values, a damaged file.
pub fn open(path: &Path) -> Result<StateDict, FormatError> {
    read(Source::open(path)?)
}

impl StateDict {
    /// Like [`open`], from bytes in memory; `path` names them in errors.
    ///
    /// # Errors
    /// Those of [`open`].
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, FormatError> {
        read(Source::owned(path, bytes))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// The kind of file.
    pub fn container(&self) -> Container {
        self.container
    }

    /// The key under which the tensors were found, if they are not at the top (`state_dict`, `model`).
    pub fn under(&self) -> Option<&str> {
        self.under.as_deref()
    }

    /// All tensors, in the order of the file.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = (&str, &TensorInfo)> {
        self.tensors.iter().map(|(name, info)| (name.as_str(), info))
    }

    /// The tensor `name`.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.places.get(name).map(|place| &self.tensors[*place].1)
    }

    /// What the file has besides tensors.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// The values of `name`, last axis fastest, as f32.
    ///
    /// # Errors
    /// No such tensor, not floating-point, or the file cannot be read any more.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, FormatError> {
        let info = self.get(name).ok_or_else(|| self.no_such(name))?;
        let mut values = vec![0.0; info.len()];
        self.read_f32_into(name, &mut values)?;
        Ok(values)
    }

    /// The values of `name` into `out`, which must have as many elements.
    ///
    /// # Errors
    /// Those of [`read_f32`](Self::read_f32), and a slice of another length.
    pub fn read_f32_into(&self, name: &str, out: &mut [f32]) -> Result<(), FormatError> {
        let info = self.get(name).ok_or_else(|| self.no_such(name))?;
        let ElementType::Float(_) = info.element else {
            let (path, found) = (self.path().to_owned(), info.element.to_string());
            return Err(FormatError::NotFloat { path, name: printable(name), found });
        };
        if info.len() != out.len() {
            let (path, name) = (self.path().to_owned(), printable(name));
            return Err(FormatError::Length { path, name, found: info.len(), expected: out.len() });
        }
        if out.is_empty() {
            return Ok(());
        }
        let storage = self.storages[info.storage];
        if info.is_contiguous() {
            return self.read_storage(storage, info.offset, out);
        }
        let mut span = vec![0.0; info.extent()];
        self.read_storage(storage, info.offset, &mut span)?;
        gather(&span, &info.shape, &info.strides, out);
        Ok(())
    }

    /// All floating-point tensors with their values, in the order of the file; integers are left out.
    ///
    /// # Errors
    /// The file cannot be read any more.
    pub fn read_all_f32(&self) -> Result<Vec<NamedTensor>, FormatError> {
        let floats = self.tensors().filter(|(_, info)| matches!(info.element, ElementType::Float(_)));
        floats
            .map(|(name, info)| {
                Ok(NamedTensor { name: name.to_owned(), shape: info.shape.clone(), values: self.read_f32(name)? })
            })
            .collect()
    }

    fn read_storage(&self, storage: Storage, first: usize, out: &mut [f32]) -> Result<(), FormatError> {
        let ElementType::Float(float) = storage.element else { return Ok(()) };
        let size = float.size();
        out.par_chunks_mut(PART).enumerate().try_for_each_init(Vec::new, |buffer: &mut Vec<u8>, (part, out)| {
            buffer.resize(out.len() * size, 0);
            self.source.read_at(storage.start + (first + part * PART) * size, buffer)?;
            float.convert(buffer, storage.big_endian, out);
            Ok(())
        })
    }

    fn no_such(&self, name: &str) -> FormatError {
        let first: Vec<String> = self.tensors().take(3).map(|(n, _)| format!("`{}`", printable(n))).collect();
        let others = match self.tensors.len() {
            0 => "none at all".to_owned(),
            count => format!("{count} tensors, the first {}", first.join(", ")),
        };
        FormatError::NoSuchTensor { path: self.path().to_owned(), name: printable(name), others }
    }

    pub(super) fn new(source: Arc<Source>, container: Container) -> Self {
        Self {
            source,
            container,
            under: None,
            storages: Vec::new(),
            tensors: Vec::new(),
            places: BTreeMap::new(),
            skipped: Vec::new(),
        }
    }

    pub(super) fn set_under(&mut self, key: &str) {
        self.under = Some(key.to_owned());
    }

    pub(super) fn skip(&mut self, name: &str, kind: impl Into<String>) {
        self.skipped.push(Skipped { name: name.to_owned(), kind: kind.into() });
    }

    pub(super) fn add_storage(&mut self, storage: Storage) -> usize {
        self.storages.push(storage);
        self.storages.len() - 1
    }

    /// Adds a tensor after checking that it lies in its storage; the last of one name counts.
    pub(super) fn add(&mut self, name: &str, info: TensorInfo) -> Result<(), FormatError> {
        let wrong =
            |reason: String| FormatError::Tensor { path: self.source.path().to_owned(), name: printable(name), reason };
        let stored = self.storages[info.storage].length;
        let shape = &info.shape;
        let count = shape.iter().try_fold(1usize, |n, length| n.checked_mul(*length));
        let Some(count) = count.filter(|count| *count <= stored) else {
            return Err(wrong(format!("the shape {shape:?} has more elements than the {stored} stored")));
        };
        let reach = shape.iter().zip(&info.strides).try_fold(info.offset, |reach, (length, stride)| {
            reach.checked_add(length.saturating_sub(1).checked_mul(*stride)?)
        });
        if count > 0 && reach.is_none_or(|last| last >= stored) {
            let (offset, strides) = (info.offset, &info.strides);
            return Err(wrong(format!(
                "the shape {shape:?} with the strides {strides:?} from element {offset} on leaves the {stored} stored elements"
            )));
        }
        match self.places.get(name) {
            Some(place) => self.tensors[*place].1 = info,
            None => {
                self.places.insert(name.to_owned(), self.tensors.len());
                self.tensors.push((name.to_owned(), info));
            }
        }
        Ok(())
    }

    /// The whole, if its tensors together are no more than a few times what is stored.
    pub(super) fn finish(self) -> Result<Self, FormatError> {
        let stored = self.storages.iter().fold(0, |sum: usize, storage| sum.saturating_add(storage.length));
        let used = self.tensors.iter().fold(0, |sum: usize, (_, info)| sum.saturating_add(info.len()));
        if used <= stored.saturating_mul(MAX_SHARING).max(SMALL) {
            return Ok(self);
        }
        Err(FormatError::Content {
            path: self.path().to_owned(),
            found: format!("tensors of {used} elements that share {stored} stored ones"),
            expected: format!("each to be used at most {MAX_SHARING} times"),
            help: "the file is damaged or made to exhaust memory; do not trust it",
        })
    }
}

impl TensorInfo {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// Whether the elements lie one after the other, last axis fastest.
    pub fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(length, stride)| {
            let fits = *length == 1 || *stride == expected;
            expected = usize::saturating_mul(expected, *length);
            fits
        })
    }

    /// Elements of the storage from the first to the last one in use.
    fn extent(&self) -> usize {
        1 + self.shape.iter().zip(&self.strides).map(|(length, stride)| (length - 1) * stride).sum::<usize>()
    }
}

/// Strides of a tensor whose elements lie one after the other.
pub(super) fn contiguous_strides(shape: &[usize]) -> Vec<usize> {
    let mut step = 1usize;
    let mut strides: Vec<usize> = shape
        .iter()
        .rev()
        .map(|length| {
            let stride = step;
            step = step.saturating_mul(*length);
            stride
        })
        .collect();
    strides.reverse();
    strides
}

/// Copies a strided view of `span`, last axis fastest.
pub(super) fn gather(span: &[f32], shape: &[usize], strides: &[usize], out: &mut [f32]) {
    let mut index = vec![0usize; shape.len()];
    let mut at = 0;
    for value in out {
        *value = span[at];
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= index[axis] * strides[axis];
            index[axis] = 0;
        }
    }
}

fn read(source: Source) -> Result<StateDict, FormatError> {
    let source = Arc::new(source);
    match sniff::format(&source) {
        Some(Format::Pickle) => pytorch::legacy(&source),
        Some(Format::Zip) => pytorch::zipped(&source),
        Some(Format::Safetensors) => safetensors_file::read(&source),
        Some(Format::Npy) | None => Err(sniff::other_format(source.path(), &source, EXPECTED)),
    }
}

/// What a checkpoint may be.
pub(super) const EXPECTED: &str = "a checkpoint: PyTorch (.bin, .pt, .pth) or safetensors";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_gathered_in_the_order_of_their_axes() {
        let span: Vec<f32> = (0..12).map(|n| n as f32).collect();
        let mut out = [0.0; 6];
        gather(&span, &[2, 3], &[1, 4], &mut out);
        assert_eq!(out, [0.0, 4.0, 8.0, 1.0, 5.0, 9.0]);
        gather(&span, &[3, 1, 2], &[4, 7, 2], &mut out);
        assert_eq!(out, [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        gather(&span, &[6], &[0], &mut out);
        assert_eq!(out, [0.0; 6]);
    }

    #[test]
    fn strides_of_an_axis_of_length_one_do_not_matter() {
        let info = |shape: &[usize], strides: &[usize]| TensorInfo {
            element: ElementType::Bool,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
            storage: 0,
            offset: 0,
        };
        assert!(info(&[2, 1, 3], &[3, 99, 1]).is_contiguous());
        assert!(info(&[], &[]).is_contiguous());
        assert!(!info(&[2, 3], &[1, 2]).is_contiguous());
        assert_eq!(contiguous_strides(&[2, 3, 4]), [12, 4, 1]);
    }
}
