//! From settings to processes: what would run, with which environment and which needs, and how it is run here.
//!
//! Each rank is a process of this same program (`vlp worker --run DIR`), so nothing here knows how a model is trained.

pub mod local;
pub mod memory;
pub mod plan;
pub mod signals;
pub mod slurm;
pub mod supervise;
pub mod triage;

use std::path::PathBuf;

use crate::track::TrackError;

/// Why processes could not be run.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A record of the run could not be read or written, or another runner has the folder.
    #[error(transparent)]
    Track(#[from] TrackError),
    /// A process could not be started.
    #[error("cannot start rank {rank} (`{}`): {source}\n  help: check that the program is there and may be executed", program.display())]
    Spawn {
        /// The rank.
        rank: usize,
        /// The program.
        program: PathBuf,
        /// The answer of the operating system.
        source: std::io::Error,
    },
    /// The operating system refused to watch over the processes.
    #[error("cannot {action}: {source}\n  help: this is a limit of the operating system; see `ulimit -a`")]
    System {
        /// What was tried.
        action: &'static str,
        /// The answer of the operating system.
        source: std::io::Error,
    },
    /// A command of Slurm failed.
    #[error(
        "`{program}` failed: {said}\n  help: check the `[slurm]` section against what the cluster offers (`sinfo`, `sacctmgr show assoc`)"
    )]
    Scheduler {
        /// The command.
        program: &'static str,
        /// What it said.
        said: String,
    },
}
