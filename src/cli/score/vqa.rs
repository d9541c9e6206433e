//! `vlp score vqa`: VQA results, questions and annotations in, accuracies out.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::super::context::{Failure, exit};
use super::super::run::print;
use super::entries::{Document, Entry, FileError, Layout, some};
use super::{EvaluatorArg, FormatArg, VqaArgs, output};
use crate::metrics::vqa::{Evaluator, Group, HumanAnswer, VqaEntry, VqaScores, score_vqa};

const RESULTS: Layout = Layout {
    name: "a VQA results file",
    key: "",
    optional: false,
    help: "it must be a list of `{\"question_id\": 42000, \"answer\": \"yes\"}`, one for each question",
};
const QUESTIONS: Layout = Layout {
    name: "a VQA questions file",
    key: "questions",
    optional: false,
    help: "`questions` must be a list of `{\"question_id\": 42000, \"question\": \"Is it raining?\"}`, each question once",
};
const ANNOTATIONS: Layout = Layout {
    name: "a VQA annotations file",
    key: "annotations",
    optional: false,
    help: "`annotations` must be a list of `{\"question_id\", \"question_type\", \"answer_type\", \"answers\": [{\"answer\", \
           \"answer_id\"}, …]}`, each question once",
};

/// Runs the command.
pub fn execute(args: &VqaArgs) -> Result<u8, Failure> {
    let mut predictions = predictions(&Document::read(&args.predictions, "--predictions")?)?;
    let questions = match &args.questions {
        Some(path) => Some(questions(&Document::read(path, "--questions")?)?),
        None => None,
    };
    let mut entries = annotations(&Document::read(&args.annotations, "--annotations")?)?;
    if let Some(questions) = &questions {
        compare(args, questions, &entries);
    }
    let (total, annotated) = (predictions.len(), entries.len());
    let mut missing = Vec::new();
    entries.retain_mut(|entry| match predictions.remove(&entry.question_id) {
        Some((_, answer)) => {
            entry.prediction = answer;
            true
        }
        None => {
            missing.push(entry.question_id.to_string());
            false
        }
    });
    unknown(args, predictions, total)?;
    not_predicted(args, &missing, annotated)?;
    let evaluator = match args.evaluator {
        EvaluatorArg::Official => Evaluator::Official,
        EvaluatorArg::Legacy => Evaluator::Legacy,
    };
    let scores = score_vqa(&entries, evaluator).map_err(|error| Failure::new(exit::DATA, error))?;
    let per_question: Vec<(u64, f64)> = if args.output.per_image {
        entries.iter().map(|e| e.question_id).zip(scores.per_question.iter().copied()).collect()
    } else {
        Vec::new()
    };
    let report = Report { scores, questions: entries.len(), per_question, texts: questions.unwrap_or_default() };
    print(&match args.output.format {
        FormatArg::Table => report.table(),
        FormatArg::Json => report.json(args.output.per_image),
        FormatArg::Csv => report.csv(),
    })?;
    Ok(exit::OK)
}

/// Place in the file and answer, by question.
type Predictions = HashMap<u64, (usize, String)>;

fn predictions(file: &Document) -> Result<Predictions, FileError> {
    let (mut seen, mut predictions) = (HashMap::new(), HashMap::new());
    file.each(&RESULTS, |entry| {
        let (id, answer) = (entry.number("question_id"), entry.text("answer"));
        let Some(id) = id else { return };
        if entry.once("question_id", id, &mut seen).is_some() {
            predictions.extend(answer.map(|answer| (id, (entry.index, answer))));
        }
    })?;
    if predictions.is_empty() {
        let problem = "it is an empty list".to_owned();
        return Err(FileError::Layout { path: file.path().to_owned(), layout: &RESULTS, problem });
    }
    Ok(predictions)
}

/// Texts by id.
fn questions(file: &Document) -> Result<BTreeMap<u64, String>, FileError> {
    let (mut seen, mut questions) = (HashMap::new(), BTreeMap::new());
    file.each(&QUESTIONS, |entry| {
        let (id, text) = (entry.number("question_id"), entry.text("question"));
        let Some(id) = id else { return };
        if entry.once("question_id", id, &mut seen).is_some() {
            questions.extend(text.map(|text| (id, text)));
        }
    })?;
    Ok(questions)
}

/// All annotated questions, not yet with a prediction.
fn annotations(file: &Document) -> Result<Vec<VqaEntry>, FileError> {
    let (mut seen, mut entries) = (HashMap::new(), Vec::new());
    file.each(&ANNOTATIONS, |entry| {
        let id = entry.number("question_id");
        let (question_type, answer_type) = (entry.text("question_type"), entry.text("answer_type"));
        let mut answers = Vec::new();
        let listed = entry.list("answers", |answer| answers.extend(human_answer(answer)));
        if listed.is_some() && answers.is_empty() {
            entry.complain::<()>("answers", "has no answer");
        }
        let Some(question_id) = id else { return };
        entry.once("question_id", question_id, &mut seen);
        if let (Some(question_type), Some(answer_type)) = (question_type, answer_type) {
            entries.push(VqaEntry { question_id, question_type, answer_type, answers, prediction: String::new() });
        }
    })?;
    Ok(entries)
}

fn human_answer(answer: &mut Entry) -> Option<HumanAnswer> {
    Some(HumanAnswer { answer: answer.text("answer")?, identity: answer.all_but("answer") })
}

/// Warns of ids that only one of the two files has.
fn compare(args: &VqaArgs, questions: &BTreeMap<u64, String>, entries: &[VqaEntry]) {
    let Some(path) = &args.questions else { return };
    let annotated: std::collections::BTreeSet<u64> = entries.iter().map(|entry| entry.question_id).collect();
    let unasked: Vec<u64> = annotated.iter().copied().filter(|id| !questions.contains_key(id)).collect();
    let unanswered: Vec<u64> = questions.keys().copied().filter(|id| !annotated.contains(id)).collect();
    let (questions, annotations) = (path.display(), args.annotations.display());
    for (ids, here, not_here) in [(unasked, &annotations, &questions), (unanswered, &questions, &annotations)] {
        if !ids.is_empty() {
            let texts: Vec<String> = ids.iter().map(u64::to_string).collect();
            eprintln!(
                "warning: questions of `{here}` that `{not_here}` lacks, {} of them: {}",
                ids.len(),
                some(&texts)
            );
        }
    }
}

fn unknown(args: &VqaArgs, left: Predictions, total: usize) -> Result<(), FileError> {
    if left.is_empty() {
        return Ok(());
    }
    let mut unknown: Vec<(usize, u64)> = left.into_iter().map(|(id, (index, _))| (index, id)).collect();
    unknown.sort_unstable();
    let problem = format!(
        "{} of {total} predictions in `{}` are for questions that `{}` lacks",
        unknown.len(),
        args.predictions.display(),
        args.annotations.display()
    );
    let ids = unknown.iter().map(|(index, id)| format!("{id} (entry {index})")).collect();
    Err(FileError::Ids { problem, ids, help: "give the annotations of the split that was predicted" })
}

/// The official tool refuses to score a part of the questions; the legacy one counts what is predicted.
fn not_predicted(args: &VqaArgs, missing: &[String], annotated: usize) -> Result<(), FileError> {
    if missing.is_empty() {
        return Ok(());
    }
    let (count, annotations) = (missing.len(), args.annotations.display());
    if args.evaluator == EvaluatorArg::Official && !args.subset {
        return Err(FileError::Ids {
            problem: format!(
                "{count} of {annotated} questions in `{annotations}` have no prediction in `{}`",
                args.predictions.display()
            ),
            ids: missing.to_vec(),
            help: "predict all of them, or add `--subset` to score those that are predicted",
        });
    }
    let ids = some(missing);
    eprintln!(
        "warning: {count} of {annotated} questions in `{annotations}` have no prediction and are not scored: {ids}"
    );
    Ok(())
}

struct Report {
    scores: VqaScores,
    questions: usize,
    /// Empty unless asked for.
    per_question: Vec<(u64, f64)>,
    /// Empty unless given.
    texts: BTreeMap<u64, String>,
}

impl Report {
    fn evaluator(&self) -> &'static str {
        match self.scores.evaluator {
            Evaluator::Official => "official",
            Evaluator::Legacy => "legacy",
        }
    }

    /// Kind, name and group of all but the single questions.
    fn groups(&self) -> Vec<(&'static str, &str, Group)> {
        let all = Group { questions: self.questions, accuracy: self.scores.overall };
        let answer_types =
            self.scores.per_answer_type.iter().map(|(name, group)| ("answer_type", name.as_str(), *group));
        let question_types =
            self.scores.per_question_type.iter().map(|(name, group)| ("question_type", name.as_str(), *group));
        std::iter::once(("overall", "", all)).chain(answer_types).chain(question_types).collect()
    }

    fn text(&self, id: u64) -> &str {
        self.texts.get(&id).map_or("", String::as_str)
    }

    /// Two decimals, as the official tool prints them.
    fn table(&self) -> String {
        let row = |(kind, name, group): (&str, &str, Group)| {
            let kind = kind.replace('_', " ");
            vec![kind, name.to_owned(), group.questions.to_string(), format!("{:.2}", group.accuracy)]
        };
        let rows: Vec<Vec<String>> = self.groups().into_iter().map(row).collect();
        let accuracy = format!("Accuracy ({}), %", self.evaluator());
        let mut text = output::table(&["Part", "", "Questions", &accuracy].map(str::to_owned), &rows, 2);
        if !self.per_question.is_empty() {
            let row = |&(id, value): &(u64, f64)| vec![id.to_string(), self.text(id).to_owned(), format!("{value:.2}")];
            let rows: Vec<Vec<String>> = self.per_question.iter().map(row).collect();
            text = format!("{text}\n{}", output::table(&["Question", "", &accuracy].map(str::to_owned), &rows, 2));
        }
        text
    }

    fn csv(&self) -> String {
        let row = |(kind, name, group): (&str, &str, Group)| {
            vec![kind.to_owned(), name.to_owned(), group.questions.to_string(), group.accuracy.to_string()]
        };
        let questions = self
            .per_question
            .iter()
            .map(|(id, value)| vec!["question".to_owned(), id.to_string(), "1".to_owned(), value.to_string()]);
        let rows: Vec<Vec<String>> = self.groups().into_iter().map(row).chain(questions).collect();
        output::csv(&["part", "name", "questions", &format!("accuracy_{}", self.evaluator())], &rows)
    }

    fn json(&self, per_question: bool) -> String {
        let groups = |groups: &BTreeMap<String, Group>| -> Value {
            let group = |g: &Group| json!({ "questions": g.questions, "accuracy": g.accuracy });
            groups.iter().map(|(name, g)| (name.clone(), group(g))).collect::<serde_json::Map<_, _>>().into()
        };
        let mut all = json!({
            "evaluator": self.evaluator(),
            "questions": self.questions,
            "overall": self.scores.overall,
            "per_answer_type": groups(&self.scores.per_answer_type),
            "per_question_type": groups(&self.scores.per_question_type),
        });
        if per_question {
            let question = |&(id, accuracy): &(u64, f64)| {
                let mut question = json!({ "question_id": id, "accuracy": accuracy });
                if let Some(text) = self.texts.get(&id) {
                    question["question"] = json!(text);
                }
                question
            };
            all["per_question"] = self.per_question.iter().map(question).collect();
        }
        format!("{all:#}\n")
    }
}
