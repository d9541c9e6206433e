//! Scores that need parts of others, in a run and in `vlp score`: what is said when they are absent, and, where METEOR's data
//! are there (`VLP_METEOR_DIR`, else `~/.cache/vlp/meteor`; `scripts/meteor.sh`), that they are computed.

mod demo_runs;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use demo_runs::Folder;
use serde_json::Value;
use vlp::metrics::meteor::resources::Files;
use vlp::track::What;

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The folder of METEOR's data, or none after a line that is seen although the test passes.
fn meteor_folder(test: &str) -> Option<PathBuf> {
    let cache = || variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    let folder = variable("VLP_METEOR_DIR").or_else(|| Some(cache()?.join("vlp/meteor")));
    let found = folder.filter(|folder| Files::find(folder).is_ok());
    if found.is_none() {
        skipped(test, "no METEOR data; run scripts/meteor.sh, or set VLP_METEOR_DIR");
    }
    found
}

fn skipped(test: &str, why: &str) {
    std::io::stderr().write_all(format!("SKIPPED: scores_of_runs::{test}: {why}\n").as_bytes()).unwrap();
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

fn events(run: &Path) -> Vec<String> {
    let entries = vlp::track::read(&run.join("journal.jsonl")).unwrap();
    let event = |what: What| match what {
        What::Event { message } => Some(message),
        _ => None,
    };
    entries.into_iter().filter_map(|entry| event(entry.what)).collect()
}

/// The tiny experiment, which METEOR and SPICE are expected of.
fn with_meteor(folder: &Folder) {
    let row = "[[paper]]\ntable = \"tiny\"\nrow = \"Tiny / parts of others\"\ncheckpoint = \"last\"\n\
               expect = { meteor = 50.0, cider = 100.0 }\ntolerance = { meteor = 50.0, cider = 1000.0 }\n";
    folder.write("tiny.toml", format!("{}{row}", demo_runs::TINY));
}

/// `vlp` where nothing of others is installed.
fn bare(folder: &Folder, args: &[&str]) -> Command {
    let mut command = folder.command(args);
    command.env("HOME", "nobody").env("PATH", "nowhere").env_remove("XDG_CACHE_HOME").env_remove("JAVA_HOME");
    command
}

const NO_METEOR: &str = "METEOR is not available: METEOR needs meteor-1.5.jar and paraphrase-en.gz, not found in \
                         nobody/.cache/vlp/meteor\n  help: ";

#[test]
fn what_is_not_available_is_said_once_and_is_no_zero() {
    let folder = Folder::new();
    with_meteor(&folder);
    let output = bare(&folder, &["run", "tiny.toml"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("; not available: METEOR, SPICE (`vlp doctor` says why)\n"), "{stderr}");
    let table = String::from_utf8(output.stdout).unwrap();
    let cell = "| Tiny / parts of others | test | METEOR | 50.0 |  |  | ± 50.0 | not available |";
    assert!(table.contains(cell), "{table}");

    let run = folder.run("tiny");
    let scores = json(&run.join("scores.json"));
    for checkpoint in ["last/test", "first/test"] {
        let names: Vec<&String> = scores[checkpoint].as_object().unwrap().keys().collect();
        assert_eq!(names, ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "cider", "rouge_l"]);
    }
    // Two checkpoints were scored; each reason stands in the journal once.
    let of = |start: &str| events(&run).into_iter().filter(|event| event.starts_with(start)).count();
    assert_eq!(
        (of(NO_METEOR), of("SPICE is not available; missing:\n  file `nobody/.cache/vlp/spice/spice-1.0.jar`")),
        (1, 1)
    );

    let file = json(&run.join("predictions/epoch-0002.test.beam-2.scores.json"));
    assert_eq!(file["images"], 40);
    assert_eq!(file["scores"]["cider"], scores["last/test"]["cider"]);
    assert_eq!(file["scores"]["spice"], Value::Null);
    assert!(file["not_available"]["meteor"].as_str().unwrap().starts_with(NO_METEOR));
    let images = file["per_image"].as_array().unwrap();
    assert_eq!(images.len(), 40);
    let predictions = json(&run.join("predictions/epoch-0002.test.beam-2.json"));
    assert!(images.iter().zip(predictions.as_array().unwrap()).all(|(a, b)| a["image_id"] == b["image_id"]));
    let mean = images.iter().map(|image| image["scores"]["cider"].as_f64().unwrap()).sum::<f64>() / 40.0;
    assert!((mean - file["scores"]["cider"].as_f64().unwrap()).abs() < 1e-12);

    // Other metrics are no other work.
    let again = bare(&folder, &["run", "tiny.toml", "--set", "metrics.vqa=legacy"]).output().unwrap();
    assert_eq!(again.status.code(), Some(0));
    assert_eq!(demo_runs::folders(&folder.path("runs/tiny")).len(), 1);
}

#[test]
fn selection_by_meteor_needs_its_data_before_anything_is_trained() {
    let folder = Folder::new();
    let output = bare(&folder, &["run", "tiny.toml", "--set", "select.metric=meteor"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("METEOR needs meteor-1.5.jar and paraphrase-en.gz, not found in"), "{stderr}");
    assert!(demo_runs::files(&folder.run("tiny")).iter().all(|file| !file.starts_with("checkpoints")));
}

#[test]
fn meteor_selects_and_is_in_the_table() {
    let Some(data) = meteor_folder("meteor_selects_and_is_in_the_table") else { return };
    let folder = Folder::new();
    with_meteor(&folder);
    let (data, cache) = (data.display().to_string(), env!("CARGO_TARGET_TMPDIR"));
    let options = [format!("metrics.meteor_folder=\"{data}\""), format!("metrics.cache=\"{cache}\"")];
    let set = ["--set", &options[0], "--set", &options[1], "--set", "select.metric=meteor"];
    let output = bare(&folder, &[&["run", "tiny.toml"], &set[..]].concat()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("val/meteor "), "{stderr}");
    assert!(stderr.contains("; not available: SPICE (`vlp doctor` says why)\n"), "{stderr}");
    let table = String::from_utf8(output.stdout).unwrap();
    let cell = table.lines().find(|line| line.contains("| METEOR |")).unwrap();
    assert!(cell.ends_with("| reproduced |"), "{cell}");

    let run = folder.run("tiny");
    let score = |name: &str| json(&run.join("scores.json"))["last/test"][name].as_f64().unwrap();
    let file = json(&run.join("predictions/epoch-0002.test.beam-2.scores.json"));
    assert_eq!(file["scores"]["meteor"].as_f64().unwrap(), score("meteor"));
    assert!(score("meteor") > 0.0);
}

#[test]
fn the_jar_gives_the_scores_of_the_native_meteor() {
    let Some(data) = meteor_folder("the_jar_gives_the_scores_of_the_native_meteor") else { return };
    let java = variable("JAVA_HOME").map_or_else(|| PathBuf::from("java"), |home| home.join("bin/java"));
    if Command::new(&java).arg("-version").output().is_err() {
        return skipped("the_jar_gives_the_scores_of_the_native_meteor", "no Java");
    }
    let folder = Folder::new();
    folder.write(
        "p.json",
        r#"[{"image_id": 1, "caption": "a man rides a horse"}, {"image_id": 2, "caption": "two dogs"}, {"image_id": 3, "caption": ""}]"#,
    );
    folder.write(
        "r.json",
        r#"{"annotations": [{"image_id": 1, "caption": "The man rode horses."}, {"image_id": 1, "caption": "a t-shirt"},
            {"image_id": 2, "caption": "A pair of dogs!"}, {"image_id": 3, "caption": "Nothing."}]}"#,
    );
    let files = ["score", "captions", "--predictions", "p.json", "--references", "r.json"];
    let score = |program: &str| {
        let how = ["--metrics", "meteor", "--format", "json", "--per-image", "--meteor", program];
        let mut command = folder.command(&[&files[..], &how[..]].concat());
        command.env("VLP_METEOR_DIR", &data).env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let (native, jar) = (score("native"), score("jar"));
    let scores = |found: &Value| {
        let images =
            found["per_image"].as_array().unwrap().iter().map(|image| image["scores"]["meteor"].as_f64().unwrap());
        images.chain([found["scores"]["meteor"].as_f64().unwrap()]).collect::<Vec<f64>>()
    };
    assert_eq!(scores(&native).len(), 4);
    for (ours, theirs) in scores(&native).into_iter().zip(scores(&jar)) {
        assert!((ours - theirs).abs() <= 1e-12, "{ours}, the jar has {theirs}");
    }
}
