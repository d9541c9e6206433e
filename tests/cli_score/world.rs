//! A folder with small files to be scored, in which the real binary runs with relative paths and no environment.

use std::process::Output;

use assert_cmd::Command;
use tempfile::TempDir;

/// `p.json` of captions.
pub const PREDICTIONS: &str =
    r#"[{"image_id": 3, "caption": "a dog runs on the grass"}, {"image_id": 7, "caption": "two cats"}]"#;
/// `r.json` of captions; the images are not in the order of the predictions.
pub const REFERENCES: &str = r#"{"info": {"year": 2014}, "images": [{"id": 7}, {"id": 3}], "annotations": [
  {"id": 1, "image_id": 3, "caption": "A dog runs on the grass."},
  {"id": 2, "image_id": 7, "caption": "Two cats on a sofa."},
  {"id": 3, "image_id": 7, "caption": "Cats."}]}"#;
/// `p.json` of answers.
pub const RESULTS: &str = r#"[{"question_id": 2, "answer": "yes"}, {"question_id": 1, "answer": "Two"}]"#;
/// `q.json`.
pub const QUESTIONS: &str = r#"{"questions": [{"question_id": 1, "image_id": 9, "question": "How many, if any?"},
  {"question_id": 2, "image_id": 9, "question": "Is it raining?"}]}"#;
/// `a.json`: 2 or `two` three times each for the first question, ten times yes for the second.
pub const ANNOTATIONS: &str = r#"{"annotations": [
  {"question_id": 1, "question_type": "how many", "answer_type": "number", "answers": [
    {"answer_id": 1, "answer": "2"}, {"answer_id": 2, "answer": "two"}, {"answer_id": 3, "answer": "3"},
    {"answer_id": 4, "answer": "4"}, {"answer_id": 5, "answer": "2"}, {"answer_id": 6, "answer": "5"}]},
  {"question_id": 2, "question_type": "is it", "answer_type": "yes/no", "answers": [
    {"answer_id": 1, "answer": "yes"}, {"answer_id": 2, "answer": "yes"}, {"answer_id": 3, "answer": "yes"},
    {"answer_id": 4, "answer": "yes"}, {"answer_id": 5, "answer": "yes"}]}]}"#;

/// Some files, and what is scored.
pub struct World {
    folder: TempDir,
    command: Vec<&'static str>,
    variables: Vec<(&'static str, &'static str)>,
}

/// Two captions.
pub fn captions() -> World {
    World::new("captions", &[("p.json", PREDICTIONS), ("r.json", REFERENCES)])
}

/// Two answers.
pub fn vqa() -> World {
    World::new("vqa", &[("p.json", RESULTS), ("a.json", ANNOTATIONS), ("q.json", QUESTIONS)])
}

impl World {
    /// A folder with these files.
    pub fn new(what: &'static str, files: &[(&str, &str)]) -> Self {
        let command = match what {
            "captions" => vec!["score", "captions", "--predictions", "p.json", "--references", "r.json"],
            _ => vec!["score", "vqa", "--predictions", "p.json", "--annotations", "a.json"],
        };
        let world = Self { folder: TempDir::new().unwrap(), command, variables: Vec::new() };
        files.iter().fold(world, |world, (name, text)| world.file(name, text))
    }

    /// Writes a file anew.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.folder.path().join(name), content).unwrap();
        self
    }

    /// Removes a file.
    pub fn without(self, name: &str) -> Self {
        std::fs::remove_file(self.folder.path().join(name)).unwrap();
        self
    }

    /// Sets an environment variable, and one for the cache folder.
    pub fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.variables.extend([(name, value), ("XDG_CACHE_HOME", "cache")]);
        self
    }

    /// Runs the command; PATH has no program.
    pub fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vlp"));
        command.env_clear().env("PATH", "nowhere").envs(self.variables.iter().copied());
        command.current_dir(self.folder.path()).args(&self.command).args(args).output().unwrap()
    }

    /// Compares exit code, stdout and stderr with `snapshots/cli_score__NAME.snap`.
    #[track_caller]
    pub fn snapshot(&self, name: &str, args: &[&str], code: i32) {
        let output = self.run(args);
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(output.status.code(), Some(code), "{err}");
        assert!(!err.contains("panicked"), "{err}");
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("../snapshots");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.add_filter("lmdbjni-(linux|osx|win)64", "lmdbjni-OS");
        let text = format!("exit code {code}\n--- stdout\n{out}--- stderr\n{err}");
        settings.bind(|| insta::assert_snapshot!(format!("cli_score__{name}"), text));
    }
}
