//! PyTorch's two containers: descriptions of tensors as a pickle, and their numbers beside it.
//!
//! Legacy (before 1.6): five pickles (magic number, version, system, object, storage keys), then each storage as its
//! length and its elements, little endian. Zip: `<name>/data.pkl` and one stored entry `<name>/data/<key>` per storage,
//! in the order of bytes that `<name>/byteorder` names. TorchScript archives hold code and are refused.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::error::{FormatError, Rewrite, printable};
use super::pickle::{Budget, Entries, Node, Pickle, Ref, StorageNode, Value};
use super::source::Source;
use super::state_dict::{Container, EXPECTED, StateDict, Storage, TensorInfo};
use super::zip::{Broken, Directory};

/// First number of every legacy file.
const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;

/// Second number.
const PROTOCOL: i64 = 1001;

/// Keys under which training scripts put the state dict.
const NESTED: &[&str] = &["state_dict", "model_state_dict", "model", "module"];

/// Reads the legacy container.
pub(super) fn legacy(source: &Arc<Source>) -> Result<StateDict, FormatError> {
    let parse = |start: usize| Pickle::parse(source, start..source.len(), Budget::Fixed, Rewrite::Checkpoint);
    let damaged =
        |offset: usize, reason: String| FormatError::Damaged { path: source.path().to_owned(), offset, reason };

    let (magic, at) = parse(0)?;
    if !matches!(magic.root(), Value::Long(MAGIC)) {
        return Err(not_saved_by_torch(source, magic.root()));
    }
    let (version, next) = parse(at)?;
    if version.root().int() != Some(PROTOCOL) {
        let found = version.root().int().map_or(version.root().kind().to_owned(), |v| v.to_string());
        return Err(damaged(at, format!("the version of PyTorch's container is {found}, expected {PROTOCOL}")));
    }
    let (system, at) = parse(next)?;
    if system.root().dict().is_none() {
        return Err(damaged(
            next,
            format!("the description of the system is {}, expected a dict", system.root().kind()),
        ));
    }
    let (object, keys_at) = parse(at)?;
    let (keys, mut at) = parse(keys_at)?;
    let Some(keys) = keys.root().items() else {
        return Err(damaged(keys_at, format!("the list of storages is {}, expected a list", keys.root().kind())));
    };

    let described = describe(source, &object)?;
    let mut storages: HashMap<String, Storage> = HashMap::new();
    for key in keys.iter() {
        let key = key.text().unwrap_or_default();
        let Some(node) = described.get(key) else {
            return Err(damaged(
                at,
                format!("the storage `{}` belongs to no tensor, so its size is unknown", printable(key)),
            ));
        };
        let length = source.get(at..).and_then(|rest| rest.first_chunk::<8>()).map(|b| u64::from_le_bytes(*b));
        let Some(length) = length else {
            return Err(damaged(at, format!("the file ends where the storage `{}` should start", printable(key))));
        };
        if length != node.length as u64 {
            let expected = node.length;
            let reason =
                format!("the storage `{}` has {length} elements, its tensors expect {expected}", printable(key));
            return Err(damaged(at, reason));
        }
        let (start, size) = (at + 8, node.length.checked_mul(node.element.size()));
        let left = source.len() - start;
        let Some(size) = size.filter(|size| *size <= left) else {
            let (length, element) = (node.length, node.element);
            let reason = format!(
                "the storage `{}` of {length} {element} needs more than the {left} bytes that are left",
                printable(key)
            );
            return Err(damaged(at, reason));
        };
        let storage = Storage { element: node.element, start, length: node.length, big_endian: false };
        if storages.insert(key.to_owned(), storage).is_some() {
            return Err(damaged(at, format!("the storage `{}` is there twice", printable(key))));
        }
        at = start + size;
    }
    collect(source, Container::PytorchLegacy, &object, &mut |node| match storages.get(&node.key) {
        Some(storage) => Ok(*storage),
        None => Err(format!("its storage `{}` is not in the file", printable(&node.key))),
    })
}

/// Reads the zip container.
pub(super) fn zipped(source: &Arc<Source>) -> Result<StateDict, FormatError> {
    let damaged = |broken: Broken| match broken {
        Broken::Damaged { at, reason } => FormatError::Damaged { path: source.path().to_owned(), offset: at, reason },
        Broken::Packed { .. } => FormatError::OtherFormat {
            path: source.path().to_owned(),
            looks_like: format!("a zip archive in which {broken}"),
            expected: EXPECTED,
            help: "PyTorch never compresses; unpack the archive, and pack its folder again with `zip -0 -r`".to_owned(),
        },
    };
    let directory = Directory::read(source).map_err(damaged)?;
    let mut folders: Vec<&str> = directory.names().filter_map(|name| name.strip_suffix("data.pkl")).collect();
    folders.retain(|folder| folder.is_empty() || folder.ends_with('/'));
    folders.sort_by_key(|folder| (folder.len(), *folder));
    let Some(folder) = folders.first() else {
        let (looks_like, help) = if directory.names().any(|name| name.ends_with(".npy")) {
            ("a zip archive of numpy arrays (.npz)", "name the PyTorch or safetensors checkpoint")
        } else {
            ("a zip archive without `data.pkl`", "unpack it if the checkpoint is inside, and name the file")
        };
        let path = source.path().to_owned();
        return Err(FormatError::OtherFormat {
            path,
            looks_like: looks_like.to_owned(),
            expected: EXPECTED,
            help: help.to_owned(),
        });
    };
    let entry = |name: &str| directory.find(source, &format!("{folder}{name}")).map_err(damaged);
    if entry("constants.pkl")?.is_some() {
        return Err(FormatError::OtherFormat {
            path: source.path().to_owned(),
            looks_like: "a TorchScript archive, which holds a program".to_owned(),
            expected: EXPECTED,
            help: "save its weights in Python: torch.save(torch.jit.load(…).state_dict(), 'plain.bin')".to_owned(),
        });
    }
    let big_endian = match entry("byteorder")?.and_then(|range| source.get(range)).map(<[u8]>::trim_ascii) {
        None | Some(b"little") => false,
        Some(b"big") => true,
        Some(other) => {
            return Err(FormatError::Content {
                path: source.path().to_owned(),
                found: format!("the byte order `{}`", printable(&String::from_utf8_lossy(other))),
                expected: "`little` or `big`".to_owned(),
                help: "the file is damaged, or of a later PyTorch; save it again with an earlier one",
            });
        }
    };
    let Some(pickle) = entry("data.pkl")? else {
        return Err(damaged(Broken::Damaged { at: 0, reason: "the archive has lost its `data.pkl`".to_owned() }));
    };
    let (object, _) = Pickle::parse(source, pickle, Budget::Fixed, Rewrite::Checkpoint)?;
    describe(source, &object)?;
    collect(source, Container::PytorchZip, &object, &mut |node| {
        let key = printable(&node.key);
        let found =
            directory.find(source, &format!("{folder}data/{}", node.key)).map_err(|broken| broken.to_string())?;
        let Some(range) = found else { return Err(format!("its storage `data/{key}` is not in the archive")) };
        if node.length.checked_mul(node.element.size()).is_none_or(|size| size > range.len()) {
            let (length, element, found) = (node.length, node.element, range.len());
            return Err(format!("its storage `data/{key}` has {found} bytes, too few for {length} {element}"));
        }
        Ok(Storage { element: node.element, start: range.start, length: node.length, big_endian })
    })
}

/// All storages of a pickle by key. One key must always mean the same.
fn describe<'p>(source: &Source, pickle: &'p Pickle) -> Result<BTreeMap<&'p str, &'p StorageNode>, FormatError> {
    let mut described: BTreeMap<&str, &StorageNode> = BTreeMap::new();
    for node in pickle.nodes() {
        let Node::Storage(storage) = node else { continue };
        let known = *described.entry(&storage.key).or_insert(storage);
        if (known.element, known.length) != (storage.element, storage.length) {
            return Err(FormatError::Content {
                path: source.path().to_owned(),
                found: format!(
                    "the storage `{}` once as {} {} and once as {} {}",
                    printable(&storage.key),
                    known.length,
                    known.element,
                    storage.length,
                    storage.element
                ),
                expected: "one type and length".to_owned(),
                help: "the file is damaged, or made to mislead; do not trust it",
            });
        }
    }
    Ok(described)
}

/// The tensors of the state dict in `pickle`; `locate` finds the bytes of a storage, or says why it cannot.
fn collect(
    source: &Arc<Source>,
    container: Container,
    pickle: &Pickle,
    locate: &mut dyn FnMut(&StorageNode) -> Result<Storage, String>,
) -> Result<StateDict, FormatError> {
    let mut state = StateDict::new(Arc::clone(source), container);
    let (under, entries) = find_state(source, pickle)?;
    if let Some(under) = under {
        state.set_under(under);
        let siblings = pickle.root().dict();
        for (key, value) in siblings.iter().flat_map(Entries::iter) {
            if key.text() != Some(under) {
                state.skip(key.text().unwrap_or(key.kind()), value.kind());
            }
        }
    }
    let mut numbers: HashMap<&str, usize> = HashMap::new();
    for ((key, value), (_, at)) in entries.iter().zip(entries.refs()) {
        let (Some(name), Some(tensor)) = (key.text(), pickle.tensor(*at)) else {
            state.skip(key.text().unwrap_or(key.kind()), value.kind());
            continue;
        };
        let Node::Storage(node) = pickle.node(tensor.storage) else { continue };
        let wrong =
            |reason: String| FormatError::Tensor { path: source.path().to_owned(), name: printable(name), reason };
        let storage = match numbers.get(node.key.as_str()) {
            Some(number) => *number,
            None => {
                let number = state.add_storage(locate(node).map_err(wrong)?);
                numbers.insert(&node.key, number);
                number
            }
        };
        let offset = match node.view {
            None => Some(tensor.offset),
            Some((first, length)) if first.checked_add(length).is_some_and(|end| end <= node.length) => {
                first.checked_add(tensor.offset)
            }
            Some(_) => None,
        };
        let Some(offset) = offset else { return Err(wrong("its view leaves its storage".to_owned())) };
        let (shape, strides) = (tensor.shape.to_vec(), tensor.strides.to_vec());
        state.add(name, TensorInfo { element: node.element, shape, strides, storage, offset })?;
    }
    state.finish()
}

/// The dictionary that holds tensors: what stands under one of the usual keys, or the whole.
fn find_state<'p>(source: &Source, pickle: &'p Pickle) -> Result<(Option<&'static str>, Entries<'p>), FormatError> {
    let has_tensor = |entries: &Entries| entries.refs().iter().any(|(_, value)| pickle.tensor(*value).is_some());
    let found = match pickle.root() {
        Value::Dict(entries) => {
            // First, since the state of a training run may have tensors of its own at the top.
            for key in NESTED {
                if let Some(nested) = entries.get(key).and_then(|value| value.dict()).filter(has_tensor) {
                    return Ok((Some(key), nested));
                }
            }
            if has_tensor(&entries) {
                return Ok((None, entries));
            }
            let keys: Vec<String> = entries
                .iter()
                .take(5)
                .map(|(key, value)| format!("`{}`: {}", printable(key.text().unwrap_or(key.kind())), value.kind()))
                .collect();
            match &keys[..] {
                [] => "an empty dict".to_owned(),
                _ if entries.len() > keys.len() => format!("a dict of {}, …", keys.join(", ")),
                _ => format!("a dict of {}", keys.join(", ")),
            }
        }
        other => other.kind().to_owned(),
    };
    Err(FormatError::Content {
        path: source.path().to_owned(),
        found,
        expected: "a dictionary of tensors, at the top or under `state_dict` or `model`".to_owned(),
        help: "save only the weights: torch.save(model.state_dict(), 'plain.bin')",
    })
}

fn not_saved_by_torch(source: &Source, value: Value) -> FormatError {
    FormatError::OtherFormat {
        path: source.path().to_owned(),
        looks_like: format!("a plain pickle of {}", value.kind()),
        expected: EXPECTED,
        help: "name a file that was written by `torch.save`".to_owned(),
    }
}

impl Pickle {
    fn node(&self, at: Ref) -> &Node {
        &self.nodes()[at as usize]
    }
}
