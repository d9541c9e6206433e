//! What a run is, in MLflow's terms: what its journal says of it, and the tags that MLflow itself reads.

use serde_json::Value;

use super::super::describe as said;
use super::super::{Lock, RunDir, TrackError, sha256_of_file};
use super::points::{self, Pair};

pub(super) use said::{IDENTITY, name};

/// Characters of a parameter at most.
const PARAM: usize = 6000;

/// Characters of a tag at most; other than for parameters, this is the limit of old servers.
const TAG: usize = 5000;

/// A parameter as MLflow takes it.
pub(super) fn param(key: &str, value: &Value) -> Pair {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    (points::name_for(key), cut(&text, PARAM))
}

/// A tag as MLflow takes it.
pub(super) fn tag(key: &str, value: &str) -> Pair {
    (points::name_for(key), cut(value, TAG))
}

/// What is known of a run before any of its journal is sent.
pub(super) struct Description {
    /// [`IDENTITY`]'s value.
    pub(super) identity: String,
    /// The tags of the run, and MLflow's own.
    pub(super) tags: Vec<Pair>,
    /// The parameters that the journal does not hold: all of an earlier version's run, else none.
    pub(super) params: Vec<Pair>,
}

impl Description {
    /// From the beginning of the journal, or from the lock where the journal does not say it. `parent` is the id of the
    /// MLflow run above it; empty for none.
    pub(super) fn of(run: &RunDir, lock: &Lock, parent: &str) -> Result<Self, TrackError> {
        let journaled = points::next(&run.journal_file(), 0)?;
        let identity = journaled.tags.iter().find(|(key, _)| key == IDENTITY).map(|(_, value)| value.clone());
        let (identity, mut tags, params) = match identity {
            Some(identity) => (identity, journaled.tags, Vec::new()),
            None => {
                let identity = sha256_of_file(&run.lock_file())?;
                let tags = said::tags(run, lock, identity.clone()).iter().map(|(key, value)| tag(key, value)).collect();
                (identity, tags, said::params(lock).iter().map(|(key, value)| param(key, value)).collect())
            }
        };
        let settings = &lock.settings;
        let own = [
            ("mlflow.parentRunId", parent),
            ("mlflow.source.name", &lock.file),
            ("mlflow.source.git.commit", &lock.code.commit),
            ("mlflow.note.content", &settings.experiment.description),
        ];
        tags.extend(own.iter().filter(|(_, value)| !value.is_empty()).map(|(key, value)| tag(key, value)));
        Ok(Self { identity, tags, params })
    }
}

fn cut(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}
