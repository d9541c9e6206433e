//! The training loop: epochs, batches, gradient accumulation, the optimiser's steps, validation, checkpoints, resume.
//!
//! An interrupted training goes on from its newest checkpoint, to the step. What is random depends on (seed, epoch, batch,
//! rank) alone, so that the steps after a resume are those of an uninterrupted run. What the ranks agree on is in `sync`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::module::Module;
use burn::tensor::Device;

use super::bert_adam::BertAdam;
use super::checkpoint::Position;
use super::optimizer::{Norm, Optimizer};
use super::step::{Objective, TrainingData};
use super::sync::{self, Pace};
use super::{TrainError, checkpoint, precision};
use crate::config::{CheckpointChoice, Exchange, Precision, Settings};
use crate::data::batch::BatchSource;
use crate::data::loader::{epoch_order, in_batches, training_batches};
use crate::data::region_store::RegionStore;
use crate::data::sample::Sampler;
use crate::data::tokenizer::Tokenizer;
use crate::distributed::Collective;
use crate::model::layer_gradients::LayerGradients;
use crate::model::layers::mix;
use crate::model::{Vlp, device, host_values};
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
    /// Called after each batch: this rank is at work.
    pub beat: &'a dyn Fn(),
}

impl Training<'_> {
    /// Trains from `model` (initial weights, on the device without autodiff) to the last epoch.
    pub fn run(mut self, model: Vlp, validate: Validate) -> Result<(), TrainError> {
        let train = &self.settings.train;
        let rank = self.collective.rank();
        let share = self.data.texts().samples.len().div_ceil(self.collective.world_size());
        let batches = share.div_ceil(train.batch_size);
        let steps_per_epoch = batches.div_ceil(train.gradient_accumulation_steps);
        let adam = BertAdam::new(train, (steps_per_epoch * train.epochs) as u64);
        let (model, adam, mut position) = sync::start(self.collective, self.run, model, adam)?;
        let on_device = train.optimizer_memory.on_device(device::is_gpu(&self.device));
        let mut adam = Optimizer::new(adam, on_device, &self.device);
        if position != Position::default() {
            let Position { epoch, step, batches, .. } = position;
            tracing::info!(epoch, step, batches, "resumed");
        }
        let data = self.data.clone();
        let objective = Objective::new(self.settings, &data, self.tokenizer);
        let name = &self.settings.experiment.name;
        let mut progress =
            Progress::new(self.terminal && rank == 0, self.quiet || rank != 0, name, train.epochs, batches);
        if position.epoch > 0 && position.batches == 0 && !self.scored(position.epoch)? {
            self.validate(&model, &position, validate, &progress)?;
        }
        self.collective.wait_for_rank_0()?;
        let graph = precision::graph(&self.device, train.gradient_checkpointing);
        let mut model = precision::in_graph(model.train(), &graph);
        // One process has nobody to hand its gradients to.
        model.bert.encoder.gradients = (self.collective.world_size() > 1).then(LayerGradients::default);
        let mut pace = Pace::new(train);
        for epoch in position.epoch + 1..=train.epochs {
            let started = Instant::now();
            let stop;
            (model, stop) = self.epoch(model, &objective, &mut adam, &mut position, &mut pace, &mut progress)?;
            self.save(&position, &model, &adam)?;
            pace.saved();
            tracing::info!(epoch, step = position.step, seconds = started.elapsed().as_secs_f64(), "epoch done");
            if stop {
                progress.finish();
                return Err(TrainError::Interrupted);
            }
            self.validate(&model.clone().valid(), &position, validate, &progress)?;
            if rank == 0 {
                let best = RunRecord::read(self.run)?.best_epoch;
                let first = self.settings.evaluate.checkpoints.contains(&CheckpointChoice::First);
                let kept = |epoch| {
                    best == Some(epoch)
                        || (first && epoch == 1)
                        || (train.keep_every > 0 && epoch.is_multiple_of(train.keep_every))
                };
                checkpoint::retain(self.run, train.keep_checkpoints, kept)?;
            }
            self.collective.wait_for_rank_0()?;
        }
        progress.finish();
        Ok(())
    }

    /// Rank 0 writes the checkpoint of a position, after all ranks have been found equal.
    fn save(&mut self, position: &Position, model: &Vlp, adam: &Optimizer) -> Result<(), TrainError> {
        let adam = adam.state();
        sync::verify(self.collective, model, &adam)?;
        if self.collective.rank() == 0 {
            checkpoint::save(self.run, position, model, &adam)?;
            let what = match position.batches {
                0 => format!("checkpoint of epoch {}", position.epoch),
                _ => format!("checkpoint of step {}", position.step),
            };
            self.journal.append(&Entry::event(what))?;
            self.journal.sync()?;
            checkpoint::retain_steps(self.run, self.settings.train.keep_checkpoints)?;
        }
        Ok(self.collective.wait_for_rank_0()?)
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
        position: &Position,
        validate: Validate,
        progress: &Progress,
    ) -> Result<(), TrainError> {
        let (epoch, step) = (position.epoch, position.step);
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

    /// One pass over this rank's share of the samples, or what is left of it. Moves `position` to the end of the epoch, and
    /// says whether to stop there; a stop before is an error, and saves a checkpoint unless the run is to end at the boundary
    /// of an epoch.
    fn epoch(
        &mut self,
        mut model: Vlp,
        objective: &Objective,
        adam: &mut Optimizer,
        position: &mut Position,
        pace: &mut Pace,
        progress: &mut Progress,
    ) -> Result<(Vlp, bool), TrainError> {
        let (settings, train) = (self.settings, &self.settings.train);
        let seed = settings.experiment.seed;
        let epoch = position.epoch + 1;
        let (rank, world_size) = (self.collective.rank(), self.collective.world_size());
        let texts = Arc::clone(self.data.texts());
        let order = epoch_order(texts.samples.len(), seed, epoch as u64, rank, world_size);
        let plan = in_batches(&order, train.batch_size);
        let (first, batches) = (position.batches, plan.len());
        let source = BatchSource {
            data: texts,
            store: Arc::clone(&self.store),
            sampler: Sampler::new(&settings.data, &settings.objective, seed, self.tokenizer),
        };
        let graph = precision::graph(&self.device, train.gradient_checkpointing);
        let mut loader = training_batches(source, epoch as u64, plan, first, &settings.data);
        let started = Instant::now();
        let mut seen = 0;
        let mut accumulated = 0;
        let mut stop = false;
        for index in first..batches {
            let Some(batch) = loader.next() else { break };
            let batch = batch?;
            let in_step = train.gradient_accumulation_steps.min(batches - (index - accumulated));
            let key = mix(seed ^ mix(((epoch as u64) << 40) ^ ((index as u64) << 12) ^ rank as u64));
            let scale = if train.precision == Precision::Fp16 { position.loss_scale.factor } else { 1.0 };
            let exchange = (accumulated + 1 == in_step && world_size > 1).then(|| adam.begin_exchange(&model));
            let found = objective.loss(&model, &batch, epoch, &graph, key);
            let loss = found.total.clone().mul_scalar(scale / in_step as f64);
            match exchange {
                None => adam.add(&model, &mut loss.backward()),
                Some(exchange) => {
                    let bf16 = train.gradient_exchange == Exchange::Bf16;
                    adam.add_exchanged(exchange, &model, loss, self.collective, bf16)?;
                }
            }
            accumulated += 1;
            seen += batch.size;
            let rate = adam.learning_rate(position.step);
            let mut norm = None;
            if accumulated == in_step {
                let scaled = (train.precision == Precision::Fp16).then_some(&mut position.loss_scale);
                (model, norm) = adam.step(model, scaled);
            }
            // A GPU is waited for here, where it has all work of the batch. What was done with a loss that is not finite is never saved.
            let value = f64::from(host_values(found.total)[0]);
            if !value.is_finite() {
                progress.finish();
                return Err(TrainError::NotFinite { loss: value, epoch, step: index + 1 });
            }
            for (name, value) in [(LOSS, value)].into_iter().chain(found.extras) {
                *position.sums.entry(name.to_owned()).or_default() += value;
            }
            position.points += 1;
            let samples_per_s = (seen * world_size) as f64 / started.elapsed().as_secs_f64();
            let data_wait = loader.wait_share();
            (self.beat)();
            let point = ProgressPoint { epoch, step: index + 1, loss: value, lr: rate, samples_per_s, data_wait };
            for warning in progress.update(point) {
                self.journal.append(&Entry::warning(warning))?;
            }
            if accumulated < in_step {
                continue;
            }
            if norm.is_none() {
                tracing::info!(
                    step = position.step + 1,
                    scale = position.loss_scale.factor,
                    "gradients overflowed; step left out"
                );
            }
            accumulated = 0;
            position.step += 1;
            position.batches = index + 1;
            if position.step.is_multiple_of(train.log_every as u64) {
                let norm = norm.map_or(f64::INFINITY, Norm::value);
                self.log(position, rate, norm, samples_per_s, data_wait)?;
            }
            // Before the first checkpoint of an epoch there is no boundary to go back to.
            let leave = rank == 0 && epoch > 1 && self.run.stop_at_epoch_file().exists();
            let agreed = pace.agree(self.collective, position.step, self.stop.load(Ordering::Relaxed), leave)?;
            stop = agreed.stop || agreed.leave;
            if position.batches < batches && agreed.leave {
                progress.finish();
                return Err(TrainError::Interrupted);
            }
            if position.batches < batches && agreed.save {
                self.save(position, &model, adam)?;
                pace.saved();
            }
            if position.batches < batches && stop {
                progress.finish();
                return Err(TrainError::Interrupted);
            }
        }
        let (step, loss_scale) = (position.step, position.loss_scale);
        *position = Position { epoch, step, loss_scale, ..Position::default() };
        Ok((model, stop))
    }

    /// A point of the curves: means since the last one, over all ranks.
    fn log(
        &mut self,
        position: &mut Position,
        rate: f64,
        norm: f64,
        samples_per_s: f64,
        data_wait: f64,
    ) -> Result<(), TrainError> {
        let points = f64::from(std::mem::take(&mut position.points).max(1));
        let mut curves = Vec::new();
        for (name, sum) in std::mem::take(&mut position.sums) {
            let ranks = self.collective.gather(sum / points)?;
            curves.push((name, ranks.iter().sum::<f64>() / ranks.len() as f64));
        }
        let of_rank_0 = [
            ("train/learning_rate", rate),
            ("train/gradient_norm", norm),
            ("train/samples_per_s", samples_per_s),
            ("train/data_wait", data_wait),
        ];
        curves.extend(of_rank_0.map(|(name, value)| (name.to_owned(), value)));
        if self.collective.rank() == 0 {
            for (name, value) in curves {
                self.journal.append(&Entry::metric(name, value, position.step, position.epoch as u64 + 1))?;
            }
        }
        Ok(())
    }
}
