//! Options of `[track]`: what is told to an MLflow server, and how often the machine is measured.
//!
//! Address and credentials of the server come from the process environment and are no options: they belong into no
//! experiment file and no lock.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether runs are told to an MLflow server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MlflowMode {
    /// When `MLFLOW_TRACKING_URI` is set.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// What is told to an MLflow server, and how often the machine is measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrackSettings {
    /// Whether runs are told to the MLflow server at `MLFLOW_TRACKING_URI`.
    pub mlflow: MlflowMode,
    /// MLflow experiment of the runs; empty for `$MLFLOW_EXPERIMENT_NAME`, else `vlp`.
    pub experiment: String,
    /// Id of the MLflow run that is this one's parent; empty for none.
    pub parent_run: String,
    /// Upload the weights of the best checkpoint at the end.
    pub upload_best_checkpoint: bool,
    /// Time between two measurements of the machine (processor, memory, and the GPUs of the run), which go into the journal; 0 for none.
    #[schemars(range(max = 86400), extend("x-unit" = "seconds"))]
    pub system_interval_s: u64,
}

impl Default for TrackSettings {
    fn default() -> Self {
        Self {
            mlflow: MlflowMode::Auto,
            experiment: String::new(),
            parent_run: String::new(),
            upload_best_checkpoint: false,
            system_interval_s: 30,
        }
    }
}
