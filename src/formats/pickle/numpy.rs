//! numpy's part of the constructors: dtypes, arrays and scalars.
//!
//! Structured dtypes, dates and complex numbers are refused.

use super::super::element::{ElementType, FloatType};
use super::super::error::{Fault, printable};
use super::node::{Blob, Node, Ref, Table};

/// A dtype.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct NumpyType {
    pub(in super::super) kind: Kind,
    pub(in super::super) big_endian: bool,
}

/// What the elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Kind {
    Number(ElementType),
    /// Python values.
    Object,
    /// So many bytes.
    Bytes(usize),
    /// So many characters of 4 bytes.
    Unicode(usize),
}

/// An array; empty until its state is set.
#[derive(Debug)]
pub(in super::super) struct ArrayNode {
    pub(in super::super) shape: Box<[usize]>,
    pub(in super::super) dtype: NumpyType,
    /// The first axis varies fastest.
    pub(in super::super) fortran: bool,
    pub(in super::super) data: Data,
}

/// Elements of an array.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Data {
    /// None yet.
    Empty,
    /// Bytes.
    Raw(Ref),
    /// A list of values.
    Objects(Ref),
}

impl Default for ArrayNode {
    fn default() -> Self {
        let dtype = NumpyType { kind: Kind::Number(ElementType::Uint(1)), big_endian: false };
        Self { shape: Box::new([0]), dtype, fortran: false, data: Data::Empty }
    }
}

impl NumpyType {
    /// Bytes per element in a buffer.
    fn size(self) -> usize {
        match self.kind {
            Kind::Number(element) => element.size(),
            Kind::Object => 8,
            Kind::Bytes(length) => length,
            Kind::Unicode(length) => length.saturating_mul(4),
        }
    }

    /// `f4`, `<i8`, `|O`, `U12` …
    pub(in super::super) fn parse(text: &str) -> Option<Self> {
        let (big_endian, rest) = match text.as_bytes() {
            [b'>', ..] => (true, &text[1..]),
            [b'<' | b'|' | b'=', ..] => (false, &text[1..]),
            _ => (false, text),
        };
        let kind = match rest {
            "f2" => Kind::Number(ElementType::Float(FloatType::F16)),
            "f4" => Kind::Number(ElementType::Float(FloatType::F32)),
            "f8" => Kind::Number(ElementType::Float(FloatType::F64)),
            "i1" => Kind::Number(ElementType::Int(1)),
            "i2" => Kind::Number(ElementType::Int(2)),
            "i4" => Kind::Number(ElementType::Int(4)),
            "i8" => Kind::Number(ElementType::Int(8)),
            "u1" => Kind::Number(ElementType::Uint(1)),
            "u2" => Kind::Number(ElementType::Uint(2)),
            "u4" => Kind::Number(ElementType::Uint(4)),
            "u8" => Kind::Number(ElementType::Uint(8)),
            "b1" | "?" => Kind::Number(ElementType::Bool),
            "O" | "O4" | "O8" => Kind::Object,
            _ => match rest.split_at_checked(1)? {
                ("S" | "a", length) => Kind::Bytes(length.parse().ok()?),
                ("U", length) => Kind::Unicode(length.parse().ok()?),
                _ => return None,
            },
        };
        Some(Self { kind, big_endian })
    }
}

/// `dtype('f4', False, True)`.
pub(super) fn new_type(table: &mut Table, source: &[u8], name: Ref) -> Result<Ref, Fault> {
    let text = match table.get(name) {
        Node::Text(blob) | Node::Native(blob) => String::from_utf8_lossy(blob.bytes(source)),
        other => return Err(Fault::Refused(format!("a numpy dtype made of {}", other.kind()))),
    };
    match NumpyType::parse(&text) {
        Some(dtype) => table.push(Node::NumpyType(dtype)),
        None => Err(Fault::Refused(format!("the numpy dtype `{}`", printable(&text)))),
    }
}

/// State of a dtype: version, byte order, sub-array, field names, fields, size, alignment, flags.
pub(super) fn set_type(table: &mut Table, source: &[u8], target: Ref, state: Ref) -> Result<(), Fault> {
    let Node::Tuple(parts) = table.get(state) else {
        return Err(Fault::damaged(format!("the state of a numpy dtype is {}", table.get(state).kind())));
    };
    let [_, order, subarray, names, fields, ..] = parts[..] else {
        return Err(Fault::damaged(format!("the state of a numpy dtype has {} parts", parts.len())));
    };
    if [subarray, names, fields].iter().any(|part| !matches!(table.get(*part), Node::None)) {
        return Err(Fault::Refused("a structured numpy dtype".to_owned()));
    }
    let big = match table.get(order) {
        Node::Text(blob) | Node::Native(blob) => match blob.bytes(source) {
            b">" => true,
            b"<" | b"|" | b"=" => false,
            other => {
                let shown = printable(&String::from_utf8_lossy(other));
                return Err(Fault::damaged(format!("the byte order of a numpy dtype is `{shown}`")));
            }
        },
        other => return Err(Fault::damaged(format!("the byte order of a numpy dtype is {}", other.kind()))),
    };
    if let Node::NumpyType(dtype) = table.get_mut(target) {
        dtype.big_endian = big;
    }
    Ok(())
}

/// State of an array: (version,) shape, dtype, order, elements.
pub(super) fn set_array(table: &mut Table, source: &[u8], target: Ref, state: Ref) -> Result<(), Fault> {
    let Node::Tuple(parts) = table.get(state) else {
        return Err(Fault::damaged(format!("the state of a numpy array is {}", table.get(state).kind())));
    };
    let ([_, shape, dtype, fortran, data] | [shape, dtype, fortran, data]) = parts[..] else {
        return Err(Fault::damaged(format!("the state of a numpy array has {} parts", parts.len())));
    };
    let fortran = match table.get(fortran) {
        Node::Bool(fortran) => *fortran,
        Node::Int(flag) => *flag != 0,
        other => return Err(Fault::damaged(format!("the order of a numpy array is {}", other.kind()))),
    };
    let array = array(table, source, shape, dtype, fortran, data)?;
    table.charge(array.shape.len() * size_of::<usize>())?;
    *table.get_mut(target) = Node::Array(Box::new(array));
    Ok(())
}

/// `_frombuffer(buffer, dtype, shape, 'C' or 'F')` of protocol 5.
pub(super) fn from_buffer(
    table: &mut Table,
    source: &[u8],
    buffer: Ref,
    dtype: Ref,
    shape: Ref,
    order: Ref,
) -> Result<Ref, Fault> {
    let fortran = match table.get(order) {
        Node::Text(blob) => blob.bytes(source) == b"F",
        other => return Err(Fault::damaged(format!("the order of a numpy array is {}", other.kind()))),
    };
    let array = array(table, source, shape, dtype, fortran, buffer)?;
    table.push(Node::Array(Box::new(array)))
}

fn array(table: &Table, source: &[u8], shape: Ref, dtype: Ref, fortran: bool, data: Ref) -> Result<ArrayNode, Fault> {
    let shape = table.counts(shape, "the shape of a numpy array")?;
    let Node::NumpyType(dtype) = *table.get(dtype) else {
        return Err(Fault::damaged(format!("the dtype of a numpy array is {}", table.get(dtype).kind())));
    };
    let count = shape.iter().try_fold(1usize, |n, length| n.checked_mul(*length));
    let count = count.ok_or_else(|| Fault::damaged(format!("a numpy array of the shape {shape:?}")))?;
    let data = match table.get(data) {
        Node::List(items) if dtype.kind == Kind::Object => {
            if items.len() != count {
                let found = items.len();
                return Err(Fault::damaged(format!("a numpy array of the shape {shape:?} has {found} elements")));
            }
            Data::Objects(data)
        }
        Node::Bytes(blob) | Node::Native(blob) if dtype.kind != Kind::Object => {
            let found = blob.bytes(source).len();
            if Some(found) != count.checked_mul(dtype.size()) {
                let size = dtype.size();
                return Err(Fault::damaged(format!(
                    "a numpy array of the shape {shape:?} and {size} bytes per element has {found} bytes"
                )));
            }
            Data::Raw(data)
        }
        other => return Err(Fault::damaged(format!("the elements of a numpy array are {}", other.kind()))),
    };
    Ok(ArrayNode { shape, dtype, fortran, data })
}

/// `scalar(dtype, bytes)`: the plain value.
pub(super) fn scalar(table: &mut Table, source: &[u8], dtype: Ref, bytes: Ref) -> Result<Ref, Fault> {
    let Node::NumpyType(dtype) = *table.get(dtype) else {
        return Err(Fault::damaged(format!("the dtype of a numpy scalar is {}", table.get(dtype).kind())));
    };
    let (Node::Bytes(blob) | Node::Native(blob)) = table.get(bytes) else {
        return Err(Fault::damaged(format!("a numpy scalar made of {}", table.get(bytes).kind())));
    };
    let bytes = blob.bytes(source);
    if bytes.len() != dtype.size() || dtype.kind == Kind::Object {
        return Err(Fault::damaged(format!("a numpy scalar of {} bytes made of {}", dtype.size(), bytes.len())));
    }
    match dtype.kind {
        Kind::Object | Kind::Bytes(_) => {
            let blob = blob.clone();
            table.push(Node::Bytes(blob))
        }
        Kind::Unicode(_) => {
            let text = utf32(bytes, dtype.big_endian)?;
            table.push(Node::Text(Blob::Owned(text.into_bytes().into())))
        }
        Kind::Number(ElementType::Float(FloatType::F64)) => {
            let bits = little_endian(bytes, dtype.big_endian);
            table.push(Node::Float(f64::from_bits(bits)))
        }
        Kind::Number(ElementType::Float(float)) => {
            let mut value = [0.0];
            float.convert(bytes, dtype.big_endian, &mut value);
            table.push(Node::Float(f64::from(value[0])))
        }
        Kind::Number(ElementType::Bool) => Ok(table.bool(bytes != [0])),
        Kind::Number(ElementType::Uint(_)) => match i64::try_from(little_endian(bytes, dtype.big_endian)) {
            Ok(value) => table.int(value),
            Err(_) => {
                let value = i128::from(little_endian(bytes, dtype.big_endian));
                table.push(Node::Long(value.to_le_bytes()))
            }
        },
        Kind::Number(ElementType::Int(_)) => {
            let unused = 64 - 8 * bytes.len() as u32;
            let bits = little_endian(bytes, dtype.big_endian) << unused;
            table.int(bits.cast_signed() >> unused)
        }
    }
}

/// At most eight bytes.
fn little_endian(bytes: &[u8], big_endian: bool) -> u64 {
    let add = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
    if big_endian { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
}

/// Text without the zeros that fill it up.
fn utf32(bytes: &[u8], big_endian: bool) -> Result<String, Fault> {
    let (units, _) = bytes.as_chunks::<4>();
    let code = |unit: &[u8; 4]| if big_endian { u32::from_be_bytes(*unit) } else { u32::from_le_bytes(*unit) };
    let text: Option<String> = units.iter().map(|unit| char::from_u32(code(unit))).collect();
    let text = text.ok_or_else(|| Fault::damaged("a numpy str with a code that is no character"))?;
    Ok(text.trim_end_matches('\0').to_owned())
}
