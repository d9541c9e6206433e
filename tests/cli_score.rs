//! `vlp score`: exit code, stdout and stderr of the real binary, whole.
//!
//! The texts are in `snapshots/`; after a wanted change, `INSTA_UPDATE=always cargo test --test cli_score` writes them again.
//! Mistakes in files are in `cli_score/mistakes.rs`.

#[path = "cli_score/mistakes.rs"]
mod mistakes;
#[path = "cli_score/world.rs"]
mod world;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use world::{ANNOTATIONS, PREDICTIONS, QUESTIONS, REFERENCES, RESULTS, World, captions, vqa};

/// The scores that need nothing but this program.
const NATIVE: &str = "bleu,rouge_l,cider";

#[test]
fn captions_as_a_table() {
    captions().snapshot("captions_table", &["--metrics", NATIVE], 0);
}

#[test]
fn captions_per_image() {
    captions().snapshot("captions_per_image", &["--metrics", "bleu_1,bleu_4,cider", "--per-image"], 0);
}

#[test]
fn captions_as_csv() {
    captions().snapshot("captions_csv", &["--metrics", NATIVE, "--per-image", "--format", "csv"], 0);
    captions().snapshot("captions_csv_corpus", &["--metrics", "rouge_l,bleu_2", "--format", "csv"], 0);
}

#[test]
fn captions_as_json() {
    captions().snapshot("captions_json", &["--metrics", NATIVE, "--per-image", "--format", "json"], 0);
}

#[test]
fn scores_of_the_library() {
    let output = captions().run(&["--metrics", NATIVE, "--format", "json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let entry = |id: &str, candidate: &str, references: &[&str]| vlp::metrics::CaptionEntry {
        id: id.into(),
        candidate: candidate.into(),
        references: references.iter().map(|&r| r.into()).collect(),
    };
    // The images in the order of the annotations.
    let images = [
        entry("7", "two cats", &["Two cats on a sofa.", "Cats."]),
        entry("3", "a dog runs on the grass", &["A dog runs on the grass."]),
    ];
    assert_eq!(found["scores"], json!(vlp::metrics::score_captions(&images).unwrap().corpus));
}

/// What is absent is named; the other scores are printed, and the exit code is 0 unless it was asked for by name.
#[test]
fn what_is_not_available() {
    captions().with("VLP_SPICE_DIR", "no-spice").snapshot("not_available", &["--per-image"], 0);
    captions().with("VLP_SPICE_DIR", "no-spice").snapshot("not_available_csv", &["--format", "csv"], 0);
    captions().with("VLP_SPICE_DIR", "no-spice").snapshot(
        "spice_asked_for",
        &["--metrics", "spice", "--format", "json"],
        3,
    );
}

#[test]
fn nowhere_to_look_for_spice() {
    captions().snapshot("spice_nowhere", &["--metrics", "bleu_1,spice"], 3);
}

#[test]
fn images_without_a_prediction_are_reported() {
    let one = r#"[{"image_id": 3, "caption": "a dog"}]"#;
    captions().file("p.json", one).snapshot("captions_subset", &["--metrics", "bleu_1"], 0);
    let images: Vec<String> = (100..120).map(|id| format!("{{\"id\": {id}}}")).collect();
    let references = REFERENCES.replace(r#"{"id": 3}]"#, &format!("{{\"id\": 3}}, {}]", images.join(", ")));
    captions().file("r.json", references).snapshot("captions_subset_of_many", &["--metrics", "bleu_1"], 0);
}

#[test]
fn images_that_are_not_listed_are_reported() {
    let references = REFERENCES.replace(r#", {"id": 3}]"#, "]");
    captions().file("r.json", references).snapshot("captions_unlisted", &["--metrics", "bleu_1"], 0);
}

#[test]
fn ids_may_be_names_and_images_are_optional() {
    let predictions = r#"[{"image_id": "b,1", "caption": "a dog"}, {"image_id": "a|2", "caption": "cats"}]"#;
    let references =
        r#"{"annotations": [{"image_id": "a|2", "caption": "Cats."}, {"image_id": "b,1", "caption": "Dogs."}]}"#;
    let named = || captions().file("p.json", predictions).file("r.json", references);
    named().snapshot("captions_names_csv", &["--metrics", "bleu_1", "--per-image", "--format", "csv"], 0);
    named().snapshot("captions_names_table", &["--metrics", "bleu_1", "--per-image"], 0);
}

#[test]
fn a_byte_order_mark_is_allowed() {
    let output =
        captions().file("p.json", [b"\xef\xbb\xbf", PREDICTIONS.as_bytes()].concat()).run(&["--metrics", NATIVE]);
    assert_eq!(output, captions().run(&["--metrics", NATIVE]));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn vqa_as_a_table() {
    vqa().snapshot("vqa_table", &["--questions", "q.json"], 0);
    vqa().snapshot("vqa_per_question", &["--questions", "q.json", "--per-image"], 0);
    vqa().snapshot("vqa_legacy", &["--evaluator", "legacy"], 0);
}

#[test]
fn vqa_as_csv() {
    vqa().snapshot("vqa_csv", &["--per-image", "--format", "csv"], 0);
}

#[test]
fn vqa_as_json() {
    vqa().snapshot("vqa_json", &["--format", "json"], 0);
    let args = ["--format", "json", "--per-image", "--questions", "q.json", "--evaluator", "legacy"];
    vqa().snapshot("vqa_json_per_question", &args, 0);
}

#[test]
fn questions_without_a_prediction() {
    let one = r#"[{"question_id": 2, "answer": "yes"}]"#;
    vqa().file("p.json", one).snapshot("vqa_not_all", &[], 3);
    vqa().file("p.json", one).snapshot("vqa_subset", &["--subset"], 0);
    vqa().file("p.json", one).snapshot("vqa_legacy_subset", &["--evaluator", "legacy"], 0);
}

#[test]
fn questions_and_annotations_that_differ() {
    let questions = QUESTIONS.replace("\"question_id\": 1,", "\"question_id\": 5,");
    vqa().file("q.json", questions).snapshot("vqa_other_questions", &["--questions", "q.json"], 0);
}

/// Reads a golden file of the VQA evaluation.
fn golden(name: &str) -> String {
    let given = std::env::var_os("VLP_GOLDEN_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let folder =
        given.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")).join("metrics/vqa");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths = entries.map(|entry| entry.unwrap().path());
    let path = paths.find(|path| path.file_name().unwrap().to_string_lossy().contains(name)).unwrap();
    let mut text = String::new();
    flate2::read::MultiGzDecoder::new(File::open(&path).unwrap()).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn golden_files_through_the_command() {
    for (evaluator, expected) in [("official", golden("official")), ("legacy", golden("legacy"))] {
        let world = World::new("vqa", &[("p.json", &golden("predictions")), ("a.json", &golden("annotations"))])
            .file("q.json", golden("questions"));
        let output = world.run(&["--questions", "q.json", "--evaluator", evaluator, "--format", "json", "--per-image"]);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let expected: Value = serde_json::from_str(&expected).unwrap();
        let close = |a: &Value, b: &Value| (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() <= 1e-9;
        assert!(close(&found["overall"], &expected["full"]["overall"]), "{evaluator}");
        for (ours, theirs) in [("per_answer_type", "perAnswerType"), ("per_question_type", "perQuestionType")] {
            let groups = found[ours].as_object().unwrap();
            assert_eq!(groups.len(), expected["full"][theirs].as_object().unwrap().len());
            for (name, group) in groups {
                assert!(close(&group["accuracy"], &expected["full"][theirs][name]), "{evaluator} {name}");
            }
        }
        let questions = found["per_question"].as_array().unwrap();
        assert_eq!(questions.len(), expected["per_question_percent"].as_object().unwrap().len());
        for question in questions {
            let id = question["question_id"].to_string();
            assert!(close(&question["accuracy"], &expected["per_question_percent"][&id]), "{evaluator} {id}");
        }
    }
}

#[test]
fn fixtures_are_what_the_tests_say() {
    let texts = [PREDICTIONS, REFERENCES, RESULTS, QUESTIONS, ANNOTATIONS];
    assert!(texts.iter().all(|text| serde_json::from_str::<Value>(text).is_ok()));
}
