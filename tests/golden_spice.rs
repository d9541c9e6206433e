//! The SPICE tool itself, on hand-made parses that are put into its cache, against its own answer.
//!
//! Needs `spice-1.0.jar` with its libraries, in `$VLP_SPICE_DIR` or in `~/.cache/vlp/spice` (see `scripts/spice_test.sh`, which needs
//! no language models), and a JDK (`$JAVA_HOME`, or `java` and `javac` in PATH). Where they are absent it says `SKIPPED:` on stderr.
//! Reads `tests/golden/metrics/spice`, or the same folder of `$VLP_GOLDEN_DIR/metrics`.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::read::GzDecoder;
use serde_json::Value;
use vlp::config::{Metric, MetricsSettings};
use vlp::evaluate::{Places, Scorers};
use vlp::metrics::CaptionEntry;
use vlp::metrics::spice::{CATEGORIES, JavaVersion, SpiceScores, SpiceSettings, Tuples, check, score_tokenized};

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Every golden case, by the name of its file.
fn cases() -> Vec<(String, Value)> {
    let folder =
        variable("VLP_GOLDEN_DIR").unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"));
    let folder = folder.join("metrics/spice");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(".json.gz"));
    paths.sort();
    assert!(!paths.is_empty(), "{} has no *.json.gz", folder.display());
    let read = |path: &PathBuf| {
        let mut text = String::new();
        GzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
        (path.display().to_string(), serde_json::from_str(&text).unwrap())
    };
    paths.iter().map(read).collect()
}

/// Past the test harness, which swallows what `eprintln!` writes.
fn skipped(why: &str) {
    std::io::stderr().write_all(format!("SKIPPED: golden_spice: {why}\n").as_bytes()).unwrap();
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Puts the hand-made tuples where the tool keeps its parses.
fn fill(settings: &SpiceSettings, version: JavaVersion, work: &Path, golden: &Value) {
    let lines: String = golden["tuples_of_caption"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(caption, tuples)| {
            let words =
                |t: &Value| t.as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect::<Vec<_>>().join("|");
            let tuples: Vec<String> = tuples.as_array().unwrap().iter().map(words).collect();
            format!("{caption}\t{}\n", tuples.join(";"))
        })
        .collect();
    let (file, database) = (work.join("tuples.tsv"), settings.cache.join("tuples"));
    std::fs::write(&file, lines).unwrap();
    std::fs::create_dir_all(&database).unwrap();
    let jar = settings.folder.join("spice-1.0.jar");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/spice/FillCache.java");
    succeed(Command::new(settings.java.with_file_name("javac")).arg("-cp").arg(&jar).arg("-d").arg(work).arg(source));
    let class_path = format!("{}:{}", work.display(), jar.display());
    succeed(
        Command::new(&settings.java)
            .args(version.flags())
            .args(["-cp", &class_path, "FillCache"])
            .arg(database)
            .arg(file),
    );
}

fn entries(golden: &Value) -> Vec<CaptionEntry> {
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let entry = |v: &Value| CaptionEntry {
        id: v["image_id"].to_string(),
        candidate: text(&v["test"]),
        references: v["refs"].as_array().unwrap().iter().map(text).collect(),
    };
    golden["input"].as_array().unwrap().iter().map(entry).collect()
}

fn compare(id: &str, category: &str, found: &Tuples, expected: &Value) {
    let counts = [("tp", found.true_positives), ("fp", found.false_positives), ("fn", found.false_negatives)];
    for (name, value) in counts {
        assert_eq!(Some(value), expected[name].as_u64(), "{name} of {category} of image {id}");
    }
    for (name, value) in [("f", found.f), ("pr", found.precision), ("re", found.recall)] {
        let close = match (value, expected[name].as_f64()) {
            (Some(value), Some(wanted)) => (value - wanted).abs() <= 1e-12,
            (value, wanted) => value == wanted,
        };
        assert!(close, "{name} of {category} of image {id}: {value:?} instead of {}", expected[name]);
    }
}

fn compare_all(scores: &SpiceScores, entries: &[CaptionEntry], golden: &Value) {
    let expected = golden["output"].as_array().unwrap();
    assert_eq!(expected.len(), entries.len());
    for answer in expected {
        let id = answer["image_id"].to_string();
        let at = entries.iter().position(|entry| entry.id == id).unwrap();
        for category in CATEGORIES {
            compare(&id, category, &scores.per_image[at][category], &answer["scores"][category]);
        }
    }
    assert!((scores.spice - golden["mean_f_over_images"].as_f64().unwrap()).abs() <= 1e-12, "{}", scores.spice);
}

#[test]
fn hand_made_parses() {
    let home_cache = || variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    let Some(folder) = variable("VLP_SPICE_DIR").or_else(|| Some(home_cache()?.join("vlp/spice"))) else {
        return skipped("neither VLP_SPICE_DIR nor HOME is set");
    };
    let work = tempfile::tempdir().unwrap();
    let mut settings = SpiceSettings::new(folder, work.path().join("spice-cache"));
    if let Some(home) = variable("JAVA_HOME") {
        settings.java = home.join("bin/java");
    }
    settings.memory_mib = 2048;
    let version = match check(&settings) {
        Ok(version) => version,
        Err(error) if variable("VLP_SPICE_DIR").is_some() => panic!("VLP_SPICE_DIR is set, but: {error}"),
        Err(error) => return skipped(&error.to_string()),
    };
    for (name, golden) in cases() {
        println!("{name}");
        fill(&settings, version, work.path(), &golden);
        let mut entries = entries(&golden);
        compare_all(&score_tokenized(&entries, &settings).unwrap(), &entries, &golden);
        // Another order, and the class that the first call compiled.
        entries.reverse();
        let scores = score_tokenized(&entries, &settings).unwrap();
        compare_all(&scores, &entries, &golden);
        as_in_a_run(&settings, work.path(), &entries, &scores);
    }
}

/// What a run gets from `[metrics]`: the same scores under the names of score files.
fn as_in_a_run(settings: &SpiceSettings, cache: &Path, entries: &[CaptionEntry], expected: &SpiceScores) {
    let places = Places {
        meteor: None,
        spice: Some(settings.folder.clone()),
        cache: Some(cache.to_owned()),
        java: settings.java.clone(),
    };
    let options = MetricsSettings { spice_memory_mb: settings.memory_mib, ..MetricsSettings::default() };
    let report = Scorers { settings: &options, places }.score(entries, &[Metric::Spice, Metric::Meteor]).unwrap();
    assert_eq!(report.not_available.keys().collect::<Vec<_>>(), [&"meteor"]);
    let corpus = report.corpus();
    assert_eq!(corpus["spice"], expected.spice);
    for column in report.columns.iter().filter(|column| column.name != "meteor") {
        let category =
            CATEGORIES.iter().find(|c| column.name == format!("spice_{}", c.to_lowercase())).unwrap_or(&"All");
        assert_eq!(column.corpus, expected.corpus[*category].f, "{}", column.name);
        let per_image: Vec<Option<f64>> = expected.per_image.iter().map(|image| image[*category].f).collect();
        assert_eq!(column.per_image, per_image, "{}", column.name);
    }
}
