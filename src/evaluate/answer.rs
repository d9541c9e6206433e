//! Answers to the questions of a split: predicted, saved in the layout of the VQA results files, scored; and submissions for
//! the evaluation server, checked.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::{EvaluateError, Pulse};
use crate::config::{DataSettings, VqaEvaluator};
use crate::data::batch::{Batch, BatchSource};
use crate::data::loader::unmasked_batches;
use crate::data::region_store::RegionStore;
use crate::data::sample::Sampler;
use crate::data::vqa_imdb::{Annotation, VqaData};
use crate::metrics::vqa::{Evaluator, VqaEntry, VqaScores, score_vqa};
use crate::model::heads::best_answer;
use crate::model::inputs::{SequenceInputs, SequenceValues};
use crate::model::{Vlp, host_values};
use crate::track::{TrackError, write_atomic};

/// One entry of a VQA results file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerPrediction {
    /// The question.
    pub question_id: u64,
    /// The answer, from the answer vocabulary.
    pub answer: String,
}

/// Questions to be answered.
pub struct AnswerTask<'a> {
    /// The questions.
    pub data: Arc<VqaData>,
    /// Region features.
    pub store: Arc<RegionStore>,
    /// Sizes and control tokens; nothing is masked.
    pub sampler: Sampler,
    /// `[data]`: loader.
    pub data_settings: &'a DataSettings,
    /// Questions at once.
    pub batch_size: usize,
}

impl AnswerTask<'_> {
    /// One answer per question, in their order. `model` is in evaluation form, on `device`, and has an answer head.
    pub fn answer(&self, model: &Vlp, device: &Device) -> Result<Vec<AnswerPrediction>, EvaluateError> {
        let model = &model.clone().packed();
        let source = BatchSource {
            data: Arc::clone(&self.data.texts),
            store: Arc::clone(&self.store),
            sampler: self.sampler.clone(),
        };
        let mut predictions = Vec::with_capacity(self.data.questions.len());
        let mut pulse = Pulse::new(self.data.questions.len());
        for batch in unmasked_batches(source, self.batch_size, self.data_settings) {
            let batch = batch?;
            pulse.add(batch.size);
            let classes = self.classes(model, &batch, device)?;
            for (sample, class) in batch.samples.iter().zip(classes) {
                predictions.push(AnswerPrediction {
                    question_id: self.data.questions[*sample].id,
                    answer: self.data.answers.answer(class as u32).unwrap_or_default().to_owned(),
                });
            }
        }
        Ok(predictions)
    }

    fn classes(&self, model: &Vlp, batch: &Batch, device: &Device) -> Result<Vec<usize>, EvaluateError> {
        let values = SequenceValues {
            batch: batch.size,
            regions: batch.num_regions,
            length: batch.sequence_length(),
            features: &batch.features,
            positions: &batch.positions,
            ids: &batch.input_ids,
            segments: &batch.segment_ids,
            mask: batch.attention_mask(),
        };
        let logits = model.answer_logits(&SequenceInputs::new(values, device)).ok_or(EvaluateError::NoAnswerHead)?;
        let answers = logits.dims()[1];
        Ok(host_values(logits).chunks_exact(answers).map(best_answer).collect())
    }
}

/// Writes answers as a VQA results file.
pub fn save_answers(predictions: &[AnswerPrediction], path: &Path) -> Result<(), EvaluateError> {
    let json = serde_json::to_vec(predictions).map_err(|e| TrackError::io("write", path)(std::io::Error::other(e)))?;
    Ok(write_atomic(path, &json)?)
}

/// Scores of answers: of all, and of each question.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct AnswerReport {
    /// Of all questions, in unit fractions.
    pub scores: BTreeMap<String, f64>,
    /// Of each question, in the order in which they are asked.
    pub per_question: Vec<QuestionScores>,
}

/// Accuracies of the answer to one question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QuestionScores {
    /// The question.
    pub question_id: u64,
    /// In unit fractions: `overall_official`, `overall_legacy`, and the same under the type of its answer, so that the mean of
    /// a score over the questions that have it is the score of all.
    pub scores: BTreeMap<String, f64>,
}

/// The answer types of VQA 2.0, and what their scores are called.
const TYPES: [(&str, &str); 3] = [("yes/no", "yes_no"), ("number", "number"), ("other", "other")];

/// Accuracies in unit fractions: `overall` and, where `annotations` give the types, `yes_no`, `number` and `other` by the
/// evaluator `named`; the same with `_official` and `_legacy` by both; and with `majority_` before them what the commonest
/// answer of each type would have scored (by `named`).
pub fn score_answers(
    data: &VqaData,
    annotations: &BTreeMap<u64, Annotation>,
    predictions: &[AnswerPrediction],
    named: VqaEvaluator,
) -> Result<AnswerReport, EvaluateError> {
    let answers: HashMap<u64, &str> = predictions.iter().map(|p| (p.question_id, p.answer.as_str())).collect();
    let mut entries = data.entries(annotations);
    for entry in &mut entries {
        let answer =
            answers.get(&entry.question_id).ok_or(EvaluateError::Unanswered { question: entry.question_id })?;
        entry.prediction = (*answer).to_owned();
    }
    let score = |entries: &[VqaEntry], evaluator| {
        score_vqa(entries, evaluator).map_err(|e| EvaluateError::Metrics(e.to_string()))
    };
    let mut out = BTreeMap::new();
    let question = |entry: &VqaEntry| QuestionScores { question_id: entry.question_id, scores: BTreeMap::new() };
    let mut per_question: Vec<QuestionScores> = entries.iter().map(question).collect();
    let chosen = Evaluator::from(named);
    for (evaluator, suffix) in [(Evaluator::Official, "official"), (Evaluator::Legacy, "legacy")] {
        let scores = score(&entries, evaluator)?;
        for (name, value) in accuracies(&scores) {
            out.insert(format!("{name}_{suffix}"), value);
            if chosen == evaluator {
                out.insert(name.to_owned(), value);
            }
        }
        for ((question, entry), percent) in per_question.iter_mut().zip(&entries).zip(&scores.per_question) {
            let of_type = TYPES.iter().find(|(kind, _)| *kind == entry.answer_type).map(|(_, name)| *name);
            for name in ["overall"].into_iter().chain(of_type) {
                question.scores.insert(format!("{name}_{suffix}"), percent / 100.0);
            }
        }
    }
    let guesses = majority(&entries);
    for entry in &mut entries {
        entry.prediction = guesses.get(entry.answer_type.as_str()).cloned().unwrap_or_default();
    }
    for (name, value) in accuracies(&score(&entries, chosen)?) {
        out.insert(format!("majority_{name}"), value);
    }
    Ok(AnswerReport { scores: out, per_question })
}

/// Writes the scores of answers, one question after the other.
pub fn save_answer_scores(report: &AnswerReport, path: &Path) -> Result<(), EvaluateError> {
    let json = serde_json::json!({ "questions": report.per_question.len(), "scores": report.scores, "per_question": report.per_question });
    Ok(write_atomic(path, format!("{json}\n").as_bytes())?)
}

/// Overall accuracy and that of each known answer type, 0 to 1.
fn accuracies(scores: &VqaScores) -> Vec<(&'static str, f64)> {
    let typed =
        TYPES.iter().filter_map(|(key, name)| Some((*name, scores.per_answer_type.get(*key)?.accuracy / 100.0)));
    std::iter::once(("overall", scores.overall / 100.0)).chain(typed).collect()
}

/// The commonest answer of people to questions of each type; of equally common ones the first in the alphabet.
fn majority(entries: &[VqaEntry]) -> BTreeMap<String, String> {
    let mut counts: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for entry in entries {
        let counts = counts.entry(&entry.answer_type).or_default();
        entry.answers.iter().for_each(|a| *counts.entry(&a.answer).or_default() += 1);
    }
    let best = |counts: &BTreeMap<&str, usize>| {
        counts.iter().rev().max_by_key(|(_, count)| **count).map(|(answer, _)| (*answer).to_owned()).unwrap_or_default()
    };
    counts.iter().map(|(kind, counts)| ((*kind).to_owned(), best(counts))).collect()
}

/// Writes one submission per phase of the evaluation server into `folder`, and returns the files. `phases` has the question
/// ids of each phase; one with questions that were not asked is left out, but that of `split` itself never: without it, `split` is
/// what was asked.
///
/// # Errors
/// A question that is answered twice or not at all; an answer outside the vocabulary.
pub fn write_submissions(
    data: &VqaData,
    split: &str,
    phases: &BTreeMap<String, Vec<u64>>,
    predictions: &[AnswerPrediction],
    folder: &Path,
) -> Result<Vec<PathBuf>, EvaluateError> {
    let mut answers: HashMap<u64, &str> = HashMap::new();
    for prediction in predictions {
        let question = prediction.question_id;
        if answers.insert(question, &prediction.answer).is_some() {
            return Err(EvaluateError::AnsweredTwice { question });
        }
        let class = data.answers.index(&prediction.answer);
        if class == data.answers.unknown() {
            return Err(EvaluateError::UnknownAnswer { question, answer: prediction.answer.clone() });
        }
    }
    let asked: HashSet<u64> = data.questions.iter().map(|q| q.id).collect();
    let mut wanted: BTreeMap<&str, Vec<u64>> = phases
        .iter()
        .filter(|(_, ids)| ids.iter().all(|id| asked.contains(id)))
        .map(|(phase, ids)| (phase.as_str(), ids.clone()))
        .collect();
    // The official file of the split itself lists every question: one that the imdb file or the list of valid images lacks shows.
    match phases.get(split) {
        Some(ids) => wanted.insert(split, ids.clone()),
        None => wanted.insert(split, data.questions.iter().map(|q| q.id).collect()),
    };
    // Nothing is written unless all of it is right.
    let mut complete = Vec::new();
    for (phase, ids) in wanted {
        let entry = |id: &u64| {
            let answer = answers.get(id).ok_or(EvaluateError::Unanswered { question: *id })?;
            Ok(AnswerPrediction { question_id: *id, answer: (*answer).to_owned() })
        };
        let entries = ids.iter().map(entry).collect::<Result<Vec<_>, EvaluateError>>()?;
        complete.push((folder.join(format!("v2_OpenEnded_mscoco_{phase}_vlp_results.json")), entries));
    }
    std::fs::create_dir_all(folder).map_err(TrackError::io("create", folder))?;
    for (path, entries) in &complete {
        save_answers(entries, path)?;
    }
    Ok(complete.into_iter().map(|(path, _)| path).collect())
}
