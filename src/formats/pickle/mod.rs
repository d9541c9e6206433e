//! Reading pickles as data, protocols 0 to 5 as PyTorch and numpy write them.
//!
//! All values live side by side in one table and name each other by index: sharing costs nothing, a value may contain
//! itself, and nesting of any depth is neither parsed nor freed by recursion. No class is ever looked up, nothing is
//! called: `constructors.rs` holds the complete list of names that mean something. Sets, extension codes, out-of-band
//! buffers and objects of any class are refused.

mod constructors;
mod cursor;
mod machine;
mod names;
mod node;
mod numpy;
mod text;
mod value;

use std::path::Path;
use std::sync::Arc;

use super::error::{FormatError, Rewrite};
use super::source::Source;

pub(super) use constructors::{StorageNode, TensorNode};
pub(super) use node::{Node, Ref};
pub use value::{ArrayData, ArrayView, Entries, Items, Value};

use machine::Machine;

/// A parsed pickle.
#[derive(Debug)]
pub struct Pickle {
    source: Arc<Source>,
    nodes: Vec<Node>,
    root: Ref,
}

/// How much memory the values of one pickle may take: a checkpoint's pickle describes tensors and is small.
#[derive(Debug, Clone, Copy)]
pub(super) enum Budget {
    /// Descriptions of tensors.
    Fixed,
    /// Data: in proportion to the length of the pickle.
    Proportional,
}

impl Budget {
    fn bytes(self, length: usize) -> usize {
        match self {
            Self::Fixed => 256 << 20,
            Self::Proportional => (64 << 20) + length.saturating_mul(24),
        }
    }
}

impl Pickle {
    /// Reads one pickle from `bytes`; `path` names it in errors. What follows its end is ignored.
    ///
    /// # Errors
    /// A name outside the list of constructors, or a damaged pickle.
    pub fn from_bytes(path: &Path, bytes: Vec<u8>) -> Result<Self, FormatError> {
        let source = Arc::new(Source::owned(path, bytes));
        let length = source.len();
        Ok(Self::parse(&source, 0..length, Budget::Proportional, Rewrite::Array)?.0)
    }

    /// Reads one pickle from `range` of the source; also returns where it ends.
    pub(super) fn parse(
        source: &Arc<Source>,
        range: std::ops::Range<usize>,
        budget: Budget,
        rewrite: Rewrite,
    ) -> Result<(Self, usize), FormatError> {
        let bytes = source.get(..range.end).unwrap_or(source);
        let mut machine = Machine::new(bytes, range.start, budget.bytes(range.len()));
        match machine.run() {
            Ok(root) => {
                let (nodes, end) = machine.finish();
                Ok((Self { source: Arc::clone(source), nodes, root }, end))
            }
            Err(fault) => Err(fault.at(source.path(), machine.instruction(), rewrite)),
        }
    }

    /// The value that the pickle stands for.
    pub fn root(&self) -> Value<'_> {
        self.value(self.root)
    }

    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }
}
