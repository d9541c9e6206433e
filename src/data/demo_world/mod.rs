//! The demo world: a synthetic but learnable data root for every task, in the layouts of the original data.
//!
//! Scenes of coloured objects (`scene`) become captions (`grammar`), region features and boxes (`render`) and questions
//! (`questions`); `plan` gives each image its id, split and scene, and `write` puts all of it on disk. The same seed
//! gives the same bytes. It reads nothing that it wrote but its own marker file, and stands alone: no other module is used.

mod files;
mod grammar;
mod npy;
mod plan;
mod questions;
mod render;
mod scene;
mod write;

use std::path::PathBuf;

pub use grammar::{captions, tokens};
pub use plan::{Picture, Sizes, World, WorldOptions, words};
pub use questions::{AnswerType, PEOPLE, Question, ROUNDS, answer_vocabulary};
pub use render::{CANVAS, Geometry, Prototypes, Regions, Shows};
pub use scene::{COLORS, Collection, Family, Group, KINDS, Kind, PLACES, Place, Relation, Scene, SceneKey, Size};
pub use write::{MARKER, Outcome, Summary, VERSION, vocabulary, write};

/// Why no demo world was written.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The folder holds something else.
    #[error(
        "{} is not empty and is not a demo world (it holds `{entry}`)\n  help: name a new or empty folder with --out",
        folder.display()
    )]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// One of the files in it.
        entry: String,
    },
    /// The folder holds a demo world made with other options.
    #[error(
        "{} holds another demo world: found {found}, expected {expected}\n  help: delete that folder, or name another one with --out",
        folder.display()
    )]
    Different {
        /// The folder.
        folder: PathBuf,
        /// Version, seed and size of the world that is there.
        found: String,
        /// Version, seed and size that were asked for.
        expected: String,
    },
    /// A file of an existing demo world is missing or has another size.
    #[error(
        "{} was changed after `vlp data demo` wrote it: expected {expected} bytes, found {found}\n  help: delete the folder {} and run the command again",
        file.display(), folder.display()
    )]
    Damaged {
        /// The folder.
        folder: PathBuf,
        /// The file.
        file: PathBuf,
        /// Size in bytes when it was written.
        expected: u64,
        /// Size now, or `no file`.
        found: String,
    },
    /// The marker file cannot be understood.
    #[error("{} is not a marker file of a demo world: {reason}\n  help: delete that folder, or name another one with --out", file.display())]
    Marker {
        /// The marker file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The path cannot name a new folder.
    #[error("{} cannot be the folder of a demo world: {reason}\n  help: name a new or empty folder with --out", folder.display())]
    BadFolder {
        /// What was given.
        folder: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("cannot write {}: {source}\n  help: check free space and permissions, or name another folder with --out", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// An HDF5 file cannot be written.
    #[error("cannot write {}: {source}\n  help: check free space and permissions, or name another folder with --out", path.display())]
    Hdf5 {
        /// The file.
        path: PathBuf,
        /// What the HDF5 library says.
        source: hdf5::Error,
    },
}
