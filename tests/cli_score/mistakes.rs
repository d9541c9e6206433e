//! Files that cannot be scored: nothing on stdout, and a message that names file and entry.

use crate::world::{ANNOTATIONS, PREDICTIONS, QUESTIONS, REFERENCES, World, captions, vqa};

/// Tests that run one command on one changed file; exit code 3.
macro_rules! mistakes {
    ($($name:ident: $world:expr, $file:literal = $content:expr;)*) => { $(
        #[test]
        fn $name() {
            let world: World = $world;
            world.file($file, $content).snapshot(concat!("mistake_", stringify!($name)), &[], 3);
        }
    )* };
}

mistakes! {
    predictions_are_an_object: captions(), "p.json" = r#"{"results": []}"#;
    predictions_are_empty: captions(), "p.json" = "[]";
    predictions_are_not_json: captions(), "p.json" = r#"[{"image_id": 3, "caption": "a dog"},]"#;
    predictions_are_cut_off: captions(), "p.json" = &PREDICTIONS[..PREDICTIONS.len() - 20];
    predictions_go_on: captions(), "p.json" = format!("{PREDICTIONS}{PREDICTIONS}");
    prediction_types: captions(), "p.json" = r#"[{"image_id": 3, "caption": 5}, {"image_id": 3.5, "caption": "a"}, "a dog",
        {"image_id": -1, "caption": null}, {"image_id": [1], "caption": ["a dog"]}, {"id": 3, "text": "a"}]"#;
    prediction_twice: captions(), "p.json" = r#"[{"image_id": 3, "caption": "a"}, {"image_id": 7, "caption": "b"}, {"image_id": 3, "caption": "a"}]"#;
    prediction_for_an_unknown_image: captions(), "p.json" = r#"[{"image_id": 3, "caption": "a"}, {"image_id": 99, "caption": "b"}, {"image_id": 8, "caption": "c"}]"#;
    prediction_for_an_image_without_captions: captions(), "r.json" = REFERENCES.replace("7, \"caption\"", "3, \"caption\"");
    prediction_for_a_name_instead_of_a_number: captions(), "p.json" = r#"[{"image_id": "3", "caption": "a"}]"#;
    many_mistakes: captions(), "p.json" = format!("[{}]", [r#"{"image_id": 1}"#; 12].join(","));
    latin_1_in_an_entry: captions(), "p.json" = b"[{\"image_id\": 3, \"caption\": \"a dog\"}, {\"image_id\": 7, \"caption\": \"a caf\xe9\"}]";
    latin_1_outside_the_entries: captions(), "r.json" = [b"{\"info\": \"\xe9\", ", &REFERENCES.as_bytes()[1..]].concat();
    utf_16: captions(), "p.json" = b"\xff\xfe[\0]\0";
    lone_surrogate: captions(), "p.json" = r#"[{"image_id": 3, "caption": "a \ud83d dog"}]"#;
    references_are_a_list: captions(), "r.json" = "[]";
    references_without_annotations: captions(), "r.json" = r#"{"images": [{"id": 3}]}"#;
    image_twice: captions(), "r.json" = REFERENCES.replace("{\"id\": 3}]", "{\"id\": 3}, {\"id\": 7}]");
    annotation_twice: captions(), "r.json" = REFERENCES.replace("{\"id\": 3, \"image_id\"", "{\"id\": 2, \"image_id\"");
    annotation_types: captions(), "r.json" = REFERENCES.replace("\"Cats.\"", "null").replace("{\"id\": 1,", "{\"id\": \"x\",");
    answer_types: vqa(), "p.json" = r#"[{"question_id": "2", "answer": "yes"}, {"question_id": 1, "answer": 2}]"#;
    answer_twice: vqa(), "p.json" = r#"[{"question_id": 1, "answer": "yes"}, {"question_id": 1, "answer": "no"}]"#;
    answer_to_an_unknown_question: vqa(), "p.json" = r#"[{"question_id": 1, "answer": "yes"}, {"question_id": 2, "answer": "a"}, {"question_id": 77, "answer": "b"}]"#;
    human_answers: vqa(), "a.json" = ANNOTATIONS.replacen("\"answer\": \"3\"", "\"answer\": 3", 1).replace("\"answer_type\": \"yes/no\", ", "");
    no_human_answers: vqa(), "a.json" = r#"{"annotations": [{"question_id": 1, "question_type": "is it", "answer_type": "other", "answers": []},
        {"question_id": 2, "question_type": "is it", "answer_type": "other", "answers": {}}]}"#;
    annotated_twice: vqa(), "a.json" = ANNOTATIONS.replace("\"question_id\": 2", "\"question_id\": 1");
    annotations_are_questions: vqa(), "a.json" = QUESTIONS;
}

#[test]
fn questions_that_are_wrong() {
    let questions =
        QUESTIONS.replace("\"question_id\": 2", "\"question_id\": 1").replace("\"How many, if any?\"", "[]");
    vqa().file("q.json", questions).snapshot("mistake_questions", &["--questions", "q.json"], 3);
}

#[test]
fn files_that_are_not_there() {
    captions().without("r.json").snapshot("mistake_no_references", &[], 3);
    vqa().snapshot("mistake_no_questions", &["--questions", "none.json"], 3);
}

#[test]
fn flags() {
    captions().snapshot("mistake_unknown_metric", &["--metrics", "bleu,cidre"], 2);
}
