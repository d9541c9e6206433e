//! Files that are wrong, foreign or hostile: each is a clear error, none runs anything, exhausts memory or panics.
//!
//! All files are made byte by byte. Sound files of unusual forms are in `sound.rs`; random ones in `random.rs`.

#[path = "hostile_pickles/containers.rs"]
mod containers;
#[path = "hostile_pickles/damaged.rs"]
mod damaged;
#[path = "hostile_pickles/make.rs"]
mod make;
#[path = "hostile_pickles/other_files.rs"]
mod other_files;
#[path = "hostile_pickles/random.rs"]
mod random;
#[path = "hostile_pickles/refused.rs"]
mod refused;
#[path = "hostile_pickles/sound.rs"]
mod sound;

use std::path::Path;

use vlp::formats::{Array, FormatError, Pickle, StateDict};

fn checkpoint(bytes: &[u8]) -> Result<StateDict, FormatError> {
    StateDict::from_bytes(Path::new("hostile.bin"), bytes.to_vec())
}

#[track_caller]
fn error<T>(result: Result<T, FormatError>) -> String {
    match result {
        Ok(_) => panic!("read without an error"),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn checkpoint_error(bytes: &[u8]) -> String {
    error(checkpoint(bytes))
}

#[track_caller]
fn array_error(bytes: &[u8]) -> String {
    error(Array::from_bytes(Path::new("fc7_w.pkl"), bytes.to_vec()))
}

#[track_caller]
fn objects_error(bytes: &[u8]) -> String {
    error(Pickle::objects_from_bytes(Path::new("imdb.npy"), bytes.to_vec()))
}
