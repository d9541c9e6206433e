//! The complete list of names that a pickle may use, and what is built from each. Nothing outside it is understood.
//!
//! PyTorch's part and plain Python's; numpy's is in `numpy.rs`.

use super::super::element::{ElementType, FloatType};
use super::super::error::{Fault, printable};
use super::node::{Blob, Node, Ref, Table};
use super::numpy;

/// A name that is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Global {
    RebuildTensor,
    RebuildTensorV2,
    RebuildParameter,
    /// A storage class, with the type of its elements.
    Storage(ElementType, &'static str),
    Size,
    Device,
    OrderedDict,
    Encode,
    Bytes,
    Bytearray,
    Reconstruct,
    Scalar,
    FromBuffer,
    NdArray,
    NumpyType,
}

/// A stretch of numbers that tensors look at.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct StorageNode {
    /// Name of its bytes in the container.
    pub(in super::super) key: String,
    /// Elements.
    pub(in super::super) element: ElementType,
    /// Length in elements.
    pub(in super::super) length: usize,
    /// A part of it, in elements: first and length (legacy container).
    pub(in super::super) view: Option<(usize, usize)>,
}

/// A view of a storage.
#[derive(Debug, Clone)]
pub(in super::super) struct TensorNode {
    pub(in super::super) storage: Ref,
    /// First element, counted in the storage (or in its part).
    pub(in super::super) offset: usize,
    pub(in super::super) shape: Box<[usize]>,
    /// In elements.
    pub(in super::super) strides: Box<[usize]>,
}

impl Global {
    /// The meaning of `module.name`, if it has one.
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        use ElementType::{Bool, Float, Int, Uint};
        let storage = |element, name| Some(Self::Storage(element, name));
        match (module, name) {
            ("torch._utils", "_rebuild_tensor") => Some(Self::RebuildTensor),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Self::RebuildTensorV2),
            ("torch._utils", "_rebuild_parameter") => Some(Self::RebuildParameter),
            ("torch", "FloatStorage") => storage(Float(FloatType::F32), "torch.FloatStorage"),
            ("torch", "HalfStorage") => storage(Float(FloatType::F16), "torch.HalfStorage"),
            ("torch", "BFloat16Storage") => storage(Float(FloatType::Bf16), "torch.BFloat16Storage"),
            ("torch", "DoubleStorage") => storage(Float(FloatType::F64), "torch.DoubleStorage"),
            ("torch", "LongStorage") => storage(Int(8), "torch.LongStorage"),
            ("torch", "IntStorage") => storage(Int(4), "torch.IntStorage"),
            ("torch", "ShortStorage") => storage(Int(2), "torch.ShortStorage"),
            ("torch", "CharStorage") => storage(Int(1), "torch.CharStorage"),
            ("torch", "ByteStorage") => storage(Uint(1), "torch.ByteStorage"),
            ("torch", "BoolStorage") => storage(Bool, "torch.BoolStorage"),
            ("torch.storage" | "torch", "UntypedStorage") => storage(Uint(1), "torch.storage.UntypedStorage"),
            ("torch", "Size") => Some(Self::Size),
            ("torch", "device") => Some(Self::Device),
            ("collections", "OrderedDict") => Some(Self::OrderedDict),
            ("_codecs", "encode") => Some(Self::Encode),
            ("__builtin__" | "builtins", "bytes") => Some(Self::Bytes),
            ("__builtin__" | "builtins", "bytearray") => Some(Self::Bytearray),
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Some(Self::Reconstruct),
            ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Some(Self::Scalar),
            ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Some(Self::FromBuffer),
            ("numpy", "ndarray") => Some(Self::NdArray),
            ("numpy", "dtype") => Some(Self::NumpyType),
            _ => None,
        }
    }

    /// Its name in Python.
    pub(in super::super) fn name(self) -> &'static str {
        match self {
            Self::RebuildTensor => "torch._utils._rebuild_tensor",
            Self::RebuildTensorV2 => "torch._utils._rebuild_tensor_v2",
            Self::RebuildParameter => "torch._utils._rebuild_parameter",
            Self::Storage(_, name) => name,
            Self::Size => "torch.Size",
            Self::Device => "torch.device",
            Self::OrderedDict => "collections.OrderedDict",
            Self::Encode => "_codecs.encode",
            Self::Bytes => "builtins.bytes",
            Self::Bytearray => "builtins.bytearray",
            Self::Reconstruct => "numpy.core.multiarray._reconstruct",
            Self::Scalar => "numpy.core.multiarray.scalar",
            Self::FromBuffer => "numpy.core.numeric._frombuffer",
            Self::NdArray => "numpy.ndarray",
            Self::NumpyType => "numpy.dtype",
        }
    }
}

/// What a name applied to `arguments` stands for.
pub(super) fn reduce(table: &mut Table, source: &[u8], callable: Ref, arguments: Ref) -> Result<Ref, Fault> {
    let global = match table.get(callable) {
        Node::Global(global) => *global,
        other => return Err(Fault::Refused(format!("a call of {}", other.kind()))),
    };
    let Node::Tuple(arguments) = table.get(arguments) else {
        let kind = table.get(arguments).kind();
        return Err(Fault::damaged(format!("the arguments of {} are {kind}, expected a tuple", global.name())));
    };
    let arguments = arguments.clone();
    table.check(2 * arguments.len() * size_of::<Ref>())?;
    let unfit = |table: &Table| {
        let kinds: Vec<&str> = arguments.iter().take(8).map(|a| table.get(*a).kind()).collect();
        Fault::damaged(format!("{} cannot be built from ({})", global.name(), kinds.join(", ")))
    };
    match (global, &arguments[..]) {
        (Global::RebuildTensor, [storage, offset, shape, strides])
        | (
            Global::RebuildTensorV2,
            [storage, offset, shape, strides, _, _] | [storage, offset, shape, strides, _, _, _],
        ) => tensor(table, *storage, *offset, *shape, *strides),
        (Global::RebuildParameter, [tensor, _, _]) if matches!(table.get(*tensor), Node::Tensor(_)) => Ok(*tensor),
        (Global::Size, [shape]) if matches!(table.get(*shape), Node::Tuple(_)) => Ok(*shape),
        (Global::Device, [kind, ..]) if matches!(table.get(*kind), Node::Text(_)) => table.push(Node::Device),
        (Global::OrderedDict, []) => table.push(Node::OrderedDict(Vec::new())),
        (Global::OrderedDict, [items]) => match ordered_entries(table, *items)? {
            Some(entries) => table.push(Node::OrderedDict(entries)),
            None => Err(unfit(table)),
        },
        (Global::Bytes | Global::Bytearray, []) => table.push(Node::Bytes(Blob::Owned(Box::default()))),
        (Global::Bytearray, [bytes]) => match table.get(*bytes) {
            Node::Bytes(_) => Ok(*bytes),
            _ => Err(unfit(table)),
        },
        (Global::Encode | Global::Bytearray, [text, encoding]) => {
            let encoding = match table.get(*encoding) {
                Node::Text(blob) | Node::Native(blob) => blob.bytes(source),
                _ => return Err(unfit(table)),
            };
            if !matches!(encoding, b"latin1" | b"latin-1" | b"iso-8859-1") {
                let shown = printable(&String::from_utf8_lossy(encoding));
                return Err(Fault::Refused(format!("{} to `{shown}`", global.name())));
            }
            let Node::Text(blob) = table.get(*text) else { return Err(unfit(table)) };
            let bytes = latin1(blob.bytes(source))?;
            table.push(Node::Bytes(Blob::Owned(bytes)))
        }
        (Global::Reconstruct, [class, _, _]) if matches!(table.get(*class), Node::Global(Global::NdArray)) => {
            table.push(Node::Array(Box::default()))
        }
        (Global::Scalar, [kind, bytes]) => numpy::scalar(table, source, *kind, *bytes),
        (Global::FromBuffer, [buffer, kind, shape, order]) => {
            numpy::from_buffer(table, source, *buffer, *kind, *shape, *order)
        }
        (Global::NumpyType, [kind, ..]) => numpy::new_type(table, source, *kind),
        (Global::Storage(..) | Global::NdArray, _) => Err(Fault::Refused(format!("a call of {}", global.name()))),
        _ => Err(unfit(table)),
    }
}

/// What `state` changes in the value at `target`.
pub(super) fn build(table: &mut Table, source: &[u8], target: Ref, state: Ref) -> Result<(), Fault> {
    match table.get(target) {
        // Attributes of the dictionary, such as PyTorch's `_metadata`: nothing that is read here.
        Node::OrderedDict(_) => match table.get(state) {
            Node::Dict(_) | Node::OrderedDict(_) | Node::Tuple(_) => Ok(()),
            other => Err(Fault::damaged(format!("the attributes of an OrderedDict are {}", other.kind()))),
        },
        Node::Array(_) => numpy::set_array(table, source, target, state),
        Node::NumpyType(_) => numpy::set_type(table, source, target, state),
        other => Err(Fault::Refused(format!("a change of the state (BUILD) of {}", other.kind()))),
    }
}

/// The storage that a persistent id stands for.
pub(super) fn persistent(table: &mut Table, source: &[u8], id: Ref) -> Result<Ref, Fault> {
    let text = |at: Ref| match table.get(at) {
        Node::Text(blob) | Node::Native(blob) => std::str::from_utf8(blob.bytes(source)).ok(),
        Node::Bytes(_) | Node::None => Some(""),
        _ => None,
    };
    let (kind, rest) = match table.get(id) {
        Node::Tuple(items) => match &items[..] {
            [kind, rest @ ..] => (text(*kind).unwrap_or_default(), rest),
            [] => ("", &[][..]),
        },
        other => return Err(Fault::damaged(format!("a persistent id is {}, expected a tuple", other.kind()))),
    };
    if kind != "storage" {
        return Err(Fault::Refused(format!("the persistent object `{}`", printable(kind))));
    }
    let (class, key, length, view) = match rest {
        [class, key, _location, length] => (*class, *key, *length, None),
        [class, key, _location, length, view] => (*class, *key, *length, Some(*view)),
        _ => return Err(Fault::damaged(format!("a persistent id of {} parts", rest.len() + 1))),
    };
    let element = match table.get(class) {
        Node::Global(Global::Storage(element, _)) => *element,
        other => return Err(Fault::damaged(format!("a storage of the class {}", other.kind()))),
    };
    let Some(key) = text(key).filter(|key| !key.is_empty() && key.len() <= 200) else {
        return Err(Fault::damaged("a storage whose key is not a short text"));
    };
    let key = key.to_owned();
    let length = table.count(length, "the length of a storage")?;
    let view = match view.map(|view| table.get(view)) {
        None | Some(Node::None) => None,
        Some(Node::Tuple(parts)) => match &parts[..] {
            [_, first, length] => {
                Some((table.count(*first, "the offset of a view")?, table.count(*length, "the length of a view")?))
            }
            _ => return Err(Fault::damaged(format!("a storage view of {} parts", parts.len()))),
        },
        Some(other) => return Err(Fault::damaged(format!("a storage view is {}, expected a tuple", other.kind()))),
    };
    table.charge(key.len())?;
    table.push(Node::Storage(Box::new(StorageNode { key, element, length, view })))
}

fn tensor(table: &mut Table, storage: Ref, offset: Ref, shape: Ref, strides: Ref) -> Result<Ref, Fault> {
    if !matches!(table.get(storage), Node::Storage(_)) {
        let kind = table.get(storage).kind();
        return Err(Fault::damaged(format!("the storage of a tensor is {kind}")));
    }
    let offset = table.count(offset, "the offset of a tensor")?;
    let (shape, strides) =
        (table.counts(shape, "the shape of a tensor")?, table.counts(strides, "the strides of a tensor")?);
    if shape.len() != strides.len() {
        let (axes, steps) = (shape.len(), strides.len());
        return Err(Fault::damaged(format!("a tensor with {axes} axes and {steps} strides")));
    }
    table.push(Node::Tensor(Box::new(TensorNode { storage, offset, shape, strides })))
}

/// The entries of `OrderedDict([[key, value], …])`; none if it is something else.
fn ordered_entries(table: &mut Table, items: Ref) -> Result<Option<Vec<(Ref, Ref)>>, Fault> {
    let Node::List(items) = table.get(items) else { return Ok(None) };
    let pair = |item: &Ref| match table.get(*item) {
        Node::List(pair) => <[Ref; 2]>::try_from(&pair[..]).ok(),
        Node::Tuple(pair) => <[Ref; 2]>::try_from(&pair[..]).ok(),
        _ => None,
    };
    table.check(items.len() * size_of::<(Ref, Ref)>())?;
    Ok(items.iter().map(|item| pair(item).map(|[key, value]| (key, value))).collect())
}

/// Text encoded as Latin-1.
fn latin1(text: &[u8]) -> Result<Box<[u8]>, Fault> {
    let text = std::str::from_utf8(text).map_err(|_| Fault::damaged("text that is not UTF-8"))?;
    text.chars()
        .map(|c| u8::try_from(c).map_err(|_| Fault::damaged(format!("the character {c:?} has no Latin-1 code"))))
        .collect()
}
