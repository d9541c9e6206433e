//! VQA accuracy, answer normalisation and soft targets against the original tools.
//!
//! Reads `tests/golden/metrics/vqa`, or the same folder of `$VLP_GOLDEN_DIR/metrics`; see the README there. Files are known
//! by what is in them, whatever they are called; the two evaluations, which look alike, by `official` and `legacy` in their names.

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

/// The golden files with their texts, unpacked.
fn texts() -> Vec<(PathBuf, String)> {
    let folder = golden_dir().join("metrics/vqa");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

/// The one JSON file of which `is` holds.
fn json(what: &str, is: impl Fn(&str, &Value) -> bool) -> Value {
    let parsed = texts().into_iter().filter_map(|(path, text)| {
        let value: Value = serde_json::from_str(&text).ok()?;
        is(&path.file_name()?.to_string_lossy(), &value).then_some(value)
    });
    let mut found: Vec<Value> = parsed.collect();
    assert_eq!(found.len(), 1, "files with {what} in {}", golden_dir().join("metrics/vqa").display());
    found.remove(0)
}

/// The evaluation whose name has `part`.
fn evaluation(part: &str) -> Value {
    json(part, |name, value| name.contains(part) && value.get("per_question_percent").is_some())
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

/// Lines of JSON with this key, in all files; at least one.
fn records(key: &str) -> Vec<Value> {
    let texts = texts();
    let lines = texts.iter().filter(|(path, _)| path.to_string_lossy().contains(".jsonl")).flat_map(|(_, t)| t.lines());
    let values = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let records: Vec<Value> = values.filter(|value| value.get(key).is_some()).collect();
    assert!(!records.is_empty(), "no record with `{key}`");
    records
}

fn str_of<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("`{key}` of {value}"))
}

#[test]
fn normalisation() {
    for record in records("stripped") {
        let stripped = strip(str_of(&record, "raw"));
        assert_eq!(stripped, str_of(&record, "stripped"), "{record}");
        assert_eq!(punctuation(&stripped), str_of(&record, "punctuation"), "{record}");
        assert_eq!(digit_article(&punctuation(&stripped)), str_of(&record, "processed"), "{record}");
        assert_eq!(normalise(&stripped), str_of(&record, "processed"), "{record}");
    }
}

#[test]
fn soft_targets() {
    let texts = texts();
    let (_, vocabulary) = texts.iter().find(|(path, _)| path.extension().is_some_and(|e| e == "txt")).unwrap();
    let vocabulary = AnswerVocabulary::new(vocabulary.lines()).unwrap();
    for record in records("indices") {
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
    let predictions: BTreeMap<u64, String> = json("predictions", |_, value| value[0].get("question_id").is_some())
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
    json("annotations", |_, value| value.get("annotations").is_some())["annotations"]
        .as_array()
        .unwrap()
        .iter()
        .map(entry)
        .collect()
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
    check(&score_vqa(&entries, Evaluator::Official).unwrap(), &entries, &evaluation("official"));
}

#[test]
fn legacy() {
    let entries = entries();
    check(&score_vqa(&entries, Evaluator::Legacy).unwrap(), &entries, &evaluation("legacy"));
}
