//! Checkpoints of a training: complete, or absent. Model and optimiser as safetensors, the rest as JSON with the hashes
//! of both.
//!
//! A checkpoint is written to a folder of another name, synced, and renamed. What is kept is decided here too: the
//! newest ones, and those the caller protects.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::TrainError;
use super::bert_adam::{BertAdam, Moments};
use crate::model::Vlp;
use crate::model::weights::{self, LoadOptions, WeightsError};
use crate::track::{RunDir, TrackError, sha256_of_file, sync_folder, write_atomic};

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";

/// What is known besides the tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointState {
    /// Epochs done.
    pub epoch: usize,
    /// Optimiser steps done.
    pub step: u64,
    /// Updates of each parameter.
    pub updates: BTreeMap<String, u64>,
    /// SHA-256 of the tensor files.
    pub sha256: BTreeMap<String, String>,
}

/// Writes the checkpoint of `epoch` into the run folder.
pub fn save(run: &RunDir, epoch: usize, step: u64, model: &Vlp, adam: &BertAdam) -> Result<(), TrainError> {
    let target = run.checkpoint(epoch);
    let partial = target.with_extension("partial");
    match std::fs::remove_dir_all(&partial) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(TrackError::io("remove", &partial)(e).into()),
        _ => {}
    }
    std::fs::create_dir_all(&partial).map_err(TrackError::io("create", &partial))?;
    weights::save(model, &partial.join(MODEL))?;
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
    weights::save_tensors(tensors, &partial.join(OPTIMIZER))?;
    let mut sha256 = BTreeMap::new();
    for name in [MODEL, OPTIMIZER] {
        sha256.insert(name.to_owned(), sha256_of_file(&partial.join(name))?);
    }
    let updates = adam.moments.iter().map(|(name, m)| (name.clone(), m.steps)).collect();
    let state = CheckpointState { epoch, step, updates, sha256 };
    let json =
        serde_json::to_vec_pretty(&state).map_err(|e| TrackError::io("write", &partial)(std::io::Error::other(e)))?;
    write_atomic(&partial.join(STATE), &json)?;
    std::fs::rename(&partial, &target).map_err(TrackError::io("rename", &partial))?;
    sync_folder(&run.checkpoints())?;
    Ok(())
}

/// Loads the newest complete checkpoint into `model` and `adam`; `None` when there is none. One that is damaged is
/// named in a warning, and the one before it is used.
pub fn resume(
    run: &RunDir,
    model: &Vlp,
    adam: &BertAdam,
) -> Result<Option<(Vlp, BertAdam, CheckpointState)>, TrainError> {
    for epoch in run.checkpoint_epochs()?.into_iter().rev() {
        let folder = run.checkpoint(epoch);
        match load(&folder, model.clone(), adam.clone()) {
            Ok(loaded) => return Ok(Some(loaded)),
            Err(error) => {
                tracing::warn!("checkpoint {} is not usable, trying the one before: {error}", folder.display());
                let damaged = folder.with_extension("damaged");
                std::fs::rename(&folder, &damaged).map_err(TrackError::io("rename", &folder))?;
            }
        }
    }
    Ok(None)
}

fn load(folder: &Path, model: Vlp, mut adam: BertAdam) -> Result<(Vlp, BertAdam, CheckpointState), TrainError> {
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
    Ok((model, adam, state))
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

/// Removes checkpoints that are neither among the `newest` ones nor `protected`.
pub fn retain(run: &RunDir, newest: usize, protected: &[usize]) -> Result<(), TrainError> {
    let epochs = run.checkpoint_epochs()?;
    let old = &epochs[..epochs.len().saturating_sub(newest)];
    for epoch in old.iter().filter(|e| !protected.contains(e)) {
        let folder: PathBuf = run.checkpoint(*epoch);
        std::fs::remove_dir_all(&folder).map_err(TrackError::io("remove", &folder))?;
    }
    Ok(())
}
