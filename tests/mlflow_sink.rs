//! The MLflow sink against a server that fails in every way a server can: every point arrives, none twice, no secret leaks.

#[path = "mlflow_sink/mod.rs"]
mod tiny;

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tiny::{Fault, Tiny};
use vlp::config::Settings;
use vlp::track::mlflow::{Artifact, Background, MlflowError, Secret, Server, Sink};
use vlp::track::{Entry, Journal, LOSS, Lock, RunDir, RunRecord, State};

struct Fixture {
    _folder: TempDir,
    run: RunDir,
    journal: Journal,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.experiment.name = "a".into();
        let lock = Lock::new(Path::new("experiments/a.toml"), &settings, "data-1", None);
        let run = RunDir::create(folder.path(), &lock).unwrap();
        let journal = Journal::open(&run.journal_file()).unwrap();
        Self { _folder: folder, run, journal }
    }

    fn loss(&self, steps: std::ops::Range<u64>) {
        for step in steps {
            self.journal.append(&Entry::metric(LOSS, step as f64 / 4.0, step, 1)).unwrap();
        }
    }

    fn sink(&self, tiny: &Tiny) -> Sink {
        Sink::open(&self.run, server(tiny), "things").unwrap()
    }
}

fn server(tiny: &Tiny) -> Server {
    Server::new(&tiny.address, None, None, Some(Secret::new("tok-en"))).unwrap()
}

fn losses(steps: std::ops::Range<u64>) -> Vec<(String, i64, serde_json::Value)> {
    steps.map(|step| (LOSS.to_owned(), step as i64, json!(step as f64 / 4.0))).collect()
}

/// Drains until it works, as the background does, but without waiting.
fn insist(sink: &mut Sink) -> usize {
    let mut failures = 0;
    while let Err(error) = sink.drain() {
        assert!(error.is_passing(), "{error}");
        failures += 1;
    }
    failures
}

#[test]
fn a_run_arrives_with_its_parameters_tags_points_states_and_files() {
    let tiny = Tiny::start(&[]);
    let fixture = Fixture::new();
    fixture.journal.append(&Entry::state(State::Running, "")).unwrap();
    fixture.loss(0..1500);
    fixture.journal.append(&Entry::metric("val/cider", f64::NAN, 1500, 1)).unwrap();
    fixture.journal.append(&Entry::state(State::Finished, "")).unwrap();
    std::fs::write(fixture.run.predictions().join("epoch-0001.val.json"), "[]").unwrap();
    let mut sink = fixture.sink(&tiny);
    sink.drain().unwrap();
    let files = Artifact::of_run(&RunRecord::read(&fixture.run).unwrap(), &[]).unwrap();
    assert_eq!(sink.upload(&files).unwrap(), 2);
    assert_eq!(sink.upload(&files).unwrap(), 0);
    assert_eq!((sink.points(), sink.is_level().unwrap()), (1501, true));

    let mut expected = losses(0..1500);
    expected.push(("val/cider".into(), 1500, json!("NaN")));
    assert_eq!(tiny.points(), expected);
    let told = tiny.told.lock().unwrap();
    assert_eq!((told.runs.len(), told.histories, told.largest), (1, 0, [1000, 100]));
    assert_eq!(told.statuses, ["RUNNING", "FINISHED"]);
    assert_eq!(told.files[1], ("7/run-0/artifacts/predictions/epoch-0001.val.json".into(), b"[]".to_vec()));
    assert_eq!(told.files[0].1, std::fs::read(fixture.run.lock_file()).unwrap());
    assert!(told.params.contains(&("train.batch_size".into(), Settings::default().train.batch_size.to_string())));
    assert!(told.authorizations.iter().all(|header| header == "Bearer tok-en"));
    let lock = Lock::load(&fixture.run.lock_file()).unwrap();
    let tags = told.runs[0]["tags"].as_array().unwrap();
    for (key, value) in [
        ("vlp.version", lock.version),
        ("vlp.commit", lock.code.commit),
        ("vlp.data_fingerprint", "data-1".into()),
        ("vlp.host", lock.host),
        ("vlp.lock_sha256", vlp::track::sha256_of_file(&fixture.run.lock_file()).unwrap()),
    ] {
        assert!(tags.contains(&json!({ "key": key, "value": value })), "{key}: {tags:?}");
    }
}

/// The journal without the lines that say what the run is, as earlier versions wrote it.
fn forget_what_it_is(run: &RunDir) {
    let text = std::fs::read_to_string(run.journal_file()).unwrap();
    let old = |line: &&str| !line.contains(r#""kind":"param""#) && !line.contains(r#""kind":"tag""#);
    let kept: String = text.lines().filter(old).map(|line| format!("{line}\n")).collect();
    std::fs::write(run.journal_file(), kept).unwrap();
}

#[test]
fn a_journal_of_an_earlier_version_is_completed_from_the_lock() {
    let told = |old: bool| {
        let tiny = Tiny::start(&[]);
        let fixture = Fixture::new();
        if old {
            forget_what_it_is(&fixture.run);
        }
        let later = Entry::tag("vlp.note", "later");
        fixture.journal.append(&later).unwrap();
        fixture.loss(0..5);
        fixture.sink(&tiny).drain().unwrap();
        assert_eq!(tiny.points(), losses(0..5));
        let told = tiny.told.lock().unwrap();
        let keys = |tags: &[serde_json::Value]| tags.iter().map(|t| t["key"].clone()).collect::<Vec<_>>();
        let mut params = told.params.clone();
        params.sort();
        let mut tags = keys(told.runs[0]["tags"].as_array().unwrap());
        tags.retain(|tag| tag != "vlp.note");
        assert!(told.tags.contains(&("vlp.note".into(), "later".into())));
        (params, tags)
    };
    let (old, new) = (told(true), told(false));
    assert_eq!(old, new);
    assert_eq!(new.0.len(), vlp::config::flatten(&Settings::default()).len());
}

#[test]
fn failures_before_within_and_after_a_batch_lose_nothing_and_double_nothing() {
    use Fault::{After, Before, Close, Half};
    for faults in [[Before, Before], [After, Close], [Close, After], [Half, Before], [Half, Close]] {
        let tiny = Tiny::start(&faults);
        let fixture = Fixture::new();
        fixture.loss(0..1200);
        let mut sink = fixture.sink(&tiny);
        let failures = insist(&mut sink);
        // More points while nothing is in doubt, and the server asked for nothing.
        let asked = tiny.told.lock().unwrap().histories;
        fixture.loss(1200..1300);
        insist(&mut sink);
        assert_eq!(tiny.points(), losses(0..1300), "{faults:?}");
        assert_eq!(tiny.told.lock().unwrap().histories, asked, "{faults:?}");
        assert!(failures >= 1, "{faults:?}");
    }
}

#[test]
fn a_sink_that_was_cut_off_before_its_note_asks_what_arrived() {
    let tiny = Tiny::start(&[]);
    let fixture = Fixture::new();
    fixture.loss(0..10);
    fixture.sink(&tiny).drain().unwrap();
    let before = std::fs::read(fixture.run.mlflow_file()).unwrap();
    fixture.loss(10..20);
    fixture.sink(&tiny).drain().unwrap();
    // As if the process had ended between the answer and the note; the journal has grown since.
    std::fs::write(fixture.run.mlflow_file(), before).unwrap();
    fixture.loss(20..30);
    fixture.sink(&tiny).drain().unwrap();
    assert_eq!(tiny.points(), losses(0..30));
    // As if the note had been lost altogether: the run is found again.
    std::fs::remove_file(fixture.run.mlflow_file()).unwrap();
    fixture.loss(30..1500);
    fixture.sink(&tiny).drain().unwrap();
    assert_eq!(tiny.points(), losses(0..1500));
    assert_eq!(tiny.told.lock().unwrap().runs.len(), 1);
}

#[test]
fn a_refusal_ends_it_and_no_text_holds_a_secret() {
    let tiny = Tiny::start(&[Fault::Refuse]);
    let fixture = Fixture::new();
    fixture.loss(0..3);
    let mut sink = fixture.sink(&tiny);
    let error = sink.drain().unwrap_err();
    assert!(matches!(error, MlflowError::Refused { status: 400, .. }));
    assert_eq!(
        error.to_string(),
        format!(
            "the MLflow server {} refused `runs/log-batch`: 400 no *** here\n  help: see the server's log; `track.mlflow = \"off\"` keeps a run away from it",
            tiny.address
        )
    );
    for entry in std::fs::read_dir(fixture.run.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(!text.contains("tok-en"), "{}", path.display());
        }
    }
}

#[test]
fn one_sink_per_folder() {
    let tiny = Tiny::start(&[]);
    let fixture = Fixture::new();
    let _first = fixture.sink(&tiny);
    let second = Sink::open(&fixture.run, server(&tiny), "things").err().unwrap();
    assert!(second.to_string().contains("is in use by another `vlp` process"), "{second}");
}

#[test]
fn the_background_sends_while_the_run_goes_on_and_the_rest_at_its_end() {
    let tiny = Tiny::start(&[Fault::Slow(Duration::from_millis(300)), Fault::Close]);
    let fixture = Fixture::new();
    fixture.loss(0..5);
    let background = Background::start(fixture.sink(&tiny), Box::new(|| Ok(Vec::new()))).unwrap();
    while tiny.points().len() < 5 {
        std::thread::sleep(Duration::from_millis(10));
    }
    fixture.loss(5..9);
    while tiny.points().len() < 9 {
        std::thread::sleep(Duration::from_millis(10));
    }
    fixture.loss(9..12);
    background.finish().unwrap();
    assert_eq!(tiny.points(), losses(0..12));
}

#[test]
fn a_server_that_is_not_there_costs_the_run_nothing() {
    let fixture = Fixture::new();
    fixture.loss(0..5);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Server::new(&format!("http://ann:s3cret@127.0.0.1:{port}"), None, None, None).unwrap();
    let sink = Sink::open(&fixture.run, server, "things").unwrap();
    let background = Background::start(sink, Box::new(|| Ok(Vec::new()))).unwrap();
    let error = background.finish().unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with(&format!("cannot reach the MLflow server http://127.0.0.1:{port}: ")), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
    assert!(!fixture.run.mlflow_file().exists());
}
