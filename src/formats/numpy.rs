//! numpy's pickles: arrays of numbers (the detector's fc7 weights), and `.npy` files of Python objects (VQA questions).
//!
//! Plain `.npy` tables of numbers and `.npz` archives are read elsewhere or not at all.

use std::path::Path;
use std::sync::Arc;

use super::element::{ElementType, FloatType};
use super::error::{FormatError, Rewrite, printable};
use super::pickle::{ArrayData, Budget, Pickle, Value};
use super::sniff::{self, Format};
use super::source::Source;
use super::state_dict::{contiguous_strides, gather};

/// An array of numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Length of each axis.
    pub shape: Vec<usize>,
    /// Type of the elements in the file.
    pub element: FloatType,
    /// Last axis fastest.
    pub values: Vec<f32>,
}

/// Reads a pickle of one numpy array of floating-point numbers, of Python 2 or 3.
///
/// # Errors
/// Another kind of file, a pickle of something else, names outside the list of constructors.
pub fn pickled_array(path: &Path) -> Result<Array, FormatError> {
    array(Source::open(path)?)
}

/// Reads a `.npy` file of Python objects: [`Pickle::root`] is the array, `root().items()` its elements.
///
/// # Errors
/// Another kind of file, numbers instead of objects, names outside the list of constructors.
pub fn read_objects(path: &Path) -> Result<Pickle, FormatError> {
    objects(Source::open(path)?)
}

impl Array {
    /// Like [`pickled_array`], from bytes in memory; `path` names them in errors.
    ///
    /// # Errors
    /// Those of [`pickled_array`].
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, FormatError> {
        array(Source::owned(path, bytes))
    }
}

impl Pickle {
    /// Like [`read_objects`], from bytes in memory; `path` names them in errors.
    ///
    /// # Errors
    /// Those of [`read_objects`].
    pub fn objects_from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, FormatError> {
        objects(Source::owned(path, bytes))
    }
}

fn array(source: Source) -> Result<Array, FormatError> {
    let source = Arc::new(source);
    if sniff::format(&source) != Some(Format::Pickle) {
        return Err(sniff::other_format(source.path(), &source, "a pickled numpy array"));
    }
    let (pickle, _) = Pickle::parse(&source, 0..source.len(), Budget::Proportional, Rewrite::Array)?;
    let unfit = |found: String| FormatError::Content {
        path: source.path().to_owned(),
        found,
        expected: "a numpy array of floating-point numbers".to_owned(),
        help: "pickle the array itself: pickle.dump(numpy.array(weights, 'f4'), open('fc7_w.pkl', 'wb'), 2)",
    };
    let Value::Array(view) = pickle.root() else { return Err(unfit(format!("a pickle of {}", pickle.root().kind()))) };
    let (float, big_endian, bytes) = match view.data() {
        ArrayData::Numbers { element: ElementType::Float(float), big_endian, bytes } => (float, big_endian, bytes),
        ArrayData::Numbers { element, .. } => return Err(unfit(format!("a numpy array of {element}"))),
        ArrayData::Objects(_) => return Err(unfit("a numpy array of Python objects".to_owned())),
        ArrayData::Text => return Err(unfit("a numpy array of texts".to_owned())),
    };
    let mut values = vec![0.0; bytes.len() / float.size()];
    float.convert(bytes, big_endian, &mut values);
    let shape = view.shape().to_vec();
    if view.is_fortran() && shape.len() > 1 && !values.is_empty() {
        let reversed: Vec<usize> = shape.iter().rev().copied().collect();
        let mut strides = contiguous_strides(&reversed);
        strides.reverse();
        let mut ordered = vec![0.0; values.len()];
        gather(&values, &shape, &strides, &mut ordered);
        values = ordered;
    }
    Ok(Array { shape, element: float, values })
}

fn objects(source: Source) -> Result<Pickle, FormatError> {
    const EXPECTED: &str = "a numpy file (.npy) of Python objects";
    let source = Arc::new(source);
    if sniff::format(&source) != Some(Format::Npy) {
        return Err(sniff::other_format(source.path(), &source, EXPECTED));
    }
    let unfit = |found: String| FormatError::Content {
        path: source.path().to_owned(),
        found,
        expected: "pickled Python objects (dtype `|O`)".to_owned(),
        help: "name the file of questions, e.g. imdb_train2014.npy",
    };
    let damaged = |offset: usize, reason: &str| FormatError::Damaged {
        path: source.path().to_owned(),
        offset,
        reason: reason.to_owned(),
    };
    let (length, at) = match source.get(6..12) {
        Some([1, _, a, b, ..]) => (usize::from(u16::from_le_bytes([*a, *b])), 10),
        Some([2 | 3, _, a, b, c, d]) => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, 12),
        Some([version, ..]) => return Err(unfit(format!("a numpy file of version {version}"))),
        _ => return Err(damaged(6, "the header of the numpy file is cut short")),
    };
    let start = at + length;
    let header = source.get(at..start).ok_or_else(|| damaged(at, "the header of the numpy file is cut short"))?;
    match dtype(header).as_deref() {
        Some("|O" | "O") => {}
        Some(other) => return Err(unfit(format!("numbers or texts (dtype `{}`)", printable(other)))),
        None => return Err(unfit("a structured array, or a header that is not numpy's".to_owned())),
    }
    let (pickle, _) = Pickle::parse(&source, start..source.len(), Budget::Proportional, Rewrite::Objects)?;
    match pickle.root() {
        Value::Array(view) if matches!(view.data(), ArrayData::Objects(_)) => Ok(pickle),
        other => Err(unfit(format!("a pickle of {}", other.kind()))),
    }
}

/// The value of `'descr'` in a header, if it is a text.
fn dtype(header: &[u8]) -> Option<String> {
    let text: String = std::str::from_utf8(header).ok()?.replace('"', "'").split_whitespace().collect();
    let (_, value) = text.split_once("'descr':'")?;
    value.split_once('\'').map(|(dtype, _)| dtype.to_owned())
}
