//! VQA accuracy, answer normalisation and soft targets against the original tools.
//!
//! Reads `tests/golden/metrics/vqa`, or the same folder of `$VLP_GOLDEN_DIR/metrics`; see the README there. Files are found
//! by a part of their name.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde_json::Value;
use vlp::metrics::vqa::normalise::{digit_article, normalise, punctuation, strip};
use vlp::metrics::vqa::soft_targets::{AnswerVocabulary, simple_word, soft_target};
use vlp::metrics::vqa::{Evaluator, Group, HumanAnswer, VqaEntry, VqaScores, score_vqa};

const TOLERANCE: f64 = 1e-9;

fn golden_dir() -> PathBuf {
    let given = std::env::var_os("VLP_GOLDEN_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"))
}

/// The texts of the files whose names contain `part`, unpacked; at least one.
fn texts(part: &str) -> Vec<String> {
    let folder = golden_dir().join("metrics/vqa");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.file_name().unwrap().to_string_lossy().contains(part));
    paths.sort();
    assert!(!paths.is_empty(), "{} has no golden file named `…{part}…`", folder.display());
    paths.iter().map(|path| read(path)).collect()
}

fn only(part: &str) -> String {
    let mut texts = texts(part);
    assert_eq!(texts.len(), 1, "one file named `…{part}…`");
    texts.remove(0)
}

fn json(part: &str) -> Value {
    serde_json::from_str(&only(part)).unwrap()
}

fn read(path: &Path) -> String {
    let mut file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut text = String::new();
    let result = if path.extension().is_some_and(|e| e == "gz") {
        MultiGzDecoder::new(file).read_to_string(&mut text)
    } else {
        file.read_to_string(&mut text)
    };
    result.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text
}

/// Lines of the JSON-lines files, at least one.
fn records(part: &str) -> Vec<Value> {
    let records: Vec<Value> =
        texts(part).iter().flat_map(|t| t.lines()).map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!records.is_empty(), "no record in `…{part}…`");
    records
}

fn str_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("`{key}` of {value}"))
}

#[test]
fn normalisation() {
    for record in records("normalisation") {
        let stripped = strip(str_of(&record, "raw"));
        assert_eq!(stripped, str_of(&record, "stripped"), "{record}");
        assert_eq!(punctuation(&stripped), str_of(&record, "punctuation"), "{record}");
        assert_eq!(digit_article(&punctuation(&stripped)), str_of(&record, "processed"), "{record}");
        assert_eq!(normalise(&stripped), str_of(&record, "processed"), "{record}");
    }
}

#[test]
fn soft_targets() {
    let vocabulary = only("answer_vocab");
    let vocabulary = AnswerVocabulary::new(vocabulary.lines()).unwrap();
    for record in records("soft_targets") {
        let answers: Vec<&str> = record["answers"].as_array().unwrap().iter().map(|a| a.as_str().unwrap()).collect();
        let processed: Vec<String> = answers.iter().map(|a| simple_word(a)).collect();
        assert_eq!(serde_json::json!(processed), record["processed"], "{record}");
        let target = soft_target(&answers, &vocabulary).unwrap();
        assert_eq!(serde_json::json!(target.indices), record["indices"], "{record}");
        let mut expected: Vec<(u32, f64)> = record["scores"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(index, score)| (index.parse().unwrap(), score.as_f64().unwrap()))
            .filter(|(_, score)| *score != 0.0)
            .collect();
        expected.sort_by_key(|(index, _)| *index);
        assert_eq!(target.scores.len(), expected.len(), "{record}");
        for (&(class, score), &(index, wanted)) in target.scores.iter().zip(&expected) {
            assert_eq!(class, index, "{record}");
            assert!((f64::from(score) - wanted).abs() <= 1e-6, "{score} for class {class} of {record}");
        }
    }
}

/// The questions in the order of the annotations.
fn entries() -> Vec<VqaEntry> {
    let predictions: BTreeMap<u64, String> = json("predictions")
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["question_id"].as_u64().unwrap(), str_of(p, "answer").to_owned()))
        .collect();
    let answer = |a: &Value| HumanAnswer {
        answer: str_of(a, "answer").to_owned(),
        identity: format!("{} {}", a["answer_id"], a["answer_confidence"]),
    };
    let entry = |a: &Value| VqaEntry {
        question_id: a["question_id"].as_u64().unwrap(),
        question_type: str_of(a, "question_type").to_owned(),
        answer_type: str_of(a, "answer_type").to_owned(),
        answers: a["answers"].as_array().unwrap().iter().map(answer).collect(),
        prediction: predictions[&a["question_id"].as_u64().unwrap()].clone(),
    };
    json("annotations")["annotations"].as_array().unwrap().iter().map(entry).collect()
}

fn close(name: &str, value: f64, expected: &Value) {
    let expected = expected.as_f64().unwrap_or_else(|| panic!("no number for {name}"));
    assert!((value - expected).abs() <= TOLERANCE, "{name}: {value} instead of {expected}");
}

/// Python's `round(value, 2)`: both round the exact decimal expansion, ties to even.
fn rounded(value: f64) -> f64 {
    format!("{value:.2}").parse().unwrap()
}

fn check(scores: &VqaScores, entries: &[VqaEntry], golden: &Value) {
    let (full, rounded_2) = (&golden["full"], &golden["rounded_2"]);
    close("overall", scores.overall, &full["overall"]);
    assert_eq!(rounded(scores.overall), rounded_2["overall"].as_f64().unwrap());
    for (key, groups) in [("perAnswerType", &scores.per_answer_type), ("perQuestionType", &scores.per_question_type)] {
        let names = |v: &Value| v[key].as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(groups.keys().cloned().collect::<std::collections::BTreeSet<_>>(), names(full), "{key}");
        assert_eq!(groups.values().map(|g: &Group| g.questions).sum::<usize>(), entries.len(), "{key}");
        for (name, group) in groups {
            close(&format!("{key} {name}"), group.accuracy, &full[key][name]);
            assert_eq!(Some(rounded(group.accuracy)), rounded_2[key][name].as_f64(), "{key} {name}");
        }
    }
    let per_question = golden["per_question_percent"].as_object().unwrap();
    assert_eq!(per_question.len(), entries.len());
    for (entry, &accuracy) in entries.iter().zip(&scores.per_question) {
        close(&format!("{entry:?}"), accuracy, &per_question[&entry.question_id.to_string()]);
    }
}

#[test]
fn official() {
    let entries = entries();
    check(&score_vqa(&entries, Evaluator::Official).unwrap(), &entries, &json("official"));
}

#[test]
fn legacy() {
    let entries = entries();
    check(&score_vqa(&entries, Evaluator::Legacy).unwrap(), &entries, &json("legacy"));
}
