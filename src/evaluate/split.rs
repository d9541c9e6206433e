//! One split, whatever is asked about its images: decode or answer, save the predictions, score them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use burn::tensor::Device;

use super::EvaluateError;
use super::answer::{AnswerReport, AnswerTask, save_answer_scores, save_answers, score_answers, write_submissions};
use super::caption::{CaptionTask, Prediction, save_predictions, save_scores, score_predictions};
use super::scorers::{CaptionReport, Scorers};
use crate::config::{Dataset, Metric, Settings};
use crate::data::DataError;
use crate::data::karpathy::CaptionData;
use crate::data::region_store::RegionStore;
use crate::data::sample::Sampler;
use crate::data::tokenizer::Tokenizer;
use crate::data::vqa_imdb::{self, Annotation, VqaData};
use crate::model::Vlp;
use crate::track::RunDir;

/// The content of a split.
#[derive(Debug, Clone)]
pub enum SplitData {
    /// Images and captions.
    Captions(Arc<CaptionData>),
    /// Questions, and their types where the official annotations are at hand.
    Questions(Arc<VqaData>, Arc<BTreeMap<u64, Annotation>>),
}

impl SplitData {
    /// Whether predictions can be scored here: always for captions; for questions, when all of them come with answers.
    pub fn is_published(&self) -> bool {
        match self {
            Self::Captions(_) => true,
            Self::Questions(data, _) => data.questions.iter().all(|question| !question.answers.is_empty()),
        }
    }
}

/// What evaluation needs besides a model.
#[derive(Clone)]
pub struct Evaluation<'a> {
    /// Resolved settings.
    pub settings: &'a Settings,
    /// Vocabulary.
    pub tokenizer: &'a Tokenizer,
    /// Region features.
    pub store: Arc<RegionStore>,
    /// Where the model is.
    pub device: Device,
    /// What computes the scores of captions.
    pub scorers: Scorers<'a>,
}

/// Scores of a split.
#[derive(Debug, Clone, Default)]
pub struct SplitScores {
    /// Of the whole split, in unit fractions; empty for questions whose answers are not published.
    pub scores: BTreeMap<String, f64>,
    /// Why a score is not available.
    pub not_available: BTreeMap<&'static str, String>,
    items: Items,
}

/// Scores of each image, or of each question.
#[derive(Debug, Clone, Default)]
enum Items {
    /// Not at hand.
    #[default]
    None,
    Images(CaptionReport, Vec<Prediction>),
    Questions(AnswerReport),
}

impl From<BTreeMap<String, f64>> for SplitScores {
    /// Scores that were saved before, without those of each image or question.
    fn from(scores: BTreeMap<String, f64>) -> Self {
        Self { scores, ..Self::default() }
    }
}

impl SplitScores {
    /// The scores, where every one must be there.
    ///
    /// # Errors
    /// The reason why one is not.
    pub fn complete(self) -> Result<BTreeMap<String, f64>, EvaluateError> {
        match self.not_available.values().next() {
            None => Ok(self.scores),
            Some(reason) => Err(EvaluateError::Metrics(reason.clone())),
        }
    }

    /// Writes the scores of each image, or of each question, beside its `predictions`, as `….scores.json`.
    pub fn save_per_item(&self, predictions: &Path) -> Result<(), EvaluateError> {
        let file = predictions.with_extension("scores.json");
        match &self.items {
            Items::Images(report, captions) => save_scores(report, captions, &file),
            Items::Questions(report) => save_answer_scores(report, &file),
            Items::None => Ok(()),
        }
    }
}

impl Evaluation<'_> {
    /// Reads a split.
    pub fn load(&self, split: &str) -> Result<SplitData, DataError> {
        let (data, splits) = (&self.settings.data, [split.to_owned()]);
        Ok(match data.dataset {
            Dataset::Vqa2 => SplitData::Questions(
                Arc::new(VqaData::load(data, &splits, self.tokenizer)?),
                Arc::new(vqa_imdb::annotations(data, split)?),
            ),
            _ => SplitData::Captions(Arc::new(CaptionData::load(data, &splits, self.tokenizer)?)),
        })
    }

    /// Predicts a split with `model` (in evaluation form), saves the predictions as `predictions`, and scores them; captions by
    /// `metrics`.
    pub fn score(
        &self,
        model: &Vlp,
        data: &SplitData,
        beam_size: usize,
        predictions: &Path,
        metrics: &[Metric],
    ) -> Result<SplitScores, EvaluateError> {
        let started = Instant::now();
        let published = data.is_published();
        let (scores, count) = match data {
            SplitData::Captions(data) => {
                let task = CaptionTask {
                    data: Arc::clone(data),
                    store: Arc::clone(&self.store),
                    tokenizer: self.tokenizer,
                    data_settings: &self.settings.data,
                    settings: &self.settings.evaluate,
                    beam_size,
                };
                let captions = task.caption(model, &self.device)?;
                tracing::info!(
                    images = captions.len(),
                    beam_size,
                    seconds = started.elapsed().as_secs_f64(),
                    "captioned"
                );
                save_predictions(&captions, predictions)?;
                let count = captions.len();
                let report = score_predictions(data, &captions, &self.scorers, metrics)?;
                let (scores, not_available) = (report.corpus(), report.not_available.clone());
                (SplitScores { scores, not_available, items: Items::Images(report, captions) }, count)
            }
            SplitData::Questions(data, annotations) => {
                let answers = self.answers(model, data)?;
                save_answers(&answers, predictions)?;
                let named = self.settings.metrics.vqa;
                let scores = match published {
                    true => {
                        let report = score_answers(data, annotations, &answers, named)?;
                        let (scores, items) = (report.scores.clone(), Items::Questions(report));
                        SplitScores { scores, items, ..SplitScores::default() }
                    }
                    false => SplitScores::default(),
                };
                (scores, answers.len())
            }
        };
        let seconds = started.elapsed().as_secs_f64();
        tracing::info!(predictions = %predictions.display(), count, beam_size, seconds, "scored");
        Ok(scores)
    }

    /// Where the predictions of a checkpoint of `run` on an evaluation split are kept.
    pub fn predictions_file(&self, run: &RunDir, epoch: usize, split: &str) -> PathBuf {
        run.predictions().join(match self.settings.data.dataset {
            Dataset::Vqa2 => format!("epoch-{epoch:04}.{split}.answers.json"),
            _ => format!("epoch-{epoch:04}.{split}.beam-{}.json", self.settings.evaluate.beam_size),
        })
    }

    /// Scores the checkpoint of `epoch` on an evaluation split, and leaves in `run` what belongs to it: the predictions, the scores
    /// of each image or question, and, where answers are not published, the submissions.
    pub fn score_checkpoint(
        &self,
        model: &Vlp,
        run: &RunDir,
        epoch: usize,
        split: &str,
        data: &SplitData,
    ) -> Result<SplitScores, EvaluateError> {
        let predictions = self.predictions_file(run, epoch, split);
        let (beams, metrics) = (self.settings.evaluate.beam_size, &self.settings.metrics.captions);
        let found = self.score(model, data, beams, &predictions, metrics)?;
        found.save_per_item(&predictions)?;
        if let (false, SplitData::Questions(data, _)) = (data.is_published(), data) {
            self.submit(split, data, &predictions, &run.submissions())?;
        }
        Ok(found)
    }

    /// Answers to all questions.
    pub fn answers(&self, model: &Vlp, data: &Arc<VqaData>) -> Result<Vec<super::AnswerPrediction>, EvaluateError> {
        let settings = self.settings;
        let task = AnswerTask {
            data: Arc::clone(data),
            store: Arc::clone(&self.store),
            sampler: Sampler::new(&settings.data, &settings.objective, settings.experiment.seed, self.tokenizer),
            data_settings: &settings.data,
            batch_size: settings.evaluate.batch_size,
        };
        task.answer(model, &self.device)
    }

    /// Writes the submissions of a split whose answers are not published, from the saved `predictions`.
    pub fn submit(&self, split: &str, data: &VqaData, predictions: &Path, folder: &Path) -> Result<(), EvaluateError> {
        let bytes = std::fs::read(predictions).map_err(crate::track::TrackError::io("read", predictions))?;
        let answers: Vec<super::AnswerPrediction> = serde_json::from_slice(&bytes)
            .map_err(|e| crate::track::TrackError::io("read", predictions)(std::io::Error::other(e)))?;
        let mut phases = vqa_imdb::phases(&self.settings.data)?;
        if self.settings.data.max_images > 0 {
            // Not every question was asked: what is written is for looking at.
            phases.clear();
            tracing::warn!(
                "`data.max_images` leaves questions out: the evaluation server does not take these submissions"
            );
        }
        for file in write_submissions(data, split, &phases, &answers, folder)? {
            tracing::info!(file = %file.display(), "submission written");
        }
        Ok(())
    }
}
