//! The table of values that a pickle builds.
//!
//! Text and bytes stay in the source where the pickle has them verbatim.

use super::super::error::Fault;
use super::constructors::{Global, StorageNode, TensorNode};
use super::numpy::{ArrayNode, NumpyType};

/// Index in the table of values.
pub(in super::super) type Ref = u32;

/// A value.
#[derive(Debug)]
pub(in super::super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    /// An i128, little endian.
    Long([u8; 16]),
    Float(f64),
    Text(Blob),
    Bytes(Blob),
    /// Python 2's `str`: text or bytes.
    Native(Blob),
    List(Vec<Ref>),
    Tuple(Box<[Ref]>),
    Dict(Vec<(Ref, Ref)>),
    OrderedDict(Vec<(Ref, Ref)>),
    Device,
    Global(Global),
    NumpyType(NumpyType),
    Array(Box<ArrayNode>),
    Storage(Box<StorageNode>),
    Tensor(Box<TensorNode>),
}

/// Text or bytes.
#[derive(Debug, Clone)]
pub(in super::super) enum Blob {
    /// In the source.
    At { start: usize, length: usize },
    /// Decoded from another form.
    Owned(Box<[u8]>),
}

impl Node {
    /// What to call it in an error.
    pub(in super::super) fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a bool",
            Self::Int(_) | Self::Long(_) => "an int",
            Self::Float(_) => "a float",
            Self::Text(_) => "a str",
            Self::Bytes(_) => "bytes",
            Self::Native(_) => "a Python 2 str",
            Self::List(_) => "a list",
            Self::Tuple(_) => "a tuple",
            Self::Dict(_) => "a dict",
            Self::OrderedDict(_) => "an OrderedDict",
            Self::Device => "a torch.device",
            Self::Global(global) => global.name(),
            Self::NumpyType(_) => "a numpy dtype",
            Self::Array(_) => "a numpy array",
            Self::Storage(_) => "a tensor storage",
            Self::Tensor(_) => "a tensor",
        }
    }
}

impl Blob {
    /// The bytes.
    pub(in super::super) fn bytes<'a>(&'a self, source: &'a [u8]) -> &'a [u8] {
        match self {
            Self::At { start, length } => source.get(*start..).and_then(|rest| rest.get(..*length)).unwrap_or_default(),
            Self::Owned(bytes) => bytes,
        }
    }
}

/// The table while it is being built, with the memory it may take.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) nodes: Vec<Node>,
    budget: usize,
    left: usize,
}

/// Places of `None`, `False`, `True` and of the ints 0 to 255, which are built once.
const NONE: Ref = 0;
const FALSE: Ref = 1;
const TRUE: Ref = 2;
const SMALL: Ref = 3;

impl Table {
    pub(super) fn new(budget: usize) -> Self {
        let mut nodes = vec![Node::None, Node::Bool(false), Node::Bool(true)];
        nodes.extend((0..256).map(Node::Int));
        Self { nodes, budget, left: budget }
    }

    pub(super) fn none(&self) -> Ref {
        NONE
    }

    pub(super) fn bool(&self, value: bool) -> Ref {
        if value { TRUE } else { FALSE }
    }

    pub(super) fn int(&mut self, value: i64) -> Result<Ref, Fault> {
        match u8::try_from(value) {
            Ok(small) => Ok(SMALL + Ref::from(small)),
            Err(_) => self.push(Node::Int(value)),
        }
    }

    pub(super) fn push(&mut self, node: Node) -> Result<Ref, Fault> {
        let owned = match &node {
            Node::Text(Blob::Owned(bytes)) | Node::Bytes(Blob::Owned(bytes)) | Node::Native(Blob::Owned(bytes)) => {
                bytes.len()
            }
            Node::Tuple(items) => items.len() * size_of::<Ref>(),
            Node::List(items) => items.capacity() * size_of::<Ref>(),
            Node::Dict(entries) | Node::OrderedDict(entries) => entries.capacity() * size_of::<(Ref, Ref)>(),
            Node::Array(array) => size_of::<ArrayNode>() + array.shape.len() * size_of::<usize>(),
            Node::Storage(_) => size_of::<StorageNode>(),
            Node::Tensor(tensor) => size_of::<TensorNode>() + 2 * tensor.shape.len() * size_of::<usize>(),
            _ => 0,
        };
        // Twice the node: the table doubles as it grows.
        self.charge(2 * size_of::<Node>() + owned)?;
        let at = Ref::try_from(self.nodes.len()).map_err(|_| Fault::TooLarge(self.budget))?;
        self.nodes.push(node);
        Ok(at)
    }

    /// Takes `bytes` from the budget.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), Fault> {
        self.left = self.left.checked_sub(bytes).ok_or(Fault::TooLarge(self.budget))?;
        Ok(())
    }

    /// Whether `bytes` more could be taken.
    pub(super) fn check(&self, bytes: usize) -> Result<(), Fault> {
        if bytes > self.left { Err(Fault::TooLarge(self.budget)) } else { Ok(()) }
    }

    pub(super) fn get(&self, at: Ref) -> &Node {
        &self.nodes[at as usize]
    }

    pub(super) fn get_mut(&mut self, at: Ref) -> &mut Node {
        &mut self.nodes[at as usize]
    }

    /// A non-negative int that fits into memory.
    pub(super) fn count(&self, at: Ref, what: &str) -> Result<usize, Fault> {
        match self.get(at) {
            Node::Int(n) if *n >= 0 => Ok(*n as usize),
            Node::Int(n) => Err(Fault::damaged(format!("{what} is {n}"))),
            other => Err(Fault::damaged(format!("{what} is {}, expected an int", other.kind()))),
        }
    }

    /// A tuple of non-negative ints: at most 64 of them.
    pub(super) fn counts(&self, at: Ref, what: &str) -> Result<Box<[usize]>, Fault> {
        match self.get(at) {
            Node::Tuple(items) if items.len() <= 64 => items.iter().map(|item| self.count(*item, what)).collect(),
            Node::Tuple(items) => {
                Err(Fault::damaged(format!("{what} has {} numbers, expected at most 64", items.len())))
            }
            other => Err(Fault::damaged(format!("{what} is {}, expected a tuple", other.kind()))),
        }
    }
}

/// Keys and values that follow one another.
pub(super) fn pairs(items: &[Ref]) -> Result<Vec<(Ref, Ref)>, Fault> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Fault::damaged("a dictionary with a key that has no value"));
    }
    Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
}
