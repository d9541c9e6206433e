//! The MLflow run under which the runs of a sweep stand: it has tags, a state, and no points of its own.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::client::Client;
use super::{MlflowError, Server};

/// Tag by which the run of a sweep is found again.
const IDENTITY: &str = "vlp.sweep_id";

/// Time for all calls of one occasion: a sweep does not wait for a server.
const TIME: Duration = Duration::from_secs(20);

/// The MLflow run of a sweep.
pub struct ParentRun {
    client: Client,
    id: String,
}

impl ParentRun {
    /// Finds the run whose identity is `identity` in the MLflow experiment `experiment`, or makes it under `name` as one
    /// that began at `start`.
    pub fn open(
        server: Server,
        experiment: &str,
        name: &str,
        identity: &str,
        start: Timestamp,
        tags: &[(String, String)],
    ) -> Result<Self, MlflowError> {
        let client = Client::new(server);
        client.set_deadline(Some(Instant::now() + TIME));
        let experiment = client.experiment(experiment)?;
        let mut all = vec![(IDENTITY.to_owned(), identity.to_owned())];
        all.extend(tags.iter().filter(|(_, value)| !value.is_empty()).cloned());
        let id = match client.find_run(&experiment, IDENTITY, identity)? {
            Some(id) => id,
            None => client.create_run(&experiment, name, start.as_millisecond(), &all)?,
        };
        Ok(Self { client, id })
    }

    /// Its id, which the runs below it name in `track.parent_run`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Records how the sweep stands: `tags`, and its state, which is an end when it `finished` at some time.
    pub fn stands(&self, finished: Option<Timestamp>, tags: &[(String, String)]) -> Result<(), MlflowError> {
        self.client.set_deadline(Some(Instant::now() + TIME));
        self.client.log_batch(&self.id, &[], &[], tags)?;
        let status = if finished.is_some() { "FINISHED" } else { "RUNNING" };
        self.client.update_run(&self.id, status, finished.map(Timestamp::as_millisecond))
    }
}
