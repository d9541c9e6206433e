//! How the rest of the program looks at what a pickle stands for.
//!
//! Views into the table; nothing is copied. A value may contain itself, so whoever walks down must know how far.

use super::super::element::ElementType;
use super::node::{Node, Ref};
use super::numpy::{ArrayNode, Data, Kind};
use super::{Pickle, TensorNode};

/// A Python value.
#[derive(Debug, Clone, Copy)]
pub enum Value<'p> {
    /// `None`.
    None,
    /// `bool`.
    Bool(bool),
    /// `int`.
    Int(i64),
    /// An `int` that needs more than 64 bits.
    Long(i128),
    /// `float`.
    Float(f64),
    /// `str`.
    Str(&'p str),
    /// `bytes` or `bytearray`.
    Bytes(&'p [u8]),
    /// Python 2's `str`, which may be text or bytes.
    Native(&'p [u8]),
    /// `list`.
    List(Items<'p>),
    /// `tuple`.
    Tuple(Items<'p>),
    /// `dict` or `OrderedDict`.
    Dict(Entries<'p>),
    /// numpy array.
    Array(ArrayView<'p>),
    /// Anything that only PyTorch's containers use.
    Other(&'static str),
}

/// Elements of a list or tuple.
#[derive(Debug, Clone, Copy)]
pub struct Items<'p> {
    pickle: &'p Pickle,
    items: &'p [Ref],
}

/// Entries of a dictionary.
#[derive(Debug, Clone, Copy)]
pub struct Entries<'p> {
    pickle: &'p Pickle,
    entries: &'p [(Ref, Ref)],
}

/// A numpy array.
#[derive(Debug, Clone, Copy)]
pub struct ArrayView<'p> {
    pickle: &'p Pickle,
    array: &'p ArrayNode,
}

/// Elements of an array, in the order of its memory.
#[derive(Debug, Clone, Copy)]
pub enum ArrayData<'p> {
    /// Numbers.
    Numbers {
        /// Their type.
        element: ElementType,
        /// Most significant byte first.
        big_endian: bool,
        /// As they lie in memory.
        bytes: &'p [u8],
    },
    /// Python values.
    Objects(Items<'p>),
    /// Texts of fixed length.
    Text,
}

impl Pickle {
    pub(super) fn value(&self, at: Ref) -> Value<'_> {
        let node = &self.nodes[at as usize];
        match node {
            Node::None => Value::None,
            Node::Bool(value) => Value::Bool(*value),
            Node::Int(value) => Value::Int(*value),
            Node::Long(bytes) => Value::Long(i128::from_le_bytes(*bytes)),
            Node::Float(value) => Value::Float(*value),
            // Checked when it was read.
            Node::Text(blob) => Value::Str(std::str::from_utf8(blob.bytes(&self.source)).unwrap_or_default()),
            Node::Bytes(blob) => Value::Bytes(blob.bytes(&self.source)),
            Node::Native(blob) => Value::Native(blob.bytes(&self.source)),
            Node::List(items) => Value::List(Items { pickle: self, items }),
            Node::Tuple(items) => Value::Tuple(Items { pickle: self, items }),
            Node::Dict(entries) | Node::OrderedDict(entries) => Value::Dict(Entries { pickle: self, entries }),
            Node::Array(array) => Value::Array(ArrayView { pickle: self, array }),
            Node::Device | Node::Global(_) | Node::NumpyType(_) | Node::Storage(_) | Node::Tensor(_) => {
                Value::Other(node.kind())
            }
        }
    }

    /// The tensor at the root of a value, if it is one.
    pub(in super::super) fn tensor(&self, at: Ref) -> Option<&TensorNode> {
        match &self.nodes[at as usize] {
            Node::Tensor(tensor) => Some(tensor),
            _ => None,
        }
    }
}

impl<'p> Value<'p> {
    /// What to call it in an error.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a bool",
            Self::Int(_) | Self::Long(_) => "an int",
            Self::Float(_) => "a float",
            Self::Str(_) => "a str",
            Self::Bytes(_) => "bytes",
            Self::Native(_) => "a Python 2 str",
            Self::List(_) => "a list",
            Self::Tuple(_) => "a tuple",
            Self::Dict(_) => "a dict",
            Self::Array(_) => "a numpy array",
            Self::Other(kind) => kind,
        }
    }

    /// Text: a `str`, or a Python 2 `str` that is UTF-8.
    pub fn text(&self) -> Option<&'p str> {
        match self {
            Self::Str(text) => Some(text),
            Self::Native(bytes) => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// An `int`.
    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// A `bool`.
    pub fn bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// A dictionary.
    pub fn dict(&self) -> Option<Entries<'p>> {
        match self {
            Self::Dict(entries) => Some(*entries),
            _ => None,
        }
    }

    /// A list, a tuple, or an array of objects.
    pub fn items(&self) -> Option<Items<'p>> {
        match self {
            Self::List(items) | Self::Tuple(items) => Some(*items),
            Self::Array(array) => match array.data() {
                ArrayData::Objects(items) => Some(items),
                _ => None,
            },
            _ => None,
        }
    }
}

impl<'p> Items<'p> {
    /// How many.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Element `index`.
    pub fn get(&self, index: usize) -> Option<Value<'p>> {
        self.items.get(index).map(|item| self.pickle.value(*item))
    }

    /// All elements.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Value<'p>> + use<'p> {
        let pickle = self.pickle;
        self.items.iter().map(move |item| pickle.value(*item))
    }
}

impl<'p> Entries<'p> {
    /// How many; a key that was set twice counts twice.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value last set under the text `key`.
    pub fn get(&self, key: &str) -> Option<Value<'p>> {
        self.iter().rev().find(|(k, _)| k.text() == Some(key)).map(|(_, value)| value)
    }

    /// All entries, in the order in which they were set.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (Value<'p>, Value<'p>)> + ExactSizeIterator + use<'p> {
        let pickle = self.pickle;
        self.entries.iter().map(move |(key, value)| (pickle.value(*key), pickle.value(*value)))
    }

    /// The same with places in the table.
    pub(in super::super) fn refs(&self) -> &'p [(Ref, Ref)] {
        self.entries
    }
}

impl<'p> ArrayView<'p> {
    /// Length of each axis.
    pub fn shape(&self) -> &'p [usize] {
        &self.array.shape
    }

    /// Whether the first axis varies fastest in memory, not the last.
    pub fn is_fortran(&self) -> bool {
        self.array.fortran
    }

    /// The elements.
    pub fn data(&self) -> ArrayData<'p> {
        let stored = match self.array.data {
            Data::Empty => Value::None,
            Data::Raw(at) | Data::Objects(at) => self.pickle.value(at),
        };
        let big_endian = self.array.dtype.big_endian;
        match (stored, self.array.dtype.kind) {
            (Value::List(items), Kind::Object) => ArrayData::Objects(items),
            (Value::Bytes(bytes) | Value::Native(bytes), Kind::Number(element)) => {
                ArrayData::Numbers { element, big_endian, bytes }
            }
            (_, Kind::Number(element)) => ArrayData::Numbers { element, big_endian, bytes: &[] },
            _ => ArrayData::Text,
        }
    }
}
