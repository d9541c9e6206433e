//! The calls of MLflow's REST interface that the sink needs, and what their failures mean.
//!
//! Nothing is tried twice here: whether to ask again is for the sink to say.

use std::cell::Cell;
use std::io::Read;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use ureq::ErrorKind;

use super::{MlflowError, Server};

/// Time for a connection to come about.
const CONNECT: Duration = Duration::from_secs(5);

/// Time for a call.
const CALL: Duration = Duration::from_secs(15);

/// Longest answer that is read.
const ANSWER_BYTES: u64 = 256 << 20;

/// Points of a history that are asked for at once.
const HISTORY_PAGE: &str = "25000";

/// Path of the tracking calls.
const API: &str = "api/2.0/mlflow/";

/// Path of the files, where the server takes them for its store.
const FILES: &str = "api/2.0/mlflow-artifacts/artifacts/";

/// The connection to one server.
pub(super) struct Client {
    agent: ureq::Agent,
    server: Server,
    /// No call goes on after this moment.
    deadline: Cell<Option<Instant>>,
}

/// Key, step and time (milliseconds) of a point that a server has.
pub(super) type Known = (String, i64, i64);

impl Client {
    pub(super) fn new(server: Server) -> Self {
        let agent = ureq::AgentBuilder::new()
            .timeout_connect(CONNECT)
            .user_agent(concat!("vlp/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent, server, deadline: Cell::new(None) }
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// From now on calls end at `deadline`, and none begins after it.
    pub(super) fn set_deadline(&self, deadline: Option<Instant>) {
        self.deadline.set(deadline);
    }

    /// Id of the experiment with this name; made where there is none.
    pub(super) fn experiment(&self, name: &str) -> Result<String, MlflowError> {
        let found = self.get("experiments/get-by-name", &[("experiment_name", name)]);
        let answer = match found {
            Err(MlflowError::Refused { status: 404, .. }) => {
                return match self.post("experiments/create", &json!({ "name": name })) {
                    Ok(made) => self.text(&made, "experiments/create", "/experiment_id"),
                    // Someone else was faster.
                    Err(MlflowError::Refused { status: 400, .. }) => {
                        let found = self.get("experiments/get-by-name", &[("experiment_name", name)])?;
                        self.text(&found, "experiments/get-by-name", "/experiment/experiment_id")
                    }
                    Err(error) => Err(error),
                };
            }
            other => other?,
        };
        self.text(&answer, "experiments/get-by-name", "/experiment/experiment_id")
    }

    /// When the server's store was made, in milliseconds: the age of the experiment that each store begins with.
    pub(super) fn store_born(&self) -> Result<i64, MlflowError> {
        let path = "experiments/get";
        let answer = self.get(path, &[("experiment_id", "0")])?;
        let time = answer.pointer("/experiment/creation_time").and_then(whole);
        time.ok_or_else(|| self.strange(path, "the answer has no `/experiment/creation_time`"))
    }

    /// The oldest run of an experiment that has this tag.
    pub(super) fn find_run(&self, experiment: &str, tag: &str, value: &str) -> Result<Option<String>, MlflowError> {
        let filter = format!("tags.`{tag}` = '{value}'");
        let order = ["attributes.start_time ASC"];
        let body = json!({ "experiment_ids": [experiment], "filter": filter, "max_results": 1, "order_by": order });
        let answer = self.post("runs/search", &body)?;
        match answer.pointer("/runs/0/info") {
            Some(info) => self.text(info, "runs/search", "/run_id").map(Some),
            None => Ok(None),
        }
    }

    /// Makes a run; `tags` are pairs of key and value, `start` is in milliseconds.
    pub(super) fn create_run(
        &self,
        experiment: &str,
        name: &str,
        start: i64,
        tags: &[(String, String)],
    ) -> Result<String, MlflowError> {
        let tags = pairs(tags);
        let body = json!({ "experiment_id": experiment, "run_name": name, "start_time": start, "tags": tags });
        let answer = self.post("runs/create", &body)?;
        self.text(&answer, "runs/create", "/run/info/run_id")
    }

    /// Where the files of a run lie, as the server says it.
    pub(super) fn artifact_uri(&self, run: &str) -> Result<String, MlflowError> {
        let answer = self.get("runs/get", &[("run_id", run)])?;
        self.text(&answer, "runs/get", "/run/info/artifact_uri")
    }

    /// Records metrics, parameters and tags of a run in one go.
    pub(super) fn log_batch(
        &self,
        run: &str,
        metrics: &[Value],
        params: &[(String, String)],
        tags: &[(String, String)],
    ) -> Result<(), MlflowError> {
        let (params, tags) = (pairs(params), pairs(tags));
        let body = json!({ "run_id": run, "metrics": metrics, "params": params, "tags": tags });
        self.post("runs/log-batch", &body).map(drop)
    }

    /// Sets the state of a run; `end` is in milliseconds.
    pub(super) fn update_run(&self, run: &str, status: &str, end: Option<i64>) -> Result<(), MlflowError> {
        let mut body = json!({ "run_id": run, "status": status });
        if let Some(end) = end {
            body["end_time"] = end.into();
        }
        self.post("runs/update", &body).map(drop)
    }

    /// All points that the server has of one metric.
    pub(super) fn history(&self, run: &str, key: &str) -> Result<Vec<Known>, MlflowError> {
        let path = "metrics/get-history";
        let mut known = Vec::new();
        let mut page = String::new();
        loop {
            let mut query = vec![("run_id", run), ("metric_key", key), ("max_results", HISTORY_PAGE)];
            if !page.is_empty() {
                query.push(("page_token", &page));
            }
            let answer = self.get(path, &query)?;
            for point in answer.get("metrics").and_then(Value::as_array).into_iter().flatten() {
                let number = |name: &str| point.get(name).map_or(Some(0), whole);
                let point = number("step").zip(number("timestamp"));
                let (step, time) = point.ok_or_else(|| self.strange(path, "a point without step and timestamp"))?;
                known.push((key.to_owned(), step, time));
            }
            match answer.get("next_page_token").and_then(Value::as_str).filter(|token| !token.is_empty()) {
                Some(token) if token != page => page = token.to_owned(),
                _ => return Ok(known),
            }
        }
    }

    /// Sends `size` bytes as the file `path` (below the store's root).
    pub(super) fn put(&self, path: &str, size: u64, content: impl Read, limit: Duration) -> Result<(), MlflowError> {
        let path = format!("{FILES}{}", encoded(path));
        let request = self.request("PUT", &path, limit)?;
        let request = request.set("Content-Type", "application/octet-stream").set("Content-Length", &size.to_string());
        request.send(content.take(size)).map(drop).map_err(|error| self.failure(&path, error))
    }

    fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, MlflowError> {
        let mut request = self.request("GET", &format!("{API}{path}"), CALL)?;
        for (name, value) in query {
            request = request.query(name, value);
        }
        request.call().map_err(|error| self.failure(path, error)).and_then(|answer| self.json(path, answer))
    }

    fn post(&self, path: &str, body: &Value) -> Result<Value, MlflowError> {
        let request = self.request("POST", &format!("{API}{path}"), CALL)?;
        let sent = request.set("Content-Type", "application/json").send_string(&body.to_string());
        sent.map_err(|error| self.failure(path, error)).and_then(|answer| self.json(path, answer))
    }

    fn request(&self, method: &str, path: &str, limit: Duration) -> Result<ureq::Request, MlflowError> {
        let left = self.deadline.get().map_or(limit, |at| at.saturating_duration_since(Instant::now()).min(limit));
        if left.is_zero() {
            return Err(self.unreachable("there was no time left"));
        }
        let request = self.agent.request(method, &format!("{}/{path}", self.server.address())).timeout(left);
        Ok(match self.server.authorization() {
            Some(header) => request.set("Authorization", header),
            None => request,
        })
    }

    fn json(&self, path: &str, answer: ureq::Response) -> Result<Value, MlflowError> {
        let mut bytes = Vec::new();
        let read = answer.into_reader().take(ANSWER_BYTES).read_to_end(&mut bytes);
        read.map_err(|error| self.strange(path, &error.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|_| self.strange(path, "the answer is no JSON"))
    }

    fn text(&self, answer: &Value, path: &str, pointer: &str) -> Result<String, MlflowError> {
        let text = answer.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
        text.map(str::to_owned).ok_or_else(|| self.strange(path, &format!("the answer has no `{pointer}`")))
    }

    fn failure(&self, path: &str, error: ureq::Error) -> MlflowError {
        let (status, answer) = match error {
            ureq::Error::Status(status, answer) => (status, answer),
            ureq::Error::Transport(error) => {
                let said = self.server.without_secrets(&cause(&error));
                return match error.kind() {
                    ErrorKind::Dns | ErrorKind::ConnectionFailed => self.unreachable(&said),
                    _ => self.strange(path, &said),
                };
            }
        };
        let mut text = String::new();
        // What cannot be read adds nothing to the status.
        let _ = answer.into_reader().take(1 << 16).read_to_string(&mut text);
        let message = serde_json::from_str::<Value>(&text).ok();
        let message = message.as_ref().and_then(|m| m.get("message")).and_then(Value::as_str).unwrap_or(&text);
        let first = message.lines().next().unwrap_or("").chars().take(300).collect::<String>();
        let said = self.server.without_secrets(&first);
        if status >= 500 || matches!(status, 408 | 425 | 429) {
            return self.strange(path, format!("{status} {said}").trim_end());
        }
        let help = match status {
            401 | 403 => "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
            404 => "check that MLFLOW_TRACKING_URI names an MLflow server, and that the run was not deleted there",
            _ => "see the server's log; `track.mlflow = \"off\"` keeps a run away from it",
        };
        MlflowError::Refused { server: self.address(), path: path.into(), status, said, help }
    }

    fn unreachable(&self, said: &str) -> MlflowError {
        MlflowError::Unreachable { server: self.address(), said: said.into() }
    }

    fn strange(&self, path: &str, said: &str) -> MlflowError {
        MlflowError::Failed { server: self.address(), path: path.into(), said: said.into() }
    }

    fn address(&self) -> String {
        self.server.address().to_owned()
    }
}

/// Why a call came to nothing, without its address.
fn cause(error: &ureq::Transport) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string);
    let parts: Vec<String> = error.message().map(str::to_owned).into_iter().chain(source).collect();
    if parts.is_empty() { error.kind().to_string() } else { parts.join(": ") }
}

/// A whole number of 64 bits, which comes as a number or as a text.
fn whole(value: &Value) -> Option<i64> {
    value.as_str().map_or_else(|| value.as_i64(), |text| text.parse().ok())
}

fn pairs(pairs: &[(String, String)]) -> Value {
    pairs.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect()
}

/// A path for an address: all but letters, digits, `-._~` and `/` percent-encoded.
fn encoded(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let text = path.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") });
    text.collect()
}
