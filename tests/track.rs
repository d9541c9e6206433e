//! Run folders, journals, locks and records.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use vlp::config::{CheckpointChoice, Settings};
use vlp::track::{
    Condition, Difference, Entry, Journal, LOSS, Lock, Parent, RunDir, RunRecord, Scores, State, What, influencing,
    read, render_line, sha256_of_file, time_text, write_atomic,
};

fn settings(name: &str) -> Settings {
    let mut settings = Settings::default();
    settings.experiment.name = name.into();
    settings.train.epochs = 5;
    settings
}

fn lock(settings: &Settings) -> Lock {
    Lock::new(Path::new("experiments/a.toml"), settings, "data-1", None)
}

fn new_run(runs: &Path) -> (RunDir, Journal) {
    let run = RunDir::create(runs, &lock(&settings("a"))).unwrap();
    let journal = Journal::open(&run.journal_file()).unwrap();
    (run, journal)
}

/// A checkpoint of an epoch and, where given, its selection score.
fn epoch(run: &RunDir, journal: &Journal, epoch: usize, score: Option<f64>) {
    write_atomic(&run.model_file(epoch), format!("weights {epoch}").as_bytes()).unwrap();
    if let Some(score) = score {
        journal.append(&Entry::metric("val/cider", score, epoch as u64 * 10, epoch as u64)).unwrap();
    }
}

#[test]
fn a_torn_last_line_is_cut_off_and_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let journal = Journal::open(&path).unwrap();
    let first = Entry::metric(LOSS, 2.5, 10, 1);
    journal.append(&first).unwrap();
    drop(journal);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, [whole.as_slice(), br#"{"time":"2026-11-2"#].concat()).unwrap();

    assert_eq!(read(&path).unwrap(), std::slice::from_ref(&first));
    let journal = Journal::open(&path).unwrap();
    let last = Entry::event("resumed");
    journal.append(&last).unwrap();
    journal.sync().unwrap();
    let entries = read(&path).unwrap();
    assert_eq!(entries.len(), 3);
    assert_eq!((&entries[0], &entries[2]), (&first, &last));
    let quoted = r#"cut off a torn last line of the journal: "{\"time\":\"2026-11-2""#;
    assert_eq!(entries[1].what, What::Warning { message: quoted.into() });
}

#[test]
fn a_line_torn_while_the_journal_is_open_is_mended_at_the_next_append() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let journal = Journal::open(&path).unwrap();
    fs::write(&path, "torn").unwrap();
    let entry = Entry::event("next");
    journal.append(&entry).unwrap();
    let entries = read(&path).unwrap();
    let warning = What::Warning { message: "cut off a torn last line of the journal: \"torn\"".into() };
    assert_eq!((entries.len(), &entries[0].what, &entries[1]), (2, &warning, &entry));
}

#[test]
fn two_writers_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    std::thread::scope(|scope| {
        for writer in 0..2u64 {
            let journal = Journal::open(&path).unwrap();
            scope.spawn(move || {
                for step in 0..200 {
                    journal.append(&Entry::metric("x", step as f64, step, writer)).unwrap();
                }
            });
        }
    });
    let entries = read(&path).unwrap();
    assert_eq!(entries.len(), 400);
    for writer in 0..2u64 {
        let steps: Vec<u64> = entries
            .iter()
            .filter_map(|e| match e.what {
                What::Metric { step, epoch, .. } if epoch == writer => Some(step),
                _ => None,
            })
            .collect();
        assert_eq!(steps, (0..200).collect::<Vec<u64>>());
    }
}

#[test]
fn metrics_that_are_not_finite_survive() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let journal = Journal::open(&path).unwrap();
    let values = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.1 + 0.2, -3.0, 1e-300];
    for value in values {
        journal.append(&Entry::metric(LOSS, value, 1, 1)).unwrap();
    }
    let read_back: Vec<u64> = read(&path)
        .unwrap()
        .iter()
        .map(|e| match e.what {
            What::Metric { value, .. } => value.to_bits(),
            _ => panic!("not a metric"),
        })
        .collect();
    assert_eq!(read_back, values.map(f64::to_bits));
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].ends_with(r#""kind":"metric","name":"train/loss","value":"NaN","step":1,"epoch":1}"#),
        "{}",
        lines[0]
    );
    assert!(lines[2].contains(r#""value":"-inf""#), "{}", lines[2]);
}

#[test]
fn a_line_has_its_time_in_milliseconds() {
    let time = "2026-11-23T17:15:00.1Z".parse().unwrap();
    let entry = Entry { time, what: What::State { state: State::Running, detail: "process 7".into() } };
    let line = r#"{"time":"2026-11-23T17:15:00.100Z","kind":"state","state":"running","detail":"process 7"}"#;
    assert_eq!(serde_json::to_string(&entry).unwrap(), line);
    assert_eq!(serde_json::from_str::<Entry>(line).unwrap(), entry);
    assert_eq!(time_text(time), "2026-11-23T17:15:00.100Z");
}

#[test]
fn a_new_run_journals_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (run, _journal) = new_run(folder.path());
    let lock = Lock::load(&run.lock_file()).unwrap();
    let entries = read(&run.journal_file()).unwrap();
    assert_eq!(entries[0].what, What::State { state: State::Created, detail: String::new() });
    let mut tags = BTreeMap::new();
    let mut params = BTreeMap::new();
    for entry in &entries[1..] {
        match &entry.what {
            What::Tag { name, value } => drop(tags.insert(name.as_str(), value.clone())),
            What::Param { name, value } => drop(params.insert(name.clone(), value.clone())),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(params, vlp::config::flatten(&lock.settings).into_iter().collect());
    assert_eq!(params["train.epochs"], serde_json::json!(5));
    assert_eq!(tags["vlp.lock_sha256"], sha256_of_file(&run.lock_file()).unwrap());
    assert_eq!(tags["vlp.run"], format!("a/{}", run.id()));
    assert_eq!((&tags["vlp.data_fingerprint"], &tags["vlp.host"]), (&lock.data_fingerprint, &lock.host));
    assert_eq!(tags["vlp.version"], lock.version);
    let line = serde_json::to_string(&entries[1]).unwrap();
    let written = format!(r#""kind":"tag","name":"vlp.lock_sha256","value":"{}"}}"#, tags["vlp.lock_sha256"]);
    assert!(line.ends_with(&written), "{line}");
    let line = r#""kind":"param","name":"train.epochs","value":5}"#;
    assert!(fs::read_to_string(run.journal_file()).unwrap().lines().any(|l| l.ends_with(line)));
}

#[test]
fn a_wrong_line_in_the_middle_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let good = serde_json::to_string(&Entry::event("x")).unwrap();
    fs::write(&path, format!("{good}\nnonsense\n{good}\n")).unwrap();
    let message = read(&path).unwrap_err().to_string().replace(&folder.path().display().to_string(), "[dir]");
    assert_eq!(
        message,
        "`[dir]/journal.jsonl` is not a journal: line 2 is `nonsense`: expected ident at line 1 column 2\n  \
         help: mend or remove that line; every line is one JSON object with `time` and `kind`"
    );
}

#[test]
fn a_lock_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.lock.toml");
    let mut settings = settings("a");
    settings.train.learning_rate = 3e-5;
    settings.paper.push(vlp::config::PaperRow {
        table: "captioning".into(),
        row: "COCO / \"quoted\" | piped".into(),
        expect: [("cider".to_string(), 116.9)].into(),
        ..Default::default()
    });
    let parent = Parent {
        experiment: "up".into(),
        run: "20261123-171500".into(),
        checkpoint: "runs/up/x/model.safetensors".into(),
        sha256: "ab".repeat(32),
    };
    let written = Lock::new(Path::new("experiments/a.toml"), &settings, "data-1", Some(parent));
    written.save(&path).unwrap();
    let back = Lock::load(&path).unwrap();
    assert_eq!(back, written);
    assert_eq!(written.same_work(&back), []);
    assert_eq!(written.code_note(&back), None);
    assert_eq!(written.settings_hash.len(), 64);
    assert!(written.save(&path).is_err(), "a lock is never overwritten");
}

#[test]
fn a_lock_of_another_version_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.lock.toml");
    lock(&settings("a")).save(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap().replace("[settings.train]", "[settings.train]\nmomentum = 0.9");
    fs::write(&path, text).unwrap();
    let message = Lock::load(&path).unwrap_err().to_string();
    let head = format!("`{}` is not a run lock that this version reads: TOML parse error at line", path.display());
    assert!(message.starts_with(&head), "{message}");
    assert!(message.contains("unknown field `momentum`"), "{message}");
    let help = "\n  help: this is vlp 0.1.0; use the version that wrote the file, or move the run away";
    assert!(message.ends_with(help), "{message}");
}

#[test]
fn only_what_influences_results_makes_a_difference() {
    let base = settings("a");
    let mut other = base.clone();
    other.experiment.description = "other words".into();
    other.output.runs = "elsewhere".into();
    other.data.workers = 7;
    other.data.prefetch = 9;
    other.launch.threads = 3;
    other.train.log_every = 1;
    other.train.keep_checkpoints = 9;
    other.metrics.captions = vec![vlp::config::Metric::Cider];
    other.metrics.vqa = vlp::config::VqaEvaluator::Legacy;
    other.paper.push(Default::default());
    assert_eq!(lock(&other).same_work(&lock(&base)), []);
    assert_eq!(lock(&other).settings_hash, lock(&base).settings_hash);

    other.train.epochs = 6;
    other.select.beam_size = 2;
    other.evaluate.splits = vec!["val".into()];
    let mut changed = lock(&other);
    changed.data_fingerprint = "data-2".into();
    let difference = |key: &str, now: &str, recorded: &str| Difference {
        key: key.into(),
        now: now.into(),
        recorded: recorded.into(),
    };
    assert_eq!(
        changed.same_work(&lock(&base)),
        [
            difference("evaluate.splits", "[\"val\"]", "[\"test\"]"),
            difference("select.beam_size", "2", "1"),
            difference("train.epochs", "6", "5"),
            difference("data", "data-2", "data-1"),
        ]
    );
    assert_ne!(changed.settings_hash, lock(&base).settings_hash);
    assert_eq!(difference("train.epochs", "6", "5").to_string(), "train.epochs: 6 (the run has 5)");
    let keys = influencing(&base);
    assert!(keys.contains_key("experiment.seed") && keys.contains_key("experiment.name"));
}

#[test]
fn other_initial_weights_make_a_difference_and_another_program_only_a_note() {
    let parent = |sha: &str| Parent {
        experiment: "up".into(),
        run: "r".into(),
        checkpoint: "m.safetensors".into(),
        sha256: sha.repeat(32),
    };
    let with = |p| Lock { parent: p, ..lock(&settings("a")) };
    let moved = Parent { checkpoint: "moved/m.safetensors".into(), ..parent("ab") };
    assert_eq!(with(Some(moved)).same_work(&with(Some(parent("ab")))), []);
    let texts: Vec<String> =
        with(Some(parent("cd"))).same_work(&with(None)).iter().map(Difference::to_string).collect();
    assert_eq!(texts, ["initial weights: m.safetensors (sha256 cdcdcdcdcdcd) (the run has random)"]);
    let mut old = with(None);
    old.version = "0.0.9".into();
    old.code.commit = "0123456789abcdef".into();
    old.code.diff = "clean".into();
    let note = with(None).code_note(&old).unwrap();
    assert!(
        note.starts_with("recorded by vlp 0.0.9 (commit 0123456789ab, changes clean), this is vlp 0.1.0"),
        "{note}"
    );
}

#[test]
fn runs_are_found_oldest_first() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    assert_eq!(RunDir::find(&runs, "a").unwrap(), []);
    let lock = lock(&settings("a"));
    let created: Vec<RunDir> = (0..3).map(|_| RunDir::create(&runs, &lock).unwrap()).collect();
    assert_eq!(RunDir::find(&runs, "a").unwrap(), created);
    assert_eq!(RunDir::latest(&runs, "a").unwrap(), created.last().cloned());
    assert_eq!(RunDir::all(&runs).unwrap(), created);
    for id in ["20200101-000000", "20200101-000000-2", "20200101-000000-10"] {
        fs::create_dir(runs.join("a").join(id)).unwrap();
        lock.save(&runs.join("a").join(id).join("run.lock.toml")).unwrap();
    }
    fs::create_dir(runs.join("a/20200101-000001")).unwrap();
    let ids: Vec<String> = RunDir::find(&runs, "a").unwrap().iter().map(RunDir::id).collect();
    assert_eq!(ids[..3], ["20200101-000000", "20200101-000000-2", "20200101-000000-10"]);
    assert_eq!(ids.len(), 6, "a folder without a lock is no run");
    let error = RunDir::open(&runs.join("a/20200101-000001")).unwrap_err().to_string();
    assert!(error.contains("is not a run folder: it has no `run.lock.toml`\n  help: "), "{error}");
}

#[test]
fn a_folder_is_held_by_one_runner() {
    let folder = tempfile::tempdir().unwrap();
    let (run, _) = new_run(folder.path());
    assert!(!run.is_held());
    let held = run.hold().unwrap();
    assert!(run.is_held());
    let error = run.hold().unwrap_err().to_string();
    assert_eq!(
        error,
        format!(
            "run `{}` is in use by another `vlp` process\n  \
             help: wait until it ends, or stop it with Ctrl-C; `vlp status` shows how far it is",
            run.path().display()
        )
    );
    drop(held);
    assert!(!run.is_held());
    run.hold().unwrap();
}

#[test]
fn conditions_follow_the_journal_and_the_runner() {
    let folder = tempfile::tempdir().unwrap();
    let (run, journal) = new_run(folder.path());
    let condition = || RunRecord::read(&run).unwrap().condition;
    let state = |state| journal.append(&Entry::state(state, "why")).unwrap();
    assert_eq!(condition(), Condition::Created);
    let held = run.hold().unwrap();
    state(State::Running);
    assert_eq!(condition(), Condition::Running);
    drop(held);
    assert_eq!(condition(), Condition::Died);
    assert_eq!(condition().to_string(), "died (resumable)");
    state(State::Failed);
    assert_eq!(condition(), Condition::Failed);
    state(State::Interrupted);
    assert_eq!(condition(), Condition::Interrupted);
    state(State::Finished);
    assert_eq!(condition(), Condition::Finished);
    assert_eq!(RunRecord::read(&run).unwrap().detail, "why");
}

#[test]
fn the_best_epoch_is_the_first_of_the_best_that_has_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (run, journal) = new_run(folder.path());
    let record = || RunRecord::read(&run).unwrap();
    assert_eq!((record().last_epoch, record().best_epoch, record().last_loss), (None, None, None));
    epoch(&run, &journal, 1, Some(f64::NAN));
    assert_eq!((record().last_epoch, record().best_epoch), (Some(1), None));
    epoch(&run, &journal, 2, Some(0.5));
    epoch(&run, &journal, 3, Some(0.9));
    epoch(&run, &journal, 3, Some(0.7));
    epoch(&run, &journal, 4, Some(0.7));
    journal.append(&Entry::metric("val/cider", 0.99, 50, 5)).unwrap();
    journal.append(&Entry::metric("val/bleu_4", 1.0, 40, 4)).unwrap();
    journal.append(&Entry::metric(LOSS, 1.25, 40, 4)).unwrap();
    let record = record();
    assert_eq!((record.best_epoch, record.best_score), (Some(3), Some(0.7)));
    assert_eq!((record.last_epoch, record.last_loss), (Some(4), Some(1.25)));
    let epochs = [CheckpointChoice::Best, CheckpointChoice::Last, CheckpointChoice::First].map(|c| record.epoch_of(c));
    assert_eq!(epochs, [Some(3), Some(4), Some(1)]);
}

#[test]
fn without_validation_the_last_epoch_is_the_best() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings("a");
    settings.select.split = String::new();
    let run = RunDir::create(folder.path(), &lock(&settings)).unwrap();
    let journal = Journal::open(&run.journal_file()).unwrap();
    epoch(&run, &journal, 1, Some(0.9));
    epoch(&run, &journal, 2, Some(0.1));
    let record = RunRecord::read(&run).unwrap();
    assert_eq!((record.best_epoch, record.best_score), (Some(2), None));
}

#[test]
fn scores_keep_every_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scores.json");
    assert_eq!(Scores::load(&path).unwrap(), Scores::default());
    let mut scores = Scores::default();
    let cider = 0.1 + 0.2;
    scores.insert(CheckpointChoice::Best, "test", BTreeMap::from([("cider".to_string(), cider)]));
    scores.insert(CheckpointChoice::First, "test", BTreeMap::from([("cider".to_string(), f64::INFINITY)]));
    scores.save(&path).unwrap();
    let text = "{\n  \"best/test\": {\n    \"cider\": 0.30000000000000004\n  },\n  \
                \"first/test\": {\n    \"cider\": \"inf\"\n  }\n}\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    let back = Scores::load(&path).unwrap();
    assert_eq!(back, scores);
    assert_eq!(back.get(CheckpointChoice::Best, "test").unwrap()["cider"], cider);
    assert_eq!(back.get(CheckpointChoice::Last, "test"), None);
}

#[test]
fn a_file_is_replaced_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/deep/file");
    write_atomic(&path, b"one").unwrap();
    write_atomic(&path, b"two").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"two");
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
    assert_eq!(sha256_of_file(&path).unwrap(), "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3");
    let error = write_atomic(&path.join("below"), b"x").unwrap_err().to_string();
    assert!(error.starts_with("cannot create `") && error.contains("\n  help: "), "{error}");
}

#[test]
fn rank_logs_read_like_text() {
    let line = r#"{"timestamp":"2026-11-23T17:15:00.1Z","level":"WARN","fields":{"message":"slow","share":0.3}}"#;
    assert_eq!(render_line(line), "17:15:00 WARN  slow  share=0.3");
}
