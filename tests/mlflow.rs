//! Runs, sweeps and the dashboard told to a real MLflow server, which is absent at first, is killed, started again, slow, and
//! fails: in the end its own interface returns every point of the journals, none twice. `scripts/mlflow_test.sh` brings the
//! server; without it the tests say loudly that they skip.

#[path = "mlflow/dashboard.rs"]
mod dashboard;
mod demo_runs;
#[path = "mlflow/proxy.rs"]
mod proxy;
#[path = "mlflow/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use dashboard::Dashboard;
use demo_runs::{Folder, TINY, folders};
use proxy::{Fault, Proxy};
use serde_json::Value;
use server::{Api, Server, journaled, number_of, tag, wait_for};
use vlp::track::{Entry, Journal, Lock, sha256_of_file};

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

fn sync(folder: &Folder, uri: &str) -> String {
    let output = command(folder, uri, &["track", "sync"]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    text
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
    let runs = server.api().runs("demo world");
    assert_eq!(runs.len(), 1);
    let told = &runs[0];
    assert_eq!(server.api().points(told), journaled(&run));
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
    assert_eq!(
        stored,
        [&["checkpoints/best/model.safetensors", "report.html", "run.lock.toml", "scores.json"][..], &tables].concat()
    );
    let predictions: Vec<String> = demo_runs::files(&store.join("predictions"));
    assert_eq!(predictions, demo_runs::files(&run.join("predictions")));
    let best = std::fs::read(store.join("checkpoints/best/model.safetensors")).unwrap();
    let epochs = folders(&run.join("checkpoints"));
    assert!(epochs.iter().any(|epoch| std::fs::read(epoch.join("model.safetensors")).unwrap() == best));

    let relative = run.strip_prefix(folder.path("")).unwrap().display().to_string();
    assert_eq!(sync(&folder, &server.uri()), format!("sync  {relative}: 0 points, 0 files\n"));
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
    let said = sync(&folder, &server.uri());
    assert!(said.starts_with("sync  runs/tiny/"), "{said}");
    let again = sync(&folder, &server.uri());
    assert!(again.ends_with(": 0 points, 0 files\n"), "{again}");

    let runs = server.api().runs("demo world");
    assert_eq!(runs.len(), 1, "a resumed run goes on in the same MLflow run");
    assert_eq!(runs[0]["info"]["status"], "KILLED");
    let (told, written) = (server.api().points(&runs[0]), journaled(&run));
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

#[test]
fn a_server_that_answers_500_and_is_slow_gets_every_point_once() {
    use Fault::{After, Before, Close, Slow};
    let folder = Folder::new();
    let Some(mut server) = Server::new(&folder) else { return };
    server.start();
    // Longer than a call may take: what arrives later all the same must not be sent again.
    let late = Slow(Duration::from_secs(17));
    let slow = Slow(Duration::from_secs(2));
    let proxy = Proxy::start(&server.uri(), &[Before, Before, slow, After, Close, late, Before, After]);
    let output = command(&folder, &proxy.uri, &["run", "tiny.toml"]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "no failure of the server fails the run: {text}");
    wait_for("the last fault", || {
        let output = command(&folder, &proxy.uri, &["track", "sync"]).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        match output.status.code() {
            Some(0) => {}
            Some(4) => assert!(text.contains("`runs/log-batch`"), "{text}"),
            _ => panic!("{text}"),
        }
        // Points that make the rest of the faults happen.
        let journal = Journal::open(&folder.run("tiny").join("journal.jsonl")).unwrap();
        (0..3).for_each(|step| journal.append(&Entry::metric("extra", 0.5, step, 1)).unwrap());
        proxy.left() == 0
    });
    sync(&folder, &proxy.uri);
    assert!(sync(&folder, &proxy.uri).ends_with(": 0 points, 0 files\n"));
    let runs = server.api().runs("demo world");
    assert_eq!(runs.len(), 1);
    assert_eq!(runs[0]["info"]["status"], "FINISHED");
    assert_eq!(server.api().points(&runs[0]), journaled(&folder.run("tiny")));
}

/// The runs of the trials of the sweep `s`.
fn trials(folder: &Folder) -> Vec<PathBuf> {
    (1..=3).map(|number| folder.run(&format!("s-{number:03}"))).collect()
}

/// A sweep and its trials are what a server says of them: all points once, and the trials under the sweep. The id of its run.
fn has_the_sweep(api: &Api, experiment: &str, folder: &Folder) -> String {
    let runs = api.runs(experiment);
    assert_eq!(runs.len(), 4, "{runs:#?}");
    let parents: Vec<&Value> = runs.iter().filter(|run| tag(run, "vlp.sweep") == "s").collect();
    assert_eq!(parents.len(), 1);
    let (parent, id) = (parents[0], parents[0]["info"]["run_id"].as_str().unwrap());
    assert_eq!((&parent["info"]["run_name"], &parent["info"]["status"]), (&"s".into(), &"FINISHED".into()));
    let study = std::fs::read_to_string(folder.path("runs/s/study.jsonl")).unwrap();
    let begun: Value = serde_json::from_str(study.lines().next().unwrap()).unwrap();
    assert_eq!(tag(parent, "vlp.sweep_id"), begun["id"].as_str().unwrap());
    assert!(tag(parent, "vlp.best_trial").starts_with("s-00"), "{parent:#}");
    for run in trials(folder) {
        let name = run.strip_prefix(folder.path("runs")).unwrap().display().to_string();
        let told: Vec<&Value> = runs.iter().filter(|told| tag(told, "vlp.run") == name).collect();
        assert_eq!(told.len(), 1, "{name}");
        assert_eq!(tag(told[0], "mlflow.parentRunId"), id, "{name}");
        assert_eq!(told[0]["info"]["status"], "FINISHED", "{name}");
        assert_eq!(api.points(told[0]), journaled(&run), "{name}");
    }
    id.to_owned()
}

#[test]
fn a_sweep_stands_above_its_trials_on_a_server_and_in_the_dashboard() {
    let folder = Folder::new();
    let Some(mut server) = Server::new(&folder) else { return };
    server.start();
    let sweep = "[sweep]\nname = \"s\"\nbase = \"tiny.toml\"\nmethod = \"grid\"\nparallel = 2\n";
    let space = "[space]\n\"train.learning_rate\" = { choice = [1e-4, 1e-3, 1e-2] }\n";
    folder.write("s.toml", format!("{sweep}{space}"));
    let output = command(&folder, &server.uri(), &["sweep", "run", "s.toml"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    // A trial whose last points did not arrive in time says so in its log.
    sync(&folder, &server.uri());
    let there = has_the_sweep(server.api(), "demo world", &folder);
    server.kill();

    let mut files = demo_runs::files(&folder.path("runs"));
    let mut dashboard = Dashboard::start(&folder, &["--port", "0"]);
    let fed = dashboard.fed();
    let points: usize = trials(&folder).iter().map(|run| number_of(&journaled(run))).sum();
    assert!(fed.starts_with(&format!("fed   3 runs, 1 sweeps: {points} points and ")), "{fed}");
    // The parent is the one of this store, and not the one that the trials know of the other server.
    let here = has_the_sweep(&dashboard.api, "vlp", &folder);
    assert_ne!(here, there);
    let page = ureq::get(&dashboard.api.0).call().unwrap().into_string().unwrap();
    assert!(page.contains("<title>MLflow</title>"), "{page}");

    // A second one, on the same store or the same port, is told so.
    let said = folder.command(&["dashboard", "--mlflow", "/bin/true"]).output().unwrap();
    assert_eq!(said.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(said.stderr).unwrap(),
        "error: the store `results/mlflow` is in use by another `vlp dashboard`\n  help: open the address that it printed, or stop it with Ctrl-C\n"
    );

    // Lines that are journaled while it runs arrive.
    let journal = Journal::open(&trials(&folder)[0].join("journal.jsonl")).unwrap();
    (0..2000).for_each(|step| journal.append(&Entry::metric("later", step as f64, step, 3)).unwrap());
    let later = |api: &Api| {
        let all = api.runs("vlp").into_iter().find(|run| api.points(run).contains_key("later"));
        all.is_some_and(|run| api.points(&run)["later"].len() == 2000)
    };
    wait_for("later points", || later(&dashboard.api));
    has_the_sweep(&dashboard.api, "vlp", &folder);
    assert_eq!(dashboard.stop(libc::SIGTERM), Some(0));
    dashboard.has_left_nothing();

    // The next one has nothing to send; killed outright it leaves no server either.
    let mut dashboard = Dashboard::start(&folder, &["--port", "0"]);
    assert_eq!(dashboard.fed(), "fed   3 runs, 1 sweeps: 0 points and 0 files were new");
    assert_eq!(has_the_sweep(&dashboard.api, "vlp", &folder), here);
    dashboard.stop(libc::SIGKILL);
    dashboard.has_left_nothing();

    // Nothing was written among the runs.
    files.sort();
    assert_eq!(demo_runs::files(&folder.path("runs")), files);
}
