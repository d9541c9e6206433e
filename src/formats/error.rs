//! What can be wrong with a file, and the words in which it is said.
//!
//! The first line names the file, the place and what was found; the last one, `help:`, says what to do. Offsets are bytes
//! from the start of the file.

use std::path::{Path, PathBuf};

/// A file that cannot be read as what it should be.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The file cannot be opened, mapped or read.
    #[error("cannot read `{}`: {source}\n  help: check the path and its permissions", path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },

    /// The file is something else.
    #[error("`{}` is {looks_like}, expected {expected}\n  help: {help}", path.display())]
    OtherFormat {
        /// File.
        path: PathBuf,
        /// What it looks like.
        looks_like: String,
        /// What it should be.
        expected: &'static str,
        /// What to do.
        help: String,
    },

    /// The pickle asks for something that is not data.
    #[error(
        "`{}`: byte {offset}: the pickle asks for {what}, which is not among the constructors of tensors, arrays and \
         plain values that are read here\n  help: {help}",
        path.display()
    )]
    Refused {
        /// File.
        path: PathBuf,
        /// Where.
        offset: usize,
        /// The name, and how it is asked for.
        what: String,
        /// What to do, with a line of Python.
        help: String,
    },

    /// The file breaks the rules of its format.
    #[error(
        "`{}`: byte {offset}: {reason}\n  help: the file is cut short or damaged; copy it again and compare its size and checksum",
        path.display()
    )]
    Damaged {
        /// File.
        path: PathBuf,
        /// Where.
        offset: usize,
        /// Which rule.
        reason: String,
    },

    /// Reading would take far more memory than such a file needs.
    #[error(
        "`{}`: byte {offset}: the values of the pickle take more than {limit_mib} MiB of memory, far more than such a file needs\n\
         \x20 help: the file is damaged or made to exhaust memory; do not trust it",
        path.display()
    )]
    TooLarge {
        /// File.
        path: PathBuf,
        /// Where the limit was reached.
        offset: usize,
        /// The limit.
        limit_mib: usize,
    },

    /// A sound file with another content than expected.
    #[error("`{}` holds {found}, expected {expected}\n  help: {help}", path.display())]
    Content {
        /// File.
        path: PathBuf,
        /// What it holds.
        found: String,
        /// What it should hold.
        expected: String,
        /// What to do.
        help: &'static str,
    },

    /// A tensor's description contradicts the file.
    #[error(
        "`{}`: tensor `{name}`: {reason}\n  help: the file is cut short or damaged; copy it again and compare its size and checksum",
        path.display()
    )]
    Tensor {
        /// File.
        path: PathBuf,
        /// Tensor.
        name: String,
        /// The contradiction.
        reason: String,
    },

    /// A tensor that the file does not have.
    #[error("`{}` has no tensor `{name}`\n  help: it has {others}", path.display())]
    NoSuchTensor {
        /// File.
        path: PathBuf,
        /// Name asked for.
        name: String,
        /// How many it has, and a few of their names.
        others: String,
    },

    /// A tensor of integers where floating-point values are wanted.
    #[error("`{}`: `{name}` holds {found}, expected floating-point values\n  help: leave it out; weights are floating-point", path.display())]
    NotFloat {
        /// File.
        path: PathBuf,
        /// Tensor.
        name: String,
        /// Element type.
        found: String,
    },

    /// The caller's slice has another length than the tensor.
    #[error(
        "`{}`: tensor `{name}` has {found} elements, room for {expected} was given\n  help: ask for its shape first",
        path.display()
    )]
    Length {
        /// File.
        path: PathBuf,
        /// Tensor.
        name: String,
        /// Elements of the tensor.
        found: usize,
        /// Elements of the slice.
        expected: usize,
    },
}

/// What a person can do about a pickle that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rewrite {
    /// A PyTorch checkpoint.
    Checkpoint,
    /// A pickled numpy array of numbers.
    Array,
    /// A numpy file of pickled dictionaries.
    Objects,
}

impl Rewrite {
    fn help(self, path: &Path) -> String {
        let (line, out) = match self {
            Self::Checkpoint => (
                "import sys, torch; s = torch.load(sys.argv[1], map_location='cpu', weights_only=False); \
                 s = s.state_dict() if hasattr(s, 'state_dict') else s.get('state_dict', s.get('model', s)); \
                 torch.save({k: v for k, v in s.items() if torch.is_tensor(v)}, sys.argv[2])",
                "plain.bin",
            ),
            Self::Array => (
                "import sys, pickle, numpy; a = pickle.load(open(sys.argv[1], 'rb'), encoding='latin1'); \
                 pickle.dump(numpy.array(a, 'f4'), open(sys.argv[2], 'wb'), 2)",
                "plain.pkl",
            ),
            Self::Objects => (
                "import sys, json, numpy; a = numpy.load(sys.argv[1], allow_pickle=True, encoding='latin1'); \
                 numpy.save(sys.argv[2], numpy.array(json.loads(json.dumps(list(a), default=str)), object))",
                "plain.npy",
            ),
        };
        format!(
            "Python would carry out whatever the pickle asks for; only if you trust where the file comes from, rewrite it \
             with plain values: python3 -c \"{line}\" '{}' {out}",
            path.display()
        )
    }
}

/// What stopped the reading of a pickle, before the file's name is added.
#[derive(Debug, PartialEq)]
pub(super) enum Fault {
    /// A name outside the list, or an operation on something that has none.
    Refused(String),
    /// Against the rules.
    Damaged(String),
    /// Budget in bytes.
    TooLarge(usize),
}

impl Fault {
    /// A broken rule.
    pub(super) fn damaged(reason: impl Into<String>) -> Self {
        Self::Damaged(reason.into())
    }

    /// The error for the file at `path`.
    pub(super) fn at(self, path: &Path, offset: usize, rewrite: Rewrite) -> FormatError {
        let path = path.to_owned();
        match self {
            Self::Refused(what) => FormatError::Refused { what, offset, help: rewrite.help(&path), path },
            Self::Damaged(reason) => FormatError::Damaged { path, offset, reason },
            Self::TooLarge(budget) => FormatError::TooLarge { path, offset, limit_mib: budget >> 20 },
        }
    }
}

/// A name from a file, fit to be printed: control characters escaped, cut after 80 characters.
pub(super) fn printable(name: &str) -> String {
    let mut shown: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    if name.chars().nth(80).is_some() {
        shown.push('…');
    }
    shown
}
