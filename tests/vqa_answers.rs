//! Scores of predicted answers, and the submissions for the evaluation server.

use std::collections::BTreeMap;
use std::sync::Arc;

use vlp::config::VqaEvaluator;
use vlp::data::karpathy::CaptionData;
use vlp::data::vqa_imdb::{Annotation, Question, VqaData};
use vlp::evaluate::{AnswerPrediction, save_answer_scores, score_answers, write_submissions};
use vlp::metrics::vqa::HumanAnswer;
use vlp::metrics::vqa::soft_targets::AnswerVocabulary;

/// Questions by id, with what people answered.
fn data(questions: &[(u64, &[&str])]) -> VqaData {
    let question = |(id, answers): &(u64, &[&str])| Question {
        id: *id,
        text: format!("question {id}?"),
        answers: answers.iter().map(|a| (*a).to_owned()).collect(),
        target: Vec::new(),
    };
    VqaData {
        texts: Arc::new(CaptionData { images: Vec::new(), samples: Vec::new() }),
        questions: questions.iter().map(question).collect(),
        answers: Arc::new(AnswerVocabulary::new(["<unk>", "yes", "no", "2", "red", "a dog"]).unwrap()),
    }
}

fn predictions(all: &[(u64, &str)]) -> Vec<AnswerPrediction> {
    all.iter().map(|(id, answer)| AnswerPrediction { question_id: *id, answer: (*answer).to_owned() }).collect()
}

/// `answer` so many times.
fn times(groups: &[(usize, &'static str)]) -> Vec<&'static str> {
    groups.iter().flat_map(|(count, answer)| vec![*answer; *count]).collect()
}

#[track_caller]
fn assert_scores(found: &BTreeMap<String, f64>, expected: &[(&str, f64)]) {
    let mut names: Vec<&str> = expected.iter().map(|(name, _)| *name).collect();
    names.sort_unstable();
    assert_eq!(found.keys().collect::<Vec<_>>(), names);
    for (name, value) in expected {
        assert!((found[*name] - value).abs() < 1e-12, "{name}: {} instead of {value}", found[*name]);
    }
}

/// Four questions: 1 is right by both rules; of 2 the legacy rule sees two of ten people; one of ten says what 3 does; 4 is right
/// as it stands, and the legacy rule takes its article off.
#[test]
fn accuracies_by_both_evaluators_and_of_the_commonest_answers() {
    let answers = [
        times(&[(8, "yes"), (2, "no")]),
        times(&[(2, "2"), (8, "two")]),
        times(&[(1, "red"), (9, "blue")]),
        times(&[(10, "a dog")]),
    ];
    let types = ["yes/no", "number", "other", "other"];
    let questions: Vec<(u64, &[&str])> = (1..).zip(&answers).map(|(id, a)| (id, a.as_slice())).collect();
    let annotations: BTreeMap<u64, Annotation> = questions
        .iter()
        .zip(types)
        .map(|((id, answers), kind)| {
            let person = |(i, a): (usize, &&str)| HumanAnswer { answer: (*a).to_owned(), identity: i.to_string() };
            let answers = answers.iter().enumerate().map(person).collect();
            (*id, Annotation { question_type: "is".into(), answer_type: kind.into(), answers })
        })
        .collect();
    let data = data(&questions);
    // The order does not matter, nor does a prediction for a question that was not asked.
    let predicted = predictions(&[(4, "a dog"), (99, "no"), (3, "red"), (2, "2"), (1, "yes")]);
    let official = [("overall", 0.825), ("yes_no", 1.0), ("number", 1.0), ("other", 0.65)];
    let legacy = [("overall", 0.475), ("yes_no", 1.0), ("number", 0.6), ("other", 0.15)];
    // Always `yes`, `two` and `a dog`.
    let majority_official = [("overall", 0.75), ("yes_no", 1.0), ("number", 1.0), ("other", 0.5)];
    let majority_legacy = [("overall", 0.4), ("yes_no", 1.0), ("number", 0.6), ("other", 0.0)];
    for (named, chosen, majority) in
        [(VqaEvaluator::Official, official, majority_official), (VqaEvaluator::Legacy, legacy, majority_legacy)]
    {
        let mut expected: Vec<(String, f64)> = Vec::new();
        expected.extend(chosen.map(|(name, v)| (name.to_owned(), v)));
        expected.extend(official.map(|(name, v)| (format!("{name}_official"), v)));
        expected.extend(legacy.map(|(name, v)| (format!("{name}_legacy"), v)));
        expected.extend(majority.map(|(name, v)| (format!("majority_{name}"), v)));
        let expected: Vec<(&str, f64)> = expected.iter().map(|(name, v)| (name.as_str(), *v)).collect();
        assert_scores(&score_answers(&data, &annotations, &predicted, named).unwrap().scores, &expected);
    }
}

/// Leaving out each of ten people in turn, min(1, agreeing / 3): with k of ten agreeing, k leave-outs see k − 1 of them and
/// 10 − k see k. So 0, 1, 2, 3, 4 of ten give 0, 0.3, 0.6, 0.9 and 1.
#[test]
fn each_question_by_hand_and_their_file() {
    let agreeing: Vec<Vec<&str>> = (0..5).map(|k| times(&[(k, "red"), (10 - k, "blue")])).collect();
    let questions: Vec<(u64, &[&str])> = (40..).zip(&agreeing).map(|(id, a)| (id, a.as_slice())).collect();
    let kinds = ["other", "number", "yes/no", "other", "nobody knows"];
    let person = |(i, a): (usize, &&str)| HumanAnswer { answer: (*a).to_owned(), identity: i.to_string() };
    let annotation = |((id, answers), kind): (&(u64, &[&str]), &str)| {
        let answers = answers.iter().enumerate().map(person).collect();
        (*id, Annotation { question_type: "is".into(), answer_type: kind.into(), answers })
    };
    let annotations: BTreeMap<u64, Annotation> = questions.iter().zip(kinds).map(annotation).collect();
    let data = data(&questions);
    let predicted = predictions(&[(40, "red"), (41, "red"), (42, "red"), (43, "red"), (44, "red")]);
    let found = score_answers(&data, &annotations, &predicted, VqaEvaluator::Legacy).unwrap();

    let expected = [
        (40, Some("other"), 0.0),
        (41, Some("number"), 0.3),
        (42, Some("yes_no"), 0.6),
        (43, Some("other"), 0.9),
        (44, None, 1.0),
    ];
    assert_eq!(found.per_question.len(), expected.len());
    for (question, (id, kind, accuracy)) in found.per_question.iter().zip(expected) {
        assert_eq!(question.question_id, id);
        let names = ["overall"].into_iter().chain(kind);
        let both = names.flat_map(|name| ["official", "legacy"].map(|rule| (format!("{name}_{rule}"), accuracy)));
        let both: Vec<(String, f64)> = both.collect();
        let both: Vec<(&str, f64)> = both.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_scores(&question.scores, &both);
    }
    // The mean over the questions that have a score is the score of all.
    for name in ["overall_official", "overall_legacy", "yes_no_official", "number_legacy", "other_official"] {
        let values: Vec<f64> = found.per_question.iter().filter_map(|q| q.scores.get(name).copied()).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        assert!((mean - found.scores[name]).abs() < 1e-12, "{name}: {mean}");
    }
    assert!((found.scores["overall"] - 2.8 / 5.0).abs() < 1e-12);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("epoch-0001.val2014.answers.scores.json");
    save_answer_scores(&found, &path).unwrap();
    let file: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(file["questions"], 5);
    assert_eq!(file["scores"]["overall"], found.scores["overall"]);
    assert_eq!(
        file["per_question"][4],
        serde_json::json!({ "question_id": 44, "scores": { "overall_official": 1.0, "overall_legacy": 1.0 } })
    );
    let names: Vec<&String> = file["per_question"][0]["scores"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["other_legacy", "other_official", "overall_legacy", "overall_official"]);
}

#[test]
fn without_types_and_of_equally_common_answers_the_first_in_the_alphabet() {
    let data = data(&[(1, &["cat", "cat"]), (2, &["cat", "dog", "dog", "dog"])]);
    let found = score_answers(&data, &BTreeMap::new(), &predictions(&[(1, "dog"), (2, "dog")]), VqaEvaluator::Official)
        .unwrap()
        .scores;
    // `cat`: 1/3 for each of two people; 1/3 for three of four. `dog` would be 0, and (3 · 2/3 + 1) / 4.
    let (cat, dog) = ((1.0 / 3.0 + 1.0 / 4.0) / 2.0, 3.0 / 8.0);
    assert_scores(
        &found,
        &[("overall", dog), ("overall_official", dog), ("overall_legacy", dog), ("majority_overall", cat)],
    );
}

#[test]
fn what_cannot_be_scored() {
    let sound = data(&[(1, &["yes"]), (2, &["no"])]);
    let none = BTreeMap::new();
    let error = |data: &VqaData, predicted: &[(u64, &str)]| {
        score_answers(data, &none, &predictions(predicted), VqaEvaluator::Official).unwrap_err().to_string()
    };
    assert_eq!(
        error(&sound, &[(1, "yes")]),
        "question 2 has no predicted answer\n  help: is its image in the list of valid images, and the question in the imdb file? \
         every question must be answered"
    );
    let unanswered = data(&[(1, &["yes"]), (2, &[])]);
    assert_eq!(
        error(&unanswered, &[(1, "yes"), (2, "no")]),
        "the predictions cannot be scored: question 2 has no human answer\n  help: leave the question out, or take the official annotations"
    );
}

#[test]
fn one_submission_for_each_phase_of_the_server() {
    let data = data(&[(30, &[]), (10, &[]), (20, &[])]);
    let predicted = predictions(&[(20, "a dog"), (30, "yes"), (10, "2")]);
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("run/submissions");
    let write = |phases: &[(&str, &[u64])], name: &str| {
        let phases = phases.iter().map(|(phase, ids)| ((*phase).to_owned(), ids.to_vec())).collect();
        write_submissions(&data, "test2015", &phases, &predicted, &at.join(name)).map(|files| {
            let content = |file: std::path::PathBuf| {
                let name = file.file_name().unwrap().to_str().unwrap().to_owned();
                (name, std::fs::read_to_string(file).unwrap())
            };
            files.into_iter().map(content).collect::<Vec<_>>()
        })
    };
    let file = |phase: &str| format!("v2_OpenEnded_mscoco_{phase}_vlp_results.json");
    let answer = |id: u64, answer: &str| format!("{{\"question_id\":{id},\"answer\":\"{answer}\"}}");

    // Without a questions file: what was asked, in that order.
    let all = format!("[{},{},{}]", answer(30, "yes"), answer(10, "2"), answer(20, "a dog"));
    assert_eq!(write(&[], "a").unwrap(), [(file("test2015"), all)]);

    // With them: the order of the files; a phase with other questions (val2014) is not written.
    let ordered = format!("[{},{},{}]", answer(10, "2"), answer(20, "a dog"), answer(30, "yes"));
    let dev = format!("[{}]", answer(20, "a dog"));
    let phases: [(&str, &[u64]); 3] = [("test2015", &[10, 20, 30]), ("test-dev2015", &[20]), ("val2014", &[1, 10])];
    assert_eq!(write(&phases, "b").unwrap(), [(file("test-dev2015"), dev), (file("test2015"), ordered)]);
    assert_eq!(std::fs::read_dir(at.join("b")).unwrap().count(), 2);

    // The official file of the split asks more than was answered: nothing is written, not even for the other phase.
    let phases: [(&str, &[u64]); 2] = [("test2015", &[10, 20, 30, 40]), ("test-dev2015", &[20])];
    assert_eq!(
        write(&phases, "c").unwrap_err().to_string(),
        "question 40 has no predicted answer\n  help: is its image in the list of valid images, and the question in the imdb file? \
         every question must be answered"
    );
    assert!(!at.join("c").exists());
}

#[test]
fn submissions_that_the_server_would_refuse() {
    let data = data(&[(1, &[]), (2, &[])]);
    let folder = tempfile::tempdir().unwrap();
    let error = |predicted: &[(u64, &str)]| {
        let written = write_submissions(&data, "test2015", &BTreeMap::new(), &predictions(predicted), folder.path());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        written.unwrap_err().to_string()
    };
    assert_eq!(
        error(&[(1, "yes"), (1, "yes"), (2, "no")]),
        "question 1 is answered twice\n  help: the evaluation server takes one answer per question; remove duplicates from the imdb file"
    );
    assert_eq!(
        error(&[(1, "yes"), (2, "perhaps")]),
        "question 2 is answered with \"perhaps\", which is not in the answer vocabulary\n  help: `data.answers` must be the vocabulary \
         that the model was trained with"
    );
    assert!(error(&[(1, "yes"), (2, "<unk>")]).starts_with("question 2 is answered with \"<unk>\", which is not"));
    assert_eq!(
        error(&[(2, "no")]),
        "question 1 has no predicted answer\n  help: is its image in the list of valid images, and the question in the imdb file? \
         every question must be answered"
    );
}
