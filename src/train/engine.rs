//! The training loop: epochs, batches, gradient accumulation, the optimiser's steps, validation, checkpoints, resume.
//!
//! An interrupted training goes on from its last finished epoch. What is random depends on (seed, epoch, batch, rank)
//! alone, so that the epochs after a resume are those of an uninterrupted run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;

use super::bert_adam::{self, BertAdam, HostGradients};
use super::step::{Objective, TrainingData};
use super::{TrainError, checkpoint};
use crate::config::{CheckpointChoice, Settings};
use crate::data::batch::BatchSource;
use crate::data::loader::{epoch_order, in_batches, training_batches};
use crate::data::region_store::RegionStore;
use crate::data::sample::Sampler;
use crate::data::tokenizer::Tokenizer;
use crate::distributed::Collective;
use crate::model::layers::mix;
use crate::model::{Vlp, host_values};
use crate::track::{Entry, Journal, LOSS, Progress, ProgressPoint, RunDir, RunRecord, selection_metric};

/// Scores of the selection split, by metric, in unit fractions; called with the model in evaluation form and the epoch.
pub type Validate<'a> = &'a mut dyn FnMut(&Vlp, usize) -> Result<BTreeMap<String, f64>, TrainError>;

/// Everything a training needs from outside.
pub struct Training<'a> {
    /// Resolved settings.
    pub settings: &'a Settings,
    /// Where checkpoints go.
    pub run: &'a RunDir,
    /// Where metrics go; rank 0 writes.
    pub journal: &'a Journal,
    /// The ranks.
    pub collective: &'a mut dyn Collective,
    /// Device of this rank.
    pub device: Device,
    /// Training captions or questions.
    pub data: TrainingData,
    /// Region features.
    pub store: Arc<RegionStore>,
    /// Vocabulary.
    pub tokenizer: &'a Tokenizer,
    /// Set by a signal: stop at the next step.
    pub stop: &'static AtomicBool,
    /// stderr is a terminal.
    pub terminal: bool,
    /// No progress lines.
    pub quiet: bool,
}

impl Training<'_> {
    /// Trains from `model` (initial weights, on the device without autodiff) to the last epoch.
    pub fn run(mut self, model: Vlp, validate: Validate) -> Result<(), TrainError> {
        let train = &self.settings.train;
        let rank = self.collective.rank();
        let share = self.data.texts().samples.len().div_ceil(self.collective.world_size());
        let batches = share.div_ceil(train.batch_size);
        let steps_per_epoch = batches.div_ceil(train.gradient_accumulation_steps);
        let mut adam = BertAdam::new(train, (steps_per_epoch * train.epochs) as u64);
        let mut model = model;
        let (mut done, mut step) = (0, 0);
        if let Some((loaded, optimiser, state)) = checkpoint::resume(self.run, &model, &adam)? {
            (model, adam, done, step) = (loaded, optimiser, state.epoch, state.step);
            tracing::info!(epoch = done, step, "resumed");
        }
        let data = self.data.clone();
        let objective = Objective::new(self.settings, &data, self.tokenizer);
        let name = &self.settings.experiment.name;
        let mut progress =
            Progress::new(self.terminal && rank == 0, self.quiet || rank != 0, name, train.epochs, batches);
        if done > 0 && !self.scored(done)? {
            self.validate(&model, done, step, validate, &progress)?;
        }
        let mut model = model.train();
        for epoch in done + 1..=train.epochs {
            let started = Instant::now();
            model = self.epoch(model, &objective, &mut adam, epoch, &mut step, &mut progress)?;
            if rank == 0 {
                checkpoint::save(self.run, epoch, step, &model, &adam)?;
                self.journal.append(&Entry::event(format!("checkpoint of epoch {epoch}")))?;
                self.journal.sync()?;
            }
            tracing::info!(epoch, step, seconds = started.elapsed().as_secs_f64(), "epoch done");
            self.validate(&model.clone().valid(), epoch, step, validate, &progress)?;
            if rank == 0 {
                let best = RunRecord::read(self.run)?.best_epoch;
                let first = self.settings.evaluate.checkpoints.contains(&CheckpointChoice::First).then_some(1);
                let protected: Vec<usize> = best.into_iter().chain(first).collect();
                checkpoint::retain(self.run, train.keep_checkpoints, &protected)?;
            }
            self.collective.barrier()?;
        }
        progress.finish();
        Ok(())
    }

    /// Whether the journal has the selection score of an epoch, or none is wanted.
    fn scored(&self, epoch: usize) -> Result<bool, TrainError> {
        let Some(selection) = selection_metric(self.settings) else { return Ok(true) };
        let entries = crate::track::read(&self.run.journal_file())?;
        Ok(entries.iter().any(|entry| match &entry.what {
            crate::track::What::Metric { name, epoch: at, .. } => *name == selection && *at == epoch as u64,
            _ => false,
        }))
    }

    fn validate(
        &mut self,
        model: &Vlp,
        epoch: usize,
        step: u64,
        validate: Validate,
        progress: &Progress,
    ) -> Result<(), TrainError> {
        let Some(selection) = selection_metric(self.settings) else { return Ok(()) };
        if self.collective.rank() != 0 {
            return Ok(());
        }
        let split = &self.settings.select.split;
        let started = Instant::now();
        for (metric, score) in validate(model, epoch)? {
            let name = format!("{split}/{metric}");
            self.journal.append(&Entry::metric(&name, score, step, epoch as u64))?;
            if name == selection {
                let points = score * 100.0;
                let seconds = started.elapsed().as_secs_f64();
                tracing::info!(epoch, score, seconds, "{name}");
                progress.note(&format!("epoch {epoch}/{}  {name} {points:.1}", self.settings.train.epochs));
            }
        }
        Ok(self.journal.sync()?)
    }

    /// One pass over this rank's share of the samples.
    fn epoch(
        &mut self,
        mut model: Vlp,
        objective: &Objective,
        adam: &mut BertAdam,
        epoch: usize,
        step: &mut u64,
        progress: &mut Progress,
    ) -> Result<Vlp, TrainError> {
        let (settings, train) = (self.settings, &self.settings.train);
        let seed = settings.experiment.seed;
        let (rank, world_size) = (self.collective.rank(), self.collective.world_size());
        let texts = Arc::clone(self.data.texts());
        let order = epoch_order(texts.samples.len(), seed, epoch as u64, rank, world_size);
        let plan = in_batches(&order, train.batch_size);
        let batches = plan.len();
        let source = BatchSource {
            data: texts,
            store: Arc::clone(&self.store),
            sampler: Sampler::new(&settings.data, &settings.objective, seed, self.tokenizer),
        };
        let mut loader = training_batches(source, epoch as u64, plan, 0, &settings.data);
        let started = Instant::now();
        let (mut seen, mut recent, mut points) = (0, 0.0, 0);
        let mut extras: BTreeMap<&'static str, f64> = BTreeMap::new();
        let mut gradients = HostGradients::new();
        let mut accumulated = 0;
        for index in 0..batches {
            let Some(batch) = loader.next() else { break };
            let batch = batch?;
            if self.stop.load(Ordering::Relaxed) {
                progress.finish();
                return Err(TrainError::Interrupted);
            }
            let in_step = train.gradient_accumulation_steps.min(batches - (index - accumulated));
            let key = mix(seed ^ mix(((epoch as u64) << 40) ^ ((index as u64) << 12) ^ rank as u64));
            let found = objective.loss(&model, &batch, epoch, &self.device, key);
            let value = f64::from(host_values(found.total.clone())[0]);
            if !value.is_finite() {
                progress.finish();
                return Err(TrainError::NotFinite { loss: value, epoch, step: index + 1 });
            }
            for (name, value) in found.extras {
                *extras.entry(name).or_default() += value;
            }
            let mut backward = found.total.div_scalar(in_step as f64).backward();
            bert_adam::accumulate(&mut gradients, bert_adam::host_gradients(&model, &mut backward));
            accumulated += 1;
            seen += batch.size;
            recent += value;
            points += 1;
            let rate = adam.learning_rate(*step);
            if accumulated == in_step {
                for values in gradients.values_mut() {
                    self.collective.all_reduce_mean(values)?;
                }
                let (next, norm) = adam.step(model, std::mem::take(&mut gradients));
                model = next;
                *step += 1;
                accumulated = 0;
                if rank == 0 && step.is_multiple_of(train.log_every as u64) {
                    let per_second = (seen * world_size) as f64 / started.elapsed().as_secs_f64();
                    for (name, value) in [
                        (LOSS, recent / f64::from(points)),
                        ("train/learning_rate", rate),
                        ("train/gradient_norm", norm),
                        ("train/samples_per_s", per_second),
                        ("train/data_wait", loader.wait_share()),
                    ] {
                        self.journal.append(&Entry::metric(name, value, *step, epoch as u64))?;
                    }
                    for (name, sum) in std::mem::take(&mut extras) {
                        self.journal.append(&Entry::metric(name, sum / f64::from(points), *step, epoch as u64))?;
                    }
                    (recent, points) = (0.0, 0);
                }
            }
            let samples_per_s = (seen * world_size) as f64 / started.elapsed().as_secs_f64();
            let data_wait = loader.wait_share();
            let point = ProgressPoint { epoch, step: index + 1, loss: value, lr: rate, samples_per_s, data_wait };
            for warning in progress.update(point) {
                self.journal.append(&Entry::warning(warning))?;
            }
        }
        Ok(model)
    }
}
