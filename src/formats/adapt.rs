//! Old checkpoints made to fit: the loading rules of the reference where names and shapes differ.
//!
//! LayerNorm's `gamma`/`beta`; segment tables of fewer or more rows; position tables shorter or longer; several
//! transforms of the masked-word head. Exact copies of rows, no arithmetic. What still does not fit afterwards is left as
//! it is, for the model to name.

use std::collections::BTreeMap;
use std::fmt;

const SEGMENTS: &str = "bert.embeddings.token_type_embeddings.weight";
const POSITIONS: &str = "bert.embeddings.position_embeddings.weight";
const WORDS: &str = "bert.embeddings.word_embeddings.weight";
const DECODER: &str = "cls.predictions.decoder.weight";
const TRANSFORM: &str = "cls.predictions.transform.";
const TRANSFORM_PARTS: [&str; 4] = ["dense.weight", "dense.bias", "LayerNorm.weight", "LayerNorm.bias"];

/// Rows of an old segment table that the six rows of a new one copy: types 2 to 4 start as type 0, type 5 as type 1.
const SEGMENT_ROWS: [usize; 6] = [0, 1, 0, 0, 0, 1];

/// A tensor with its values, last axis fastest.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// Name in the checkpoint.
    pub name: String,
    /// Length of each axis.
    pub shape: Vec<usize>,
    /// As many as the shape says.
    pub values: Vec<f32>,
}

/// What the checkpoint shall fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Rows of the position table.
    pub max_position_embeddings: usize,
    /// Rows of the segment table.
    pub type_vocab_size: usize,
    /// Transforms of the masked-word head; 1 but for the reference's `relax_projection`.
    pub transforms: usize,
    /// Which of a file's several transforms is taken; 0 to 3, otherwise the first.
    pub task_idx: Option<usize>,
}

/// Something that was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Another name.
    Renamed {
        /// Name in the file.
        from: String,
        /// Name now.
        to: String,
    },
    /// The segment table has another number of rows.
    Segments {
        /// Rows in the file.
        from: usize,
        /// Rows now.
        to: usize,
    },
    /// The position table was repeated from its start, or cut.
    Positions {
        /// Rows in the file.
        from: usize,
        /// Rows now.
        to: usize,
    },
    /// One of several transforms was taken.
    TransformTaken {
        /// Tensor.
        name: String,
        /// Which.
        index: usize,
        /// Of how many.
        of: usize,
    },
    /// The only transform was repeated.
    TransformRepeated {
        /// Tensor.
        name: String,
        /// How often it is there now.
        times: usize,
    },
    /// The file has the output matrix only, which is the word table.
    WordsFromDecoder,
    /// Output matrix and word table differ; the word table counts, since the model has but one.
    DecoderDiffers,
}

/// A checkpoint that cannot be made to fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdaptError {
    /// Shape and number of values contradict each other.
    #[error("tensor `{name}` of shape {shape:?} has {values} values\n  help: pass the values of the whole tensor")]
    Values {
        /// Tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Its values.
        values: usize,
    },
    /// Two tensors end up under one name.
    #[error(
        "the checkpoint has two tensors `{name}` once `gamma` and `beta` are renamed to `weight` and `bias`\n\
         \x20 help: remove one of the two, with `vlp convert` or in Python"
    )]
    SameName {
        /// The name.
        name: String,
    },
    /// No rule says what the new rows of the segment table are.
    #[error(
        "the segment table of the checkpoint has {from} rows, the model {to}: only tables of at least two rows grow, and only to six\n\
         \x20 help: set `model.type_vocab_size = 6`"
    )]
    Segments {
        /// Rows in the file.
        from: usize,
        /// Rows asked for.
        to: usize,
    },
    /// No rows to repeat.
    #[error("the position table of the checkpoint is empty\n  help: the checkpoint is damaged; copy it again")]
    NoPositions,
    /// Neither the file nor the model has a single transform.
    #[error(
        "`{name}` of the checkpoint holds {from} transforms, the model has {to}: one of the two numbers must be 1\n\
         \x20 help: use the checkpoint with as many transforms as it was trained with"
    )]
    Transforms {
        /// Tensor.
        name: String,
        /// Transforms in the file.
        from: usize,
        /// Transforms asked for.
        to: usize,
    },
    /// The file has no transform for this task.
    #[error(
        "the task index is {task_idx}, but `{name}` of the checkpoint holds {of} transforms\n  help: use an index below {of}"
    )]
    Task {
        /// Tensor.
        name: String,
        /// Asked for.
        task_idx: usize,
        /// Transforms in the file.
        of: usize,
    },
}

/// A checkpoint that fits, and what was changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapted {
    /// In the order of the file.
    pub tensors: Vec<NamedTensor>,
    /// In the same order.
    pub changes: Vec<Change>,
}

/// Applies all rules to a checkpoint.
///
/// # Errors
/// Where no rule says what the result is.
pub fn adapt(tensors: Vec<NamedTensor>, target: &Target) -> Result<Adapted, AdaptError> {
    let mut changes = Vec::new();
    let mut adapted: Vec<NamedTensor> = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let (tensor, made) = adapt_tensor(tensor, target)?;
        changes.extend(made);
        adapted.push(tensor);
    }
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for (place, tensor) in adapted.iter().enumerate() {
        if places.insert(&tensor.name, place).is_some() {
            return Err(AdaptError::SameName { name: tensor.name.clone() });
        }
    }
    match (places.get(WORDS).copied(), places.get(DECODER).copied()) {
        (None, Some(decoder)) => {
            let words = NamedTensor { name: WORDS.to_owned(), ..adapted[decoder].clone() };
            adapted.push(words);
            changes.push(Change::WordsFromDecoder);
        }
        (Some(words), Some(decoder)) if !same_values(&adapted[words], &adapted[decoder]) => {
            changes.push(Change::DecoderDiffers);
        }
        _ => {}
    }
    Ok(Adapted { tensors: adapted, changes })
}

/// Applies the rules that concern one tensor alone; its values are moved where nothing changes.
///
/// # Errors
/// Where no rule says what the result is.
pub fn adapt_tensor(tensor: NamedTensor, target: &Target) -> Result<(NamedTensor, Vec<Change>), AdaptError> {
    let NamedTensor { name, shape, values } = tensor;
    if shape.iter().try_fold(1usize, |n, length| n.checked_mul(*length)) != Some(values.len()) {
        return Err(AdaptError::Values { name, shape, values: values.len() });
    }
    let mut changes = Vec::new();
    let new_name = current_name(&name);
    if new_name != name {
        changes.push(Change::Renamed { from: name, to: new_name.clone() });
    }
    let mut tensor = NamedTensor { name: new_name, shape, values };
    let part = tensor.name.strip_prefix(TRANSFORM).filter(|part| TRANSFORM_PARTS.contains(part));
    changes.extend(match (tensor.name.as_str(), part) {
        (SEGMENTS, _) => segments(&mut tensor, target)?,
        (POSITIONS, _) => positions(&mut tensor, target)?,
        (_, Some(_)) => transform(&mut tensor, target)?,
        _ => None,
    });
    Ok((tensor, changes))
}

/// The name that today's checkpoints use: `weight` for `gamma`, `bias` for `beta`.
pub fn current_name(name: &str) -> String {
    name.replace("gamma", "weight").replace("beta", "bias")
}

fn segments(tensor: &mut NamedTensor, target: &Target) -> Result<Option<Change>, AdaptError> {
    let (Some(&from), to) = (tensor.shape.first(), target.type_vocab_size) else { return Ok(None) };
    if from == to {
        return Ok(None);
    }
    if from < to {
        if from < 2 || to > SEGMENT_ROWS.len() {
            return Err(AdaptError::Segments { from, to });
        }
        tensor.take_rows(SEGMENT_ROWS.into_iter().take(to));
    } else {
        tensor.take_rows(0..to);
    }
    Ok(Some(Change::Segments { from, to }))
}

fn positions(tensor: &mut NamedTensor, target: &Target) -> Result<Option<Change>, AdaptError> {
    let (Some(&from), to) = (tensor.shape.first(), target.max_position_embeddings) else { return Ok(None) };
    if from == to {
        return Ok(None);
    }
    if from == 0 {
        return Err(AdaptError::NoPositions);
    }
    tensor.take_rows((0..to).map(|row| row % from));
    Ok(Some(Change::Positions { from, to }))
}

fn transform(tensor: &mut NamedTensor, target: &Target) -> Result<Option<Change>, AdaptError> {
    let (Some(&rows), hidden) = (tensor.shape.first(), target.hidden_size) else { return Ok(None) };
    if hidden == 0 || rows == 0 || rows % hidden != 0 {
        return Ok(None);
    }
    let (from, to) = (rows / hidden, target.transforms.max(1));
    let name = tensor.name.clone();
    match (from, to) {
        _ if from == to => Ok(None),
        (1, _) => {
            tensor.take_rows((0..to * rows).map(|row| row % rows));
            Ok(Some(Change::TransformRepeated { name, times: to }))
        }
        (_, 1) => {
            let index = target.task_idx.filter(|task| *task < 4).unwrap_or(0);
            if index >= from {
                return Err(AdaptError::Task { name, task_idx: index, of: from });
            }
            tensor.take_rows(index * hidden..(index + 1) * hidden);
            Ok(Some(Change::TransformTaken { name, index, of: from }))
        }
        _ => Err(AdaptError::Transforms { name, from, to }),
    }
}

impl NamedTensor {
    /// Keeps copies of these rows of the first axis.
    fn take_rows(&mut self, rows: impl ExactSizeIterator<Item = usize>) {
        let width: usize = self.shape[1..].iter().product();
        self.shape[0] = rows.len();
        self.values = rows.flat_map(|row| self.values[row * width..(row + 1) * width].iter().copied()).collect();
    }
}

/// Equal to the bit.
fn same_values(a: &NamedTensor, b: &NamedTensor) -> bool {
    a.shape == b.shape && a.values.iter().zip(&b.values).all(|(a, b)| a.to_bits() == b.to_bits())
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Renamed { from, to } => write!(f, "`{from}` is now `{to}`"),
            Self::Segments { from, to } if from < to => {
                write!(f, "`{SEGMENTS}`: {to} rows from {from}; row 5 copies row 1, the other new rows copy row 0")
            }
            Self::Segments { from, to } => write!(f, "`{SEGMENTS}`: the first {to} of {from} rows"),
            Self::Positions { from, to } if from < to => {
                write!(f, "`{POSITIONS}`: {to} rows, the {from} of the file repeated from the start")
            }
            Self::Positions { from, to } => write!(f, "`{POSITIONS}`: the first {to} of {from} rows"),
            Self::TransformTaken { name, index, of } => write!(f, "`{name}`: transform {index} of {of}"),
            Self::TransformRepeated { name, times } => write!(f, "`{name}`: repeated {times} times"),
            Self::WordsFromDecoder => write!(f, "`{WORDS}` is `{DECODER}`, the only one of the two in the file"),
            Self::DecoderDiffers => {
                write!(f, "`{DECODER}` differs from `{WORDS}`, to which it is tied; the word table counts")
            }
        }
    }
}
