//! File formats of other programs: PyTorch checkpoints, safetensors, and numpy's pickles, read without running any of them.
//!
//! A pickle is a program for a small stack machine. Here it is data: [`pickle`] knows the few constructors that tensors and
//! arrays are made of, and refuses every other one by name. Whatever a file claims (lengths, shapes, counts), memory stays
//! in proportion to its size, and a wrong file is an error that says where and why.
//!
//! Nothing here knows the model: [`mod@adapt`] is given the sizes that a checkpoint shall have. Writing checkpoints is done
//! elsewhere. A leaf: imports nothing from the rest of the crate.

pub mod error;

pub mod state_dict;

mod sniff;

mod pytorch;

mod zip;

mod safetensors_file;

pub mod pickle;

pub mod numpy;

pub mod element;

mod source;

pub mod adapt;

pub use adapt::{AdaptError, Adapted, Change, NamedTensor, Target, adapt, adapt_tensor};
pub use element::{ElementType, FloatType};
pub use error::FormatError;
pub use numpy::{Array, pickled_array, read_objects};
pub use pickle::{Pickle, Value};
pub use state_dict::{Container, Skipped, StateDict, TensorInfo, open};
