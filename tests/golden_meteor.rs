//! METEOR against the original (`meteor-1.5.jar`), layer by layer and as a whole.
//!
//! Reads every file in `tests/golden/metrics/{meteor,captions}`, or in the same folders of `$VLP_GOLDEN_DIR/metrics`; see the README there. Needs the data of
//! METEOR in the folder named by `VLP_METEOR_DIR`, else in `~/.cache/vlp/meteor` (`scripts/meteor.sh` fetches it); without it these tests are skipped.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use serde::Deserialize;
use serde_json::Value;
use vlp::metrics::meteor::aligner::Module;
use vlp::metrics::meteor::jar::Jar;
use vlp::metrics::meteor::normaliser::normalise;
use vlp::metrics::meteor::resources::Files;
use vlp::metrics::meteor::score::SegmentStatistics;
use vlp::metrics::meteor::{Meteor, MeteorError};

/// Scores follow from integers by a formula with the same order of operations.
const TOLERANCE: f64 = 1e-12;

/// The folder of METEOR's data: the one that is named, which must be whole, or the usual one, which may be missing.
fn resources() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("VLP_METEOR_DIR").filter(|dir| !dir.is_empty()) {
        return Some(named.into());
    }
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("vlp/meteor")).filter(|folder| Files::find(folder).is_ok())
}

static METEOR: LazyLock<Option<Arc<Meteor>>> = LazyLock::new(|| {
    let folder = resources()?;
    Some(Arc::new(
        Meteor::open(&folder, Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap_or_else(|error| panic!("{error}")),
    ))
});

/// METEOR, or `None` after a loud line.
fn meteor(test: &str) -> Option<Arc<Meteor>> {
    let meteor = METEOR.clone();
    if meteor.is_none() {
        skipped(test);
    }
    meteor
}

fn skipped(test: &str) {
    loud(&format!("SKIPPED: golden_meteor::{test}: no METEOR data; run scripts/meteor.sh, or set VLP_METEOR_DIR"));
}

/// Unlike `eprintln!`, seen although the test passes.
fn loud(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn golden_dir() -> PathBuf {
    let given = std::env::var_os("VLP_GOLDEN_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"))
}

/// Name and text of the golden files of `metrics/folder` whose names end in one of `endings`, unpacked.
fn texts(folder: &str, endings: &[&str]) -> Vec<(String, String)> {
    let folder = golden_dir().join("metrics").join(folder);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)));
    paths.sort();
    assert!(!paths.is_empty(), "{} has no {}", folder.display(), endings.join(" or "));
    let read = |path: &PathBuf| {
        let mut text = String::new();
        let mut file = std::fs::File::open(path).unwrap();
        let result = if path.extension().is_some_and(|extension| extension == "gz") {
            MultiGzDecoder::new(file).read_to_string(&mut text)
        } else {
            file.read_to_string(&mut text)
        };
        result.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        (path.file_name().unwrap().to_string_lossy().into_owned(), text)
    };
    paths.iter().map(read).collect()
}

/// All records with this key, whatever their files are called.
fn records<T: for<'a> Deserialize<'a>>(key: &str) -> Vec<T> {
    let texts = texts("meteor", &[".jsonl.gz", ".jsonl"]);
    let values = texts.iter().flat_map(|(_, text)| text.lines()).map(|line| serde_json::from_str(line).unwrap());
    let records: Vec<T> = values
        .filter(|value: &Value| value.get(key).is_some())
        .map(|value| serde_json::from_value(value).unwrap())
        .collect();
    assert!(!records.is_empty(), "no record with `{key}`");
    records
}

/// The 23 numbers of the jar, which writes them like `9.0`.
fn numbers(text: &str) -> [u64; 23] {
    let numbers: Vec<u64> = text.split(' ').map(|n| n.strip_suffix(".0").unwrap().parse().unwrap()).collect();
    numbers.try_into().unwrap()
}

/// Fails with the first few of `wrong`.
fn none(wrong: &[String], of: usize) {
    assert!(wrong.is_empty(), "{} of {of} wrong\n{}", wrong.len(), wrong[..wrong.len().min(20)].join("\n"));
}

#[derive(Deserialize)]
struct Normalised {
    text: String,
    normalised: String,
}

#[test]
fn normaliser() {
    let Some(meteor) = meteor("normaliser") else { return };
    let records: Vec<Normalised> = records("normalised");
    let wrong = records.iter().filter_map(|record| {
        let found = normalise(&record.text, &meteor.language().abbreviations);
        (found != record.normalised)
            .then(|| format!("{:?}\n  expected {:?}\n  found    {found:?}", record.text, record.normalised))
    });
    none(&wrong.collect::<Vec<_>>(), records.len());
}

#[derive(Deserialize)]
struct Word {
    word: String,
    stem: String,
    synsets: Vec<u32>,
    stem_synsets: Vec<u32>,
}

#[test]
fn stems_and_synonyms() {
    let Some(meteor) = meteor("stems_and_synonyms") else { return };
    let records: Vec<Word> = records("synsets");
    let sorted = |sets: &[u32]| {
        let mut sets = sets.to_vec();
        sets.sort_unstable();
        sets.dedup();
        sets
    };
    let wordnet = &meteor.language().wordnet;
    let wrong = records.iter().filter(|record| {
        meteor.stem(&record.word) != record.stem
            || sorted(wordnet.sets(&record.word)) != record.synsets
            || sorted(&wordnet.base_form_sets(&record.word)) != record.stem_synsets
    });
    none(
        &wrong.map(|record| format!("{:?}: {:?}", record.word, meteor.stem(&record.word))).collect::<Vec<_>>(),
        records.len(),
    );
}

#[derive(Deserialize)]
struct Pair {
    candidate: String,
    reference: String,
    candidate_words: Vec<String>,
    reference_words: Vec<String>,
    matches: Vec<[usize; 5]>,
    stats: String,
    score: f64,
}

#[test]
fn alignments() {
    let Some(meteor) = meteor("alignments") else { return };
    let records: Vec<Pair> = records("matches");
    let mut wrong = Vec::new();
    for record in &records {
        let found = meteor.segment(&record.candidate, &record.reference);
        let matches: Vec<[usize; 5]> = found
            .matches
            .iter()
            .map(|m| {
                let module = match m.module {
                    Module::Exact => 0,
                    Module::Stem => 1,
                    Module::Synonym => 2,
                    Module::Paraphrase => 3,
                };
                [m.reference_start, m.reference_length, m.candidate_start, m.candidate_length, module]
            })
            .collect();
        assert_eq!(found.candidate, record.candidate_words, "{:?}", record.candidate);
        assert_eq!(found.reference, record.reference_words, "{:?}", record.reference);
        let difference = (found.statistics.score() - record.score).abs();
        if matches != record.matches || found.statistics.to_array() != numbers(&record.stats) || difference > TOLERANCE
        {
            wrong.push(format!(
                "{:?}\n{:?}\n  expected {:?}\n  found    {matches:?}",
                record.candidate, record.reference, record.matches
            ));
        }
    }
    none(&wrong, records.len());
}

#[derive(Deserialize)]
struct Image {
    candidate_tok: String,
    references_tok: Vec<String>,
    scores: BTreeMap<String, Value>,
}

impl Image {
    fn statistics(&self) -> [u64; 23] {
        numbers(self.scores["METEOR_stats"].as_str().unwrap())
    }

    fn score(&self) -> f64 {
        self.scores["METEOR"].as_f64().unwrap()
    }
}

#[derive(Deserialize)]
struct Corpus {
    name: String,
    corpus: BTreeMap<String, Value>,
    images: Vec<Image>,
}

impl Corpus {
    fn inputs(&self) -> Vec<(&str, Vec<&str>)> {
        self.images
            .iter()
            .map(|image| (image.candidate_tok.as_str(), image.references_tok.iter().map(String::as_str).collect()))
            .collect()
    }
}

fn corpora() -> Vec<Corpus> {
    let mut corpora = Vec::new();
    for (name, text) in texts("captions", &[".json.gz", ".json"]) {
        let mut value: Value = serde_json::from_str(&text).unwrap();
        let list = match value.get_mut("corpora") {
            Some(list) => list.take(),
            None => Value::Array(vec![value]),
        };
        corpora.extend(serde_json::from_value::<Vec<Corpus>>(list).unwrap_or_else(|e| panic!("{name}: {e}")));
    }
    corpora
}

#[test]
fn scores_of_corpora() {
    let Some(meteor) = meteor("scores_of_corpora") else { return };
    for corpus in corpora() {
        let scores = meteor.score(&corpus.inputs());
        assert_eq!(scores.per_image.len(), corpus.images.len());
        let mut wrong = Vec::new();
        for (image, found) in corpus.images.iter().zip(&scores.per_image) {
            let statistics = meteor.image_statistics(&image.candidate_tok, &image.references_tok).to_array();
            if statistics != image.statistics() || (found - image.score()).abs() > TOLERANCE {
                wrong.push(format!(
                    "{}: {:?}: {found}, expected {}\n  expected {:?}\n  found    {statistics:?}",
                    corpus.name,
                    image.candidate_tok,
                    image.score(),
                    image.statistics()
                ));
            }
        }
        none(&wrong, corpus.images.len());
        let expected = corpus.corpus["METEOR"].as_f64().unwrap();
        assert!(
            (scores.corpus - expected).abs() <= TOLERANCE,
            "{}: {}, expected {expected}",
            corpus.name,
            scores.corpus
        );
    }
}

/// The formula alone, which needs no data.
#[test]
fn scores_follow_from_statistics() {
    for corpus in corpora() {
        let mut sum = SegmentStatistics::default();
        for image in &corpus.images {
            let statistics = SegmentStatistics::from_array(&image.statistics());
            assert_eq!(statistics.to_array(), image.statistics());
            assert!(
                (statistics.score() - image.score()).abs() <= TOLERANCE,
                "{}: {:?}",
                corpus.name,
                image.candidate_tok
            );
            sum.add(&statistics);
        }
        assert!((sum.score() - corpus.corpus["METEOR"].as_f64().unwrap()).abs() <= TOLERANCE, "{}", corpus.name);
    }
}

#[test]
fn the_real_jar_agrees() {
    let Some(meteor) = meteor("the_real_jar_agrees") else { return };
    let Some(jar) = resources().and_then(|folder| Jar::new(&folder).ok()) else {
        return skipped("the_real_jar_agrees");
    };
    if std::process::Command::new("java").arg("-version").output().is_err() {
        return loud("SKIPPED: golden_meteor::the_real_jar_agrees: no Java");
    }
    let images = [
        ("a man rides a horse", vec!["a man is riding a horse", "the man rode horses"]),
        ("two ||| dogs", vec!["two dogs|||a pair of dogs", "dogs"]),
        ("", vec!["nothing was said"]),
        ("something", vec![]),
        ("a t-shirt in the u.s.", vec!["the tee shirt"]),
        ("line\nbreak", vec!["line break"]),
    ];
    let answer = jar.timeout(Duration::from_secs(300)).score(&images).unwrap_or_else(|error| panic!("{error}"));
    let native: Vec<SegmentStatistics> = images.iter().map(|(c, r)| meteor.image_statistics(c, r)).collect();
    assert_eq!(native, answer.statistics);
    let scores = meteor.score(&images);
    for (found, expected) in scores
        .per_image
        .iter()
        .chain([&scores.corpus])
        .zip(answer.scores.per_image.iter().chain([&answer.scores.corpus]))
    {
        assert!((found - expected).abs() <= TOLERANCE, "{found}, expected {expected}");
    }
}

#[test]
fn missing_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let message = |result: Result<Meteor, MeteorError>| result.map(|_| ()).unwrap_err().to_string();
    let found = message(Meteor::open(folder.path(), folder.path()));
    let expected =
        format!("METEOR needs meteor-1.5.jar and paraphrase-en.gz, not found in {}", folder.path().display());
    assert_eq!(found.lines().next(), Some(expected.as_str()));
    assert!(found.contains("\n  help: run scripts/meteor.sh, or take "), "{found}");
    std::fs::write(folder.path().join("meteor-1.5.jar"), "not a zip file").unwrap();
    assert!(
        message(Meteor::open(folder.path(), folder.path())).starts_with("METEOR needs paraphrase-en.gz, not found in ")
    );
    std::fs::write(folder.path().join("paraphrase-en.gz"), "not a gzip file").unwrap();
    let found = message(Meteor::open(folder.path(), folder.path()));
    assert!(found.contains("meteor-1.5.jar is not the jar of METEOR 1.5: "), "{found}");
}
