//! Two finished runs with everything that a report shows, written by hand: journals, scores, predictions, annotations.
#![allow(dead_code)] // each test file uses its part

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;
use vlp::config::{CheckpointChoice, Metric, PaperRow, Settings};
use vlp::track::{Entry, Journal, Lock, Parent, RunDir, Scores, State};

/// A caption that must not become markup.
pub const HOSTILE: &str = "<script>alert('x')</script> & \"quotes\" <b>";

/// The images of the test split with the CIDEr of both runs, in unit fractions.
pub const CIDER: [(u64, f64, f64); 4] = [(11, 0.5, 1.5), (12, 1.0, 2.0), (13, 2.0, 3.0), (14, 0.25, 1.25)];

/// A folder with `runs/` and `data/`.
pub struct Folder {
    temporary: TempDir,
}

impl Folder {
    /// Runs `first` and `second`; the second starts from the first, and is better by 100 points of CIDEr on every image.
    pub fn new() -> Self {
        let folder = Self { temporary: TempDir::new().unwrap() };
        folder.annotations();
        let first = folder.run("first", 1e-3, None, |image| image.1, "a plain caption .");
        let parent = Parent {
            experiment: "first".into(),
            run: first.id(),
            checkpoint: first.model_file(2),
            sha256: "0123456789abcdef".into(),
        };
        folder.run("second", 2e-3, Some(parent), |image| image.2, HOSTILE);
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    /// `vlp` in the folder.
    pub fn vlp(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_vlp")).current_dir(self.temporary.path()).args(args).output().unwrap()
    }

    /// Runs `vlp`, which must succeed without a word on stderr; its stdout.
    pub fn stdout(&self, args: &[&str]) -> String {
        let output = self.vlp(args);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap()
    }

    /// A file of the folder.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Folder of the only run of an experiment, relative to the folder.
    pub fn run_of(&self, experiment: &str) -> String {
        let runs = RunDir::find(&self.path("runs"), experiment).unwrap();
        assert_eq!(runs.len(), 1);
        format!("runs/{experiment}/{}", runs[0].id())
    }

    fn write(&self, name: &str, value: &Value) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, value.to_string()).unwrap();
        path.display().to_string()
    }

    fn annotations(&self) {
        let sentences = json!([{ "raw": "A plain caption." }, { "raw": HOSTILE }]);
        let file = |id: u64| format!("COCO_val2014_{id:012}.jpg");
        let image =
            |(id, _, _): &(u64, f64, f64)| json!({ "filename": file(*id), "split": "test", "sentences": sentences });
        self.write("data/annotations.json", &json!({ "images": CIDER.iter().map(image).collect::<Vec<_>>() }));
        self.write("data/valid.json", &CIDER.iter().map(|(id, _, _)| file(*id)).collect());
    }

    fn run(
        &self,
        name: &str,
        rate: f64,
        parent: Option<Parent>,
        cider: fn(&(u64, f64, f64)) -> f64,
        caption: &str,
    ) -> RunDir {
        let mut settings = Settings::default();
        settings.experiment.name = name.into();
        settings.data.annotations = self.path("data/annotations.json").display().to_string();
        settings.data.valid_images = self.path("data/valid.json").display().to_string();
        settings.train.epochs = 2;
        settings.train.learning_rate = rate;
        settings.select.metric = Metric::Cider;
        settings.evaluate.splits = vec!["test".into()];
        settings.evaluate.checkpoints = vec![CheckpointChoice::Best];
        settings.evaluate.beam_size = 5;
        settings.paper = vec![PaperRow {
            table: "t".into(),
            row: format!("Row <{name}>"),
            expect: BTreeMap::from([("cider".into(), 100.0)]),
            tolerance: BTreeMap::from([("cider".into(), 10.0)]),
            ..PaperRow::default()
        }];
        let lock = Lock::new(Path::new("x.toml"), &settings, "data-of-the-test", parent);
        let run = RunDir::create(&self.path("runs"), &lock).unwrap();
        std::fs::create_dir(run.checkpoint(2)).unwrap();
        let journal = Journal::open(&run.journal_file()).unwrap();
        for step in 1..=200u64 {
            let (loss, epoch) = (4.0 / step as f64, 1 + step / 101);
            journal.append(&Entry::metric("train/loss", loss, step, epoch)).unwrap();
            journal.append(&Entry::metric("train/learning_rate", rate, step, epoch)).unwrap();
        }
        journal.append(&Entry::warning("a warning with <i>markup</i>")).unwrap();
        for (epoch, score) in [(1, 0.5), (2, 0.75)] {
            journal.append(&Entry::metric("val/cider", score, epoch * 100, epoch)).unwrap();
        }
        journal.append(&Entry::state(State::Finished, "")).unwrap();
        let mean = CIDER.iter().map(cider).sum::<f64>() / CIDER.len() as f64;
        let mut scores = Scores::default();
        scores.insert(
            CheckpointChoice::Best,
            "test",
            BTreeMap::from([("cider".into(), mean), ("bleu_4".into(), 0.31)]),
        );
        scores.save(&run.scores_file()).unwrap();
        let said: Vec<Value> = CIDER.iter().map(|(id, _, _)| json!({ "image_id": id, "caption": caption })).collect();
        let file = run.predictions().join("epoch-0002.test.beam-5.json");
        std::fs::write(&file, Value::Array(said).to_string()).unwrap();
        let image = |image: &(u64, f64, f64)| json!({ "image_id": image.0, "scores": { "cider": cider(image), "spice": null } });
        let per_image: Vec<Value> = CIDER.iter().map(image).collect();
        let all = json!({ "images": 4, "scores": { "cider": mean }, "not_available": {}, "per_image": per_image });
        std::fs::write(file.with_extension("scores.json"), all.to_string()).unwrap();
        run
    }
}
