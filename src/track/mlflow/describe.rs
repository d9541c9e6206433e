//! What a run is, in MLflow's terms: parameters from its resolved settings, tags from the rest of its lock.

use serde_json::Value;

use super::super::{Lock, RunDir, TrackError, sha256_of_file};
use super::points::name_for;
use crate::config;

/// Tag by which a run is found again: its lock holds the time, the machine, and all it is.
pub(super) const IDENTITY: &str = "vlp.lock_sha256";

/// Characters of a parameter at most.
const PARAM: usize = 6000;

/// Characters of a tag at most; other than for parameters, this is the limit of old servers.
const TAG: usize = 5000;

/// All resolved settings, flattened: dotted key and value.
pub(super) fn params(lock: &Lock) -> Vec<(String, String)> {
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let flat = config::flatten(&lock.settings).into_iter();
    flat.map(|(key, value)| (name_for(&key), cut(&text(value), PARAM))).collect()
}

/// Name of the MLflow run: `<experiment>/<run id>`.
pub(super) fn name(run: &RunDir, lock: &Lock) -> String {
    format!("{}/{}", lock.settings.experiment.name, run.id())
}

/// The tags, [`IDENTITY`] first.
pub(super) fn tags(run: &RunDir, lock: &Lock) -> Result<Vec<(String, String)>, TrackError> {
    let settings = &lock.settings;
    let (parent, parent_hash) = match &lock.parent {
        Some(parent) if parent.run.is_empty() => (parent.checkpoint.display().to_string(), parent.sha256.clone()),
        Some(parent) => (format!("{}/{}", parent.experiment, parent.run), parent.sha256.clone()),
        None => (String::new(), String::new()),
    };
    let tags = [
        (IDENTITY, sha256_of_file(&run.lock_file())?),
        ("vlp.run", name(run, lock)),
        ("vlp.experiment", settings.experiment.name.clone()),
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
        ("mlflow.parentRunId", settings.track.parent_run.clone()),
        ("mlflow.source.name", lock.file.clone()),
        ("mlflow.source.git.commit", lock.code.commit.clone()),
        ("mlflow.note.content", settings.experiment.description.clone()),
    ];
    let given = tags.into_iter().filter(|(_, value)| !value.is_empty());
    Ok(given.map(|(key, value)| (key.to_owned(), cut(&value, TAG))).collect())
}

fn cut(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}
