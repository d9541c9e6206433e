//! Tells an MLflow server what the journal of a run holds: one MLflow run per run folder, every point exactly once.
//!
//! The sink reads; the journal stays the truth. `mlflow.json` in the run folder says, for each server, which MLflow run it
//! is and up to which byte of the journal all was accepted. What could not be sent stays for the next time. After a
//! failure that leaves open whether the server took something, the sink asks what it has before it sends again. The
//! process environment is for others to read; nothing is printed.

mod artifacts;
mod background;
mod client;
mod describe;
mod parent;
mod points;
mod progress;
mod server;
mod sink;
mod store;

pub use artifacts::Artifact;
pub use background::Background;
pub use parent::ParentRun;
pub use server::{Secret, Server};
pub use sink::Sink;
pub use store::Store;

use super::TrackError;

/// Why an MLflow server could not be told something. No text of it holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum MlflowError {
    /// The address is none of an MLflow server.
    #[error(
        "MLFLOW_TRACKING_URI is `{found}`; expected an address such as `http://127.0.0.1:5000`\n  help: start a server with `mlflow server`, and name it; files, databases and Databricks are not written to directly"
    )]
    Address {
        /// The address, without its credentials.
        found: String,
    },
    /// Nothing was sent: nobody listens, the name is unknown, or there was no time left.
    #[error(
        "cannot reach the MLflow server {server}: {said}\n  help: check MLFLOW_TRACKING_URI and the server; `vlp track sync` sends what is missing"
    )]
    Unreachable {
        /// The address, without its credentials.
        server: String,
        /// What happened.
        said: String,
    },
    /// The server failed or fell silent; it may have taken what was sent.
    #[error(
        "the MLflow server {server} failed at `{path}`: {said}\n  help: look at the server's log; `vlp track sync` sends what is missing"
    )]
    Failed {
        /// The address, without its credentials.
        server: String,
        /// The call.
        path: String,
        /// What happened.
        said: String,
    },
    /// The server will not take it; asking again does not help.
    #[error("the MLflow server {server} refused `{path}`: {status} {said}\n  help: {help}")]
    Refused {
        /// The address, without its credentials.
        server: String,
        /// The call.
        path: String,
        /// HTTP status.
        status: u16,
        /// The server's words.
        said: String,
        /// What to do.
        help: &'static str,
    },
    /// A record of the run could not be read or written.
    #[error(transparent)]
    Track(#[from] TrackError),
}

impl MlflowError {
    /// Whether the same call may succeed later.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Failed { .. })
    }
}
