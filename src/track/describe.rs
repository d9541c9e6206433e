//! What a run is, as the journal says it once: parameters from its resolved settings, tags from the rest of its lock.
//!
//! Journals of earlier versions lack these lines; then the same is said from the lock. How a server wants it is for
//! `mlflow` to know.

use serde_json::Value;

use super::{Entry, Lock, RunDir};
use crate::config;

/// Tag by which a run is found again: SHA-256 of its lock file, which holds the time, the machine, and all it is.
pub(super) const IDENTITY: &str = "vlp.lock_sha256";

/// The journal lines of a run whose lock file has this hash: tags first.
pub(super) fn entries(run: &RunDir, lock: &Lock, identity: String) -> Vec<Entry> {
    let tags = tags(run, lock, identity).into_iter().map(|(key, value)| Entry::tag(key, value));
    tags.chain(params(lock).into_iter().map(|(key, value)| Entry::param(key, value))).collect()
}

/// All resolved settings, flattened: dotted key and value.
pub(super) fn params(lock: &Lock) -> Vec<(String, Value)> {
    config::flatten(&lock.settings).into_iter().collect()
}

/// `<experiment>/<run id>`.
pub(super) fn name(run: &RunDir, lock: &Lock) -> String {
    format!("{}/{}", lock.settings.experiment.name, run.id())
}

/// The tags that are not empty, [`IDENTITY`] first.
pub(super) fn tags(run: &RunDir, lock: &Lock, identity: String) -> Vec<(&'static str, String)> {
    let (parent, parent_hash) = match &lock.parent {
        Some(parent) if parent.run.is_empty() => (parent.checkpoint.display().to_string(), parent.sha256.clone()),
        Some(parent) => (format!("{}/{}", parent.experiment, parent.run), parent.sha256.clone()),
        None => (String::new(), String::new()),
    };
    let mut tags = vec![
        (IDENTITY, identity),
        ("vlp.run", name(run, lock)),
        ("vlp.experiment", lock.settings.experiment.name.clone()),
        ("vlp.version", lock.version.clone()),
        ("vlp.commit", lock.code.commit.clone()),
        ("vlp.diff", lock.code.diff.clone()),
        ("vlp.settings_hash", lock.settings_hash.clone()),
        ("vlp.data_fingerprint", lock.data_fingerprint.clone()),
        ("vlp.host", lock.host.clone()),
        ("vlp.device", lock.device.clone()),
        ("vlp.world_size", lock.world_size.to_string()),
        ("vlp.parent", parent),
        ("vlp.parent_sha256", parent_hash),
    ];
    tags.retain(|(_, value)| !value.is_empty());
    tags
}
