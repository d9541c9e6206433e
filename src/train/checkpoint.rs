//! Checkpoints of a training: complete, or absent. Model and optimiser as safetensors, the rest as JSON with the hashes
//! of both.
//!
//! A checkpoint is written to a folder of another name, synced, and renamed; one that cannot be written leaves nothing
//! behind. What is kept is decided here too: the newest ones, and those the caller protects.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::TrainError;
use super::bert_adam::{BertAdam, Moments};
use super::precision::LossScale;
use crate::model::Vlp;
use crate::model::weights::{self, LoadOptions, WeightsError};
use crate::track::{RunDir, TrackError, sha256_of_file, sync_folder, write_atomic};

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";

/// Where a training stands, to the step.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Position {
    /// Epochs done.
    pub epoch: usize,
    /// Optimiser steps done.
    pub step: u64,
    /// Batches done of the epoch after `epoch`, by each rank.
    pub batches: usize,
    /// Sums of what has been measured since the last point of the curves, by journal name.
    pub sums: BTreeMap<String, f64>,
    /// Batches in these sums.
    pub points: u32,
    /// Factor on the loss, with fp16.
    #[serde(skip_serializing_if = "LossScale::is_initial")]
    pub loss_scale: LossScale,
}

/// What is known besides the tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointState {
    /// Where the training stands.
    #[serde(flatten)]
    pub position: Position,
    /// Updates of each parameter.
    pub updates: BTreeMap<String, u64>,
    /// SHA-256 of the tensor files.
    pub sha256: BTreeMap<String, String>,
}

/// Writes the checkpoint of a position into the run folder: of an epoch at its end, of a step within one.
pub fn save(run: &RunDir, position: &Position, model: &Vlp, adam: &BertAdam) -> Result<(), TrainError> {
    let target = match position.batches {
        0 => run.checkpoint(position.epoch),
        _ => run.step_checkpoint(position.step),
    };
    let partial = target.with_extension("partial");
    remove(&partial)?;
    let written = write(&partial, position, model, adam);
    if let Err(error) = written.and_then(|()| put_in_place(run, &partial, &target)) {
        // The failure itself is what is reported; the room that the part takes may be what others lack.
        let _ = remove(&partial);
        return Err(error);
    }
    Ok(())
}

/// A checkpoint of the same name is one that was found damaged, or the same again.
fn put_in_place(run: &RunDir, partial: &Path, target: &Path) -> Result<(), TrainError> {
    remove(target)?;
    std::fs::rename(partial, target).map_err(TrackError::io("rename", partial))?;
    Ok(sync_folder(&run.checkpoints())?)
}

fn remove(folder: &Path) -> Result<(), TrackError> {
    match std::fs::remove_dir_all(folder) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(TrackError::io("remove", folder)(e)),
        _ => Ok(()),
    }
}

fn write(folder: &Path, position: &Position, model: &Vlp, adam: &BertAdam) -> Result<(), TrainError> {
    std::fs::create_dir_all(folder).map_err(TrackError::io("create", folder))?;
    weights::save(model, &folder.join(MODEL))?;
    let moments: Vec<(String, &[f32])> = adam
        .moments
        .iter()
        .flat_map(|(name, m)| [(format!("m.{name}"), &m.first[..]), (format!("v.{name}"), &m.second[..])])
        .collect();
    let shapes: Vec<[usize; 1]> = moments.iter().map(|(_, values)| [values.len()]).collect();
    let bytes: Vec<Vec<u8>> =
        moments.iter().map(|(_, values)| values.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let tensors =
        moments.iter().zip(&shapes).zip(&bytes).map(|(((name, _), shape), b)| (name.as_str(), &shape[..], &b[..]));
    weights::save_tensors(tensors, &folder.join(OPTIMIZER))?;
    let mut sha256 = BTreeMap::new();
    for name in [MODEL, OPTIMIZER] {
        sha256.insert(name.to_owned(), sha256_of_file(&folder.join(name))?);
    }
    let updates = adam.moments.iter().map(|(name, m)| (name.clone(), m.steps)).collect();
    let state = CheckpointState { position: position.clone(), updates, sha256 };
    let json =
        serde_json::to_vec_pretty(&state).map_err(|e| TrackError::io("write", folder)(std::io::Error::other(e)))?;
    Ok(write_atomic(&folder.join(STATE), &json)?)
}

/// Loads the newest complete checkpoint into `model` and `adam`; `None` when there is none. One that is damaged is
/// named in a warning, and the one before it is used.
pub fn resume(run: &RunDir, model: &Vlp, adam: &BertAdam) -> Result<Option<(Vlp, BertAdam, Position)>, TrainError> {
    for folder in newest_first(run)? {
        match load(&folder, model.clone(), adam.clone()) {
            Ok(loaded) => return Ok(Some(loaded)),
            Err(error) => {
                tracing::warn!("checkpoint {} is not usable, trying the one before: {error}", folder.display());
                let damaged = folder.with_extension("damaged");
                remove(&damaged)?;
                std::fs::rename(&folder, &damaged).map_err(TrackError::io("rename", &folder))?;
            }
        }
    }
    Ok(None)
}

/// All checkpoints, the one with the most steps first. One whose state cannot be read comes first of all: it is to be
/// reported.
fn newest_first(run: &RunDir) -> Result<Vec<PathBuf>, TrackError> {
    let epochs = run.checkpoint_epochs()?.into_iter().map(|epoch| run.checkpoint(epoch));
    let steps = run.checkpoint_steps()?.into_iter().map(|step| run.step_checkpoint(step));
    let mut all: Vec<(u64, PathBuf)> = epochs
        .chain(steps)
        .map(|folder| {
            let bytes = std::fs::read(folder.join(STATE)).unwrap_or_default();
            let state = serde_json::from_slice::<CheckpointState>(&bytes);
            (state.map_or(u64::MAX, |state| state.position.step), folder)
        })
        .collect();
    all.sort();
    Ok(all.into_iter().rev().map(|(_, folder)| folder).collect())
}

fn load(folder: &Path, model: Vlp, mut adam: BertAdam) -> Result<(Vlp, BertAdam, Position), TrainError> {
    let state = read_state(folder)?;
    let (model, _) = weights::load(model, &folder.join(MODEL), LoadOptions::default())?;
    let path = folder.join(OPTIMIZER);
    let mut tensors = weights::load_tensors(&path)?;
    let mut take = |key: String| {
        tensors.remove(&key).ok_or_else(|| WeightsError::Missing { path: path.clone(), names: vec![key] })
    };
    for (name, steps) in &state.updates {
        let moments = Moments { steps: *steps, first: take(format!("m.{name}"))?, second: take(format!("v.{name}"))? };
        adam.moments.insert(name.clone(), moments);
    }
    Ok((model, adam, state.position))
}

/// Reads `state.json` of a checkpoint and checks the hashes of its files.
pub fn read_state(folder: &Path) -> Result<CheckpointState, TrainError> {
    let path = folder.join(STATE);
    let bytes = std::fs::read(&path).map_err(TrackError::io("read", &path))?;
    let state: CheckpointState = serde_json::from_slice(&bytes)
        .map_err(|e| TrainError::Damaged { path: path.clone(), reason: e.to_string() })?;
    for (name, expected) in &state.sha256 {
        let file = folder.join(name);
        let found = sha256_of_file(&file)?;
        if found != *expected {
            return Err(TrainError::Damaged {
                path: file,
                reason: format!("its SHA-256 is {found}, expected {expected}"),
            });
        }
    }
    Ok(state)
}

/// Removes checkpoints of epochs that are neither among the `newest` ones nor `protected`, and those within epochs that
/// an epoch's has overtaken.
pub fn retain(run: &RunDir, newest: usize, protected: impl Fn(usize) -> bool) -> Result<(), TrainError> {
    let epochs = run.checkpoint_epochs()?;
    let old = &epochs[..epochs.len().saturating_sub(newest)];
    for epoch in old.iter().filter(|epoch| !protected(**epoch)) {
        remove(&run.checkpoint(*epoch))?;
    }
    retain_steps(run, 0)
}

/// Removes all but the `newest` checkpoints within epochs.
pub fn retain_steps(run: &RunDir, newest: usize) -> Result<(), TrainError> {
    let steps = run.checkpoint_steps()?;
    for step in &steps[..steps.len().saturating_sub(newest)] {
        remove(&run.step_checkpoint(*step))?;
    }
    Ok(())
}
