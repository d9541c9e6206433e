//! Runs told to a real MLflow server, which is absent at first, is killed, started again and slow: in the end its own
//! interface returns every point of the journal, none twice. `scripts/mlflow_test.sh` brings the server; without it the
//! tests say loudly that they skip.

mod demo_runs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use demo_runs::{Folder, TINY, folders};
use serde_json::Value;
use vlp::track::{Lock, What, read, sha256_of_file};

/// Longest time for a server or a run to do what it should.
const PATIENCE: Duration = Duration::from_secs(240);

/// `mlflow server` on a free port of 127.0.0.1, on a database and a store in a folder that survives it.
struct Server {
    child: Option<Child>,
    program: PathBuf,
    folder: PathBuf,
    port: u16,
}

impl Server {
    fn new(folder: &Folder) -> Option<Self> {
        let Some(program) = std::env::var_os("VLP_MLFLOW_BIN") else {
            eprintln!("SKIPPED: scripts/mlflow_test.sh installs an MLflow server for this test");
            return None;
        };
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = folder.path("server");
        std::fs::create_dir(&folder).unwrap();
        Some(Self { child: None, program: program.into(), folder, port })
    }

    fn start(&mut self) {
        let log = std::fs::File::options().append(true).create(true).open(self.folder.join("log")).unwrap();
        let store = format!("sqlite:///{}", self.folder.join("mlflow.db").display());
        let mut command = Command::new(&self.program);
        command
            .args(["server", "--backend-store-uri", &store, "--host", "127.0.0.1", "--workers", "1"])
            .args(["--port", &self.port.to_string(), "--artifacts-destination"])
            .arg(self.folder.join("store"))
            .env_remove("MLFLOW_TRACKING_URI")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        // Its own group: the server's workers end with it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        self.child = Some(command.spawn().unwrap());
        wait_for("the server", || ureq::get(&format!("{}/health", self.uri())).call().is_ok());
    }

    fn signal(&self, number: i32) {
        if let Some(child) = &self.child {
            // SAFETY: kill has no memory effects; the process was not waited for.
            unsafe { libc::kill(-(child.id() as i32), number) };
        }
    }

    fn kill(&mut self) {
        self.signal(libc::SIGCONT);
        self.signal(libc::SIGKILL);
        if let Some(mut child) = self.child.take() {
            child.wait().unwrap();
        }
    }

    fn uri(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn get(&self, call: &str, query: &[(&str, &str)]) -> Value {
        let mut request = ureq::get(&format!("{}/api/2.0/mlflow/{call}", self.uri()));
        for (name, value) in query {
            request = request.query(name, value);
        }
        serde_json::from_str(&request.call().unwrap().into_string().unwrap()).unwrap()
    }

    /// All runs of an MLflow experiment.
    fn runs(&self, experiment: &str) -> Vec<Value> {
        let found = self.get("experiments/get-by-name", &[("experiment_name", experiment)]);
        let id = found["experiment"]["experiment_id"].as_str().unwrap().to_owned();
        let body = serde_json::json!({ "experiment_ids": [id], "max_results": 100 });
        let answer = ureq::post(&format!("{}/api/2.0/mlflow/runs/search", self.uri()))
            .set("Content-Type", "application/json")
            .send_string(&body.to_string())
            .unwrap();
        let answer: Value = serde_json::from_str(&answer.into_string().unwrap()).unwrap();
        answer["runs"].as_array().cloned().unwrap_or_default()
    }

    /// Step, time and value of every point that the server has, by key, as often as it has them.
    fn points(&self, run: &Value) -> Points {
        let id = run["info"]["run_id"].as_str().unwrap();
        let keys = run["data"]["metrics"].as_array().unwrap().iter().map(|m| m["key"].as_str().unwrap());
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

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

type Points = BTreeMap<String, Vec<(i64, i64, u64)>>;

fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !ready() {
        assert!(Instant::now() < deadline, "never came: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The same of the journal.
fn journaled(run: &Path) -> Points {
    let mut points = Points::new();
    for entry in read(&run.join("journal.jsonl")).unwrap() {
        if let What::Metric { name, value, step, .. } = entry.what {
            points.entry(name).or_default().push((step as i64, entry.time.as_millisecond(), value.to_bits()));
        }
    }
    points.values_mut().for_each(|points| points.sort_unstable());
    points
}

fn number_of(points: &Points) -> usize {
    points.values().map(Vec::len).sum()
}

/// Arguments of `vlp`, told where the server is.
fn command(folder: &Folder, uri: &str, args: &[&str]) -> Command {
    let mut command = folder.command(args);
    command
        .env("MLFLOW_TRACKING_URI", uri)
        .env("MLFLOW_EXPERIMENT_NAME", "demo world")
        .env("MLFLOW_TRACKING_TOKEN", "t0ken-of-this-test")
        .stdin(Stdio::null());
    command
}

fn sync(folder: &Folder, server: &Server) -> String {
    let output = command(folder, &server.uri(), &["track", "sync"]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    text
}

fn tag(run: &Value, key: &str) -> String {
    let tags = run["data"]["tags"].as_array().unwrap();
    tags.iter().find(|tag| tag["key"] == key).map_or("", |tag| tag["value"].as_str().unwrap()).to_owned()
}

#[test]
fn a_run_with_a_server_all_along_needs_no_sync() {
    let folder = Folder::new();
    let Some(mut server) = Server::new(&folder) else { return };
    server.start();
    let set = ["--set", "track.upload_best_checkpoint=true", "--set", "track.system_interval_s=1"];
    let args = [&["run", "tiny.toml"][..], &set].concat();
    let output = command(&folder, &server.uri(), &args).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(!text.contains("track sync"), "{text}");
    let run = folder.run("tiny");
    let runs = server.runs("demo world");
    assert_eq!(runs.len(), 1);
    let told = &runs[0];
    assert_eq!(server.points(told), journaled(&run));
    assert_eq!(told["info"]["status"], "FINISHED");
    let name = format!("tiny/{}", run.file_name().unwrap().to_str().unwrap());
    assert_eq!(told["info"]["run_name"], name.as_str());
    let lock = Lock::load(&run.join("run.lock.toml")).unwrap();
    assert_eq!(tag(told, "vlp.lock_sha256"), sha256_of_file(&run.join("run.lock.toml")).unwrap());
    assert_eq!(tag(told, "vlp.data_fingerprint"), lock.data_fingerprint);
    let params: BTreeMap<&str, &str> = told["data"]["params"]
        .as_array()
        .unwrap()
        .iter()
        .map(|param| (param["key"].as_str().unwrap(), param["value"].as_str().unwrap_or("")))
        .collect();
    assert_eq!(params.len(), vlp::config::flatten(&lock.settings).len());
    assert_eq!((params["train.learning_rate"], params["experiment.name"]), ("0.001", "tiny"));

    // The store has the bytes of the files.
    let id = [told["info"]["experiment_id"].as_str().unwrap(), told["info"]["run_id"].as_str().unwrap()];
    let store = server.folder.join("store").join(id[0]).join(id[1]).join("artifacts");
    let mut stored = demo_runs::files(&store);
    stored.retain(|name| !name.starts_with("predictions/"));
    let tables = ["tables/tiny.csv", "tables/tiny.json", "tables/tiny.md"];
    assert_eq!(stored, [&["checkpoints/best/model.safetensors", "run.lock.toml", "scores.json"][..], &tables].concat());
    let predictions: Vec<String> = demo_runs::files(&store.join("predictions"));
    assert_eq!(predictions, demo_runs::files(&run.join("predictions")));
    let best = std::fs::read(store.join("checkpoints/best/model.safetensors")).unwrap();
    let epochs = folders(&run.join("checkpoints"));
    assert!(epochs.iter().any(|epoch| std::fs::read(epoch.join("model.safetensors")).unwrap() == best));

    let relative = run.strip_prefix(folder.path("")).unwrap().display().to_string();
    assert_eq!(sync(&folder, &server), format!("sync  {relative}: 0 points, 0 files\n"));
    for file in demo_runs::files(&run) {
        let bytes = std::fs::read(run.join(&file)).unwrap();
        let secret = b"t0ken-of-this-test";
        assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{file} holds the token");
    }
}

#[test]
fn a_server_that_is_absent_killed_slow_and_back_gets_every_point_once_in_one_run() {
    let folder = Folder::new();
    let Some(mut server) = Server::new(&folder) else { return };
    let text = TINY.split("[[paper]]").next().unwrap().replace("splits = [\"test\"]", "splits = []");
    folder.write("tiny.toml", text.replace("epochs = 2", "epochs = 4000"));
    let args = ["run", "tiny.toml", "-q", "--set", "select.split=\"\"", "--set", "train.checkpoint_every_steps=50"];
    let uri = server.uri();
    let start = || command(&folder, &uri, &args).stderr(Stdio::null()).spawn().unwrap();
    let mut runner = start();
    wait_for("the first step", || {
        let runs = folder.path("runs/tiny");
        runs.is_dir()
            && folders(&runs).pop().is_some_and(|run| {
                std::fs::read_to_string(run.join("journal.jsonl")).unwrap_or_default().contains("train/loss")
            })
    });
    let run = folder.run("tiny");
    let note = |run: &Path| std::fs::read_to_string(run.join("mlflow.json")).unwrap_or_default();
    let sent = |run: &Path| {
        let value: Value = serde_json::from_str(&note(run)).unwrap_or_default();
        let servers = value["servers"].as_object().cloned().unwrap_or_default();
        servers.values().next().and_then(|progress| progress["journal_bytes"].as_u64()).unwrap_or(0)
    };
    assert_eq!(sent(&run), 0);
    server.start();
    wait_for("points at a server that came late", || sent(&run) > 0);
    server.kill();
    server.start();
    let before = sent(&run);
    wait_for("points after the server was killed", || sent(&run) > before);
    // Longer than a call may take: the sink gives up on calls that arrive later all the same.
    server.signal(libc::SIGSTOP);
    std::thread::sleep(Duration::from_secs(17));
    server.signal(libc::SIGCONT);
    let before = sent(&run);
    wait_for("points after the server fell silent", || sent(&run) > before);

    // The runner is killed outright, then the run goes on without a server, and is stopped.
    runner.kill().unwrap();
    runner.wait().unwrap();
    server.kill();
    let mut runner = start();
    let journal = |run: &Path| number_of(&journaled(run));
    let before = journal(&run);
    wait_for("steps of the resumed run", || journal(&run) > before + 50);
    assert_eq!(folder.vlp(&["stop", "tiny"]).status.code(), Some(0));
    assert_eq!(runner.wait().unwrap().code(), Some(75));
    server.start();
    let said = sync(&folder, &server);
    assert!(said.starts_with("sync  runs/tiny/"), "{said}");
    let again = sync(&folder, &server);
    assert!(again.ends_with(": 0 points, 0 files\n"), "{again}");

    let runs = server.runs("demo world");
    assert_eq!(runs.len(), 1, "a resumed run goes on in the same MLflow run");
    assert_eq!(runs[0]["info"]["status"], "KILLED");
    let (told, written) = (server.points(&runs[0]), journaled(&run));
    assert_eq!(number_of(&told), number_of(&written));
    assert_eq!(told, written);
    eprintln!("{} points", number_of(&written));
}

#[test]
fn sync_without_a_server_says_what_is_missing() {
    let folder = Folder::new();
    let unset = folder.command(&["track", "sync"]).env_remove("MLFLOW_TRACKING_URI").output().unwrap();
    assert_eq!(unset.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(unset.stderr).unwrap(),
        "error: MLFLOW_TRACKING_URI is not set\n  help: set it to the address of the server, e.g. `export MLFLOW_TRACKING_URI=http://127.0.0.1:5000`\n"
    );
    let file = folder.command(&["track", "sync"]).env("MLFLOW_TRACKING_URI", "file://u:pw@/mlruns").output().unwrap();
    assert_eq!(file.status.code(), Some(2));
    let text = String::from_utf8(file.stderr).unwrap();
    assert!(text.starts_with("error: MLFLOW_TRACKING_URI is `file:///mlruns`; expected an address such as"), "{text}");
}
