//! Keeps the ranks of a training equal: one start, one decision per step to stop or to save. Their gradients are for `exchange`.
//!
//! Rank 0 alone reads and writes checkpoints; what it has read is sent to the others. The ranks compare a hash of all
//! parameters and moments at the start and at each checkpoint.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use burn::tensor::TensorData;
use sha2::{Digest, Sha256};

use super::TrainError;
use super::bert_adam::{BertAdam, Moments};
use super::checkpoint::{self, Position};
use crate::config::TrainSettings;
use crate::distributed::{Collective, broadcast_all, union_of, verify_equal};
use crate::model::{Vlp, host_floats};
use crate::track::{RunDir, TrackError};

/// The state from which all ranks go on: that of rank 0's newest checkpoint; without one, rank 0's `model`.
pub fn start(
    group: &mut dyn Collective,
    run: &RunDir,
    model: Vlp,
    adam: BertAdam,
) -> Result<(Vlp, BertAdam, Position), TrainError> {
    let found = if group.rank() == 0 { checkpoint::resume(run, &model, &adam)? } else { None };
    let (model, adam, position) = found.unwrap_or((model, adam, Position::default()));
    if group.world_size() == 1 {
        return Ok((model, adam, position));
    }
    let updates: BTreeMap<&String, u64> = adam.moments.iter().map(|(name, m)| (name, m.steps)).collect();
    let said = serde_json::to_vec(&(&position, &updates)).map_err(|e| unreadable(run, e))?;
    let said = group.gather_bytes(if group.rank() == 0 { &said } else { &[] })?.swap_remove(0);
    let (position, updates): (Position, BTreeMap<String, u64>) =
        serde_json::from_slice(&said).map_err(|e| unreadable(run, e))?;
    let mut vectors: BTreeMap<String, Vec<f32>> = parameters(&model);
    for name in updates.keys() {
        let length = vectors.get(name).map_or(0, Vec::len);
        let own = adam.moments.get(name);
        let or_zeros = |values: Option<&Vec<f32>>| values.cloned().unwrap_or_else(|| vec![0.0; length]);
        let (first, second) = (or_zeros(own.map(|m| &m.first)), or_zeros(own.map(|m| &m.second)));
        vectors.insert(format!("m.{name}"), first);
        vectors.insert(format!("v.{name}"), second);
    }
    broadcast_all(group, &mut vectors)?;
    let mut adam = adam;
    adam.moments.clear();
    for (name, steps) in updates {
        let mut take = |prefix: &str| vectors.remove(&format!("{prefix}.{name}")).unwrap_or_default();
        let moments = Moments { steps, first: take("m"), second: take("v") };
        adam.moments.insert(name, moments);
    }
    let model = model.replace(&mut |name, shape, _| Some(TensorData::new(vectors.remove(name)?, shape.to_vec())));
    verify(group, &model, &adam)?;
    Ok((model, adam, position))
}

/// An error on every rank unless all have the same parameters and moments.
pub fn verify(group: &mut dyn Collective, model: &Vlp, adam: &BertAdam) -> Result<(), TrainError> {
    if group.world_size() == 1 {
        return Ok(());
    }
    let mut hasher = Sha256::new();
    let mut add = |name: &str, values: &[f32]| {
        hasher.update(name);
        values.iter().for_each(|value| hasher.update(value.to_le_bytes()));
    };
    parameters(model).iter().for_each(|(name, values)| add(name, values));
    for (name, moments) in &adam.moments {
        add(name, &moments.first);
        add(name, &moments.second);
    }
    let hash: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(verify_equal(group, "the parameters", &hash)?)
}

fn parameters(model: &Vlp) -> BTreeMap<String, Vec<f32>> {
    model.parameters().into_iter().map(|parameter| (parameter.name, host_floats(parameter.data))).collect()
}

fn unreadable(run: &RunDir, error: serde_json::Error) -> TrackError {
    TrackError::io("read", &run.checkpoints())(std::io::Error::other(error))
}

/// What all ranks do after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// End, because a signal came to one of them.
    pub stop: bool,
    /// End at the boundary of an epoch: what was done since its checkpoint is given up.
    pub leave: bool,
    /// Save a checkpoint.
    pub save: bool,
}

/// Decides after each step, for all ranks together, whether to stop and whether to save.
#[derive(Debug)]
pub struct Pace {
    every_steps: u64,
    every: Option<Duration>,
    saved: Instant,
}

const STOP: u8 = 1;
const SAVE: u8 = 2;
const LEAVE: u8 = 4;

impl Pace {
    /// Counts from now.
    pub fn new(train: &TrainSettings) -> Self {
        let every = Duration::try_from_secs_f64(train.checkpoint_every_minutes * 60.0).ok();
        let every = every.filter(|every| !every.is_zero());
        Self { every_steps: train.checkpoint_every_steps, every, saved: Instant::now() }
    }

    /// A checkpoint was saved.
    pub fn saved(&mut self) {
        self.saved = Instant::now();
    }

    /// After `step` steps; `stop`: whether this rank was asked to end, `leave`: to end at the boundary of an epoch. One that
    /// ends at once saves.
    pub fn agree(&self, group: &mut dyn Collective, step: u64, stop: bool, leave: bool) -> Result<Agreed, TrainError> {
        let due = (self.every_steps > 0 && step.is_multiple_of(self.every_steps))
            || self.every.is_some_and(|every| self.saved.elapsed() >= every);
        let flags = if stop { STOP } else { 0 } | if due { SAVE } else { 0 } | if leave { LEAVE } else { 0 };
        let flags = union_of(group, flags)?;
        Ok(Agreed { stop: flags & STOP != 0, leave: flags & LEAVE != 0, save: flags & (STOP | SAVE) != 0 })
    }
}
