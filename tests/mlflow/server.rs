//! A real MLflow server for a test, what its interface says, and what a journal says in the same terms.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use vlp::track::{What, read};

use super::demo_runs::Folder;

/// Longest time for a server or a run to do what it should.
const PATIENCE: Duration = Duration::from_secs(240);

/// MLflow's program; without it the test is skipped, which it says.
pub fn program() -> Option<PathBuf> {
    let program = std::env::var_os("VLP_MLFLOW").map(PathBuf::from);
    if program.is_none() {
        eprintln!("SKIPPED: scripts/mlflow_test.sh installs an MLflow server for this test");
    }
    program
}

/// `mlflow server` on a free port of 127.0.0.1, on a database and a store in a folder that survives it.
pub struct Server {
    child: Option<Child>,
    program: PathBuf,
    pub folder: PathBuf,
    api: Api,
}

impl Server {
    pub fn new(folder: &Folder) -> Option<Self> {
        let program = program()?;
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = folder.path("server");
        std::fs::create_dir(&folder).unwrap();
        Some(Self { child: None, program, folder, api: Api(format!("http://127.0.0.1:{port}")) })
    }

    pub fn start(&mut self) {
        let log = std::fs::File::options().append(true).create(true).open(self.folder.join("log")).unwrap();
        let store = format!("sqlite:///{}", self.folder.join("mlflow.db").display());
        let mut command = Command::new(&self.program);
        command
            .args(["server", "--backend-store-uri", &store, "--host", "127.0.0.1", "--workers", "1"])
            .args(["--port", self.uri().rsplit(':').next().unwrap(), "--artifacts-destination"])
            .arg(self.folder.join("store"))
            .env_remove("MLFLOW_TRACKING_URI")
            .envs([("MLFLOW_DISABLE_TELEMETRY", "true"), ("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        // Its own group: the server's workers end with it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        self.child = Some(command.spawn().unwrap());
        wait_for("the server", || ureq::get(&format!("{}/health", self.uri())).call().is_ok());
    }

    pub fn signal(&self, number: i32) {
        if let Some(child) = &self.child {
            // SAFETY: kill has no memory effects; the process was not waited for.
            unsafe { libc::kill(-(child.id() as i32), number) };
        }
    }

    pub fn kill(&mut self) {
        self.signal(libc::SIGCONT);
        self.signal(libc::SIGKILL);
        if let Some(mut child) = self.child.take() {
            child.wait().unwrap();
        }
    }

    pub fn api(&self) -> &Api {
        &self.api
    }

    pub fn uri(&self) -> String {
        self.api.0.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What the server at an address knows.
pub struct Api(pub String);

impl Api {
    pub fn get(&self, call: &str, query: &[(&str, &str)]) -> Value {
        let mut request = ureq::get(&format!("{}/api/2.0/mlflow/{call}", self.0));
        for (name, value) in query {
            request = request.query(name, value);
        }
        serde_json::from_str(&request.call().unwrap().into_string().unwrap()).unwrap()
    }

    /// All runs of an MLflow experiment.
    pub fn runs(&self, experiment: &str) -> Vec<Value> {
        let found = self.get("experiments/get-by-name", &[("experiment_name", experiment)]);
        let id = found["experiment"]["experiment_id"].as_str().unwrap().to_owned();
        let body = serde_json::json!({ "experiment_ids": [id], "max_results": 100 });
        let answer = ureq::post(&format!("{}/api/2.0/mlflow/runs/search", self.0))
            .set("Content-Type", "application/json")
            .send_string(&body.to_string())
            .unwrap();
        let answer: Value = serde_json::from_str(&answer.into_string().unwrap()).unwrap();
        answer["runs"].as_array().cloned().unwrap_or_default()
    }

    /// Step, time and value of every point that the server has, by key, as often as it has them.
    pub fn points(&self, run: &Value) -> Points {
        let id = run["info"]["run_id"].as_str().unwrap();
        let keys = run["data"]["metrics"].as_array().into_iter().flatten().map(|m| m["key"].as_str().unwrap());
        let of_key = |key: &str| {
            let answer = self.get("metrics/get-history", &[("run_id", id), ("metric_key", key)]);
            let points = answer["metrics"].as_array().unwrap().iter();
            let point = |m: &Value| {
                (
                    m["step"].as_i64().unwrap_or(0),
                    m["timestamp"].as_i64().unwrap(),
                    m["value"].as_f64().unwrap().to_bits(),
                )
            };
            let mut points: Vec<_> = points.map(point).collect();
            points.sort_unstable();
            (key.to_owned(), points)
        };
        keys.map(of_key).collect()
    }
}

/// Step, time and value of every point, by key.
pub type Points = BTreeMap<String, Vec<(i64, i64, u64)>>;

/// Waits until something is so.
pub fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !ready() {
        assert!(Instant::now() < deadline, "never came: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The same of the journal.
pub fn journaled(run: &Path) -> Points {
    let mut points = Points::new();
    for entry in read(&run.join("journal.jsonl")).unwrap() {
        if let What::Metric { name, value, step, .. } = entry.what {
            points.entry(name).or_default().push((step as i64, entry.time.as_millisecond(), value.to_bits()));
        }
    }
    points.values_mut().for_each(|points| points.sort_unstable());
    points
}

/// How many there are.
pub fn number_of(points: &Points) -> usize {
    points.values().map(Vec::len).sum()
}

/// The value of a tag of a run; empty without it.
pub fn tag(run: &Value, key: &str) -> String {
    let tags = run["data"]["tags"].as_array().unwrap();
    tags.iter().find(|tag| tag["key"] == key).map_or("", |tag| tag["value"].as_str().unwrap()).to_owned()
}
