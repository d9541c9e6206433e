//! Every option of an experiment: name, type, default, range, unit and meaning, each stated once.
//!
//! The JSON Schemas, `vlp explain`, the checks and the tracked parameters are generated from these types.
//! This module holds the shape only: layering is in `layers.rs`, cross-field rules in `rules.rs`. The sections with most options are
//! in `options/`.

mod data;
mod launch;
mod metrics;
mod sweep;
mod track;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use data::{DataSettings, Dataset, RegionFormat, Truncate};
pub use launch::{LaunchSettings, Launcher, SlurmSettings, device_of_rank, gpus_of};
pub use metrics::{MeteorProgram, Metric, MetricsSettings, VqaEvaluator};
pub(crate) use sweep::SweepFile;
pub use sweep::{SweepDirection, SweepMethod, SweepPruner, SweepSettings};
pub use track::{MlflowMode, TrackSettings};

/// All settings of one experiment. Every key has a value: a default, or one given by a layer above it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Name and purpose of the experiment.
    pub experiment: ExperimentSettings,
    /// Annotations, region features, boxes and vocabulary on disk, and how they are loaded.
    pub data: DataSettings,
    /// The network: one shared Transformer for encoding and decoding (BERT-base in the paper).
    pub model: ModelSettings,
    /// Where the initial weights come from.
    pub init: InitSettings,
    /// What is minimised.
    pub objective: ObjectiveSettings,
    /// Self-critical sequence training; read when `objective.kind` is `scst`.
    pub scst: ScstSettings,
    /// Optimiser, schedule and length of the training.
    pub train: TrainSettings,
    /// How the best checkpoint is chosen after each epoch.
    pub select: SelectSettings,
    /// What is decoded and scored with the chosen checkpoint.
    pub evaluate: EvaluateSettings,
    /// Scores: which ones, by which implementation, and where the official tools' parts are.
    pub metrics: MetricsSettings,
    /// Processes and devices.
    pub launch: LaunchSettings,
    /// How Slurm runs the processes, with `launch.launcher = "slurm"`.
    pub slurm: SlurmSettings,
    /// Folders that a run writes to.
    pub output: OutputSettings,
    /// What is told to an MLflow server, and how often the machine is measured.
    pub track: TrackSettings,
    /// Rows of published tables that this experiment reproduces.
    pub paper: Vec<PaperRow>,
}

/// Name and purpose of the experiment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExperimentSettings {
    /// Name under which other experiments refer to this one; also its folder below `output.runs`.
    #[schemars(
        regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"),
        extend("x-form" = "letters, digits, `_`, `.` and `-`, the first a letter or digit")
    )]
    pub name: String,
    /// One line for tables and listings.
    pub description: String,
    /// Seed of initial weights, order of samples, masking and dropout.
    pub seed: u64,
}

/// The network: one shared Transformer for encoding and decoding (BERT-base in the paper).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelSettings {
    /// Width of the hidden states; a multiple of `num_attention_heads`.
    #[schemars(range(min = 1))]
    pub hidden_size: usize,
    /// Transformer layers.
    #[schemars(range(min = 1, max = 1000))]
    pub num_hidden_layers: usize,
    /// Attention heads per layer.
    #[schemars(range(min = 1))]
    pub num_attention_heads: usize,
    /// Width of the feed-forward layers.
    #[schemars(range(min = 1))]
    pub intermediate_size: usize,
    /// Rows of the position table; at least regions + text + 3.
    #[schemars(range(min = 1))]
    pub max_position_embeddings: usize,
    /// Rows of the segment table; 6 holds bidirectional 0/1 and sequence-to-sequence 4/5.
    #[schemars(range(min = 6))]
    pub type_vocab_size: usize,
    /// Dropout on embeddings and sub-layer outputs.
    #[schemars(range(min = 0.0, max = 0.99))]
    pub hidden_dropout_prob: f64,
    /// Dropout on attention probabilities.
    #[schemars(range(min = 0.0, max = 0.99))]
    pub attention_probs_dropout_prob: f64,
    /// Standard deviation of the initial BERT weights.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub initializer_range: f64,
    /// Epsilon of every LayerNorm.
    #[schemars(range(min = 0.0, max = 0.1))]
    pub layer_norm_eps: f64,
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            max_position_embeddings: 512,
            type_vocab_size: 6,
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            initializer_range: 0.02,
            layer_norm_eps: 1e-5,
        }
    }
}

/// Which checkpoint of a finished run is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckpointChoice {
    /// The one with the best selection score.
    Best,
    /// The one of the last epoch.
    #[default]
    Last,
    /// The one of the first epoch.
    First,
}

/// Where the initial weights come from.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InitSettings {
    /// Name of an upstream experiment, or path of a checkpoint; empty draws random weights.
    #[schemars(extend("x-path" = "file"))]
    pub from: String,
    /// Which checkpoint of the upstream experiment.
    pub checkpoint: CheckpointChoice,
    /// Patterns (`*` matches anything) of weights that may be missing from the checkpoint and are then drawn at random.
    pub allow_missing: Vec<String>,
    /// Pickled numpy array with the weight of the detector's fc7 layer, for the first linear map over the region features
    /// when training starts from a text-only checkpoint; empty for none.
    #[schemars(extend("x-path" = "file"))]
    pub fc7_weight: String,
    /// Pickled numpy array with the bias of the detector's fc7 layer; given together with `fc7_weight`.
    #[schemars(extend("x-path" = "file"))]
    pub fc7_bias: String,
}

/// What is minimised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ObjectiveKind {
    /// Cross entropy of masked words, bidirectional or sequence-to-sequence (pre-training and captioning).
    #[default]
    Masked,
    /// Binary cross entropy of all answers to a question, bidirectional (VQA 2.0).
    Vqa,
    /// Self-critical sequence training: the CIDEr of sampled captions over that of greedy ones; starts from a trained captioner.
    Scst,
}

/// What is minimised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ObjectiveSettings {
    /// Kind of objective.
    pub kind: ObjectiveKind,
    /// Share of samples with the sequence-to-sequence mask; `s2s_prob + bi_prob` is 1.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub s2s_prob: f64,
    /// Share of samples with the bidirectional mask.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub bi_prob: f64,
    /// Share of the words of a caption that are masked.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub mask_prob: f64,
    /// At most this many masked words per caption; 0 with `kind = "scst"`, which masks none.
    #[schemars(range(min = 0, max = 400), extend("x-unit" = "words"))]
    pub max_pred: usize,
    /// Probability mass moved from the label to the other words; 0 is plain cross entropy.
    #[schemars(range(min = 0.0, max = 0.99))]
    pub label_smoothing: f64,
    /// Share of the samples of a batch, those of highest loss, that are left out; 0 keeps all.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub drop_worst_ratio: f64,
    /// `drop_worst_ratio` acts from the epoch after this one.
    #[schemars(extend("x-unit" = "epochs"))]
    pub drop_after: usize,
    /// Share of the regions whose embeddings are zeroed and matched by the region loss; 0 switches it off.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub vis_mask_prob: f64,
}

impl Default for ObjectiveSettings {
    fn default() -> Self {
        Self {
            kind: ObjectiveKind::Masked,
            s2s_prob: 1.0,
            bi_prob: 0.0,
            mask_prob: 0.15,
            max_pred: 3,
            label_smoothing: 0.0,
            drop_worst_ratio: 0.0,
            drop_after: 6,
            vis_mask_prob: 0.0,
        }
    }
}

/// What the text places of a sampled caption see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ScstMask {
    /// As the reference: with the attention mask and segment ids of the paired caption, so that places beyond its length see the
    /// image only.
    #[default]
    Reference,
    /// Every place sees the image and all words before it, as in decoding.
    Causal,
}

/// Over which captions CIDEr counts its document frequencies in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DocumentFrequency {
    /// As the reference: the paired captions of the batch of one process, each twice. Another batch size is another objective.
    #[default]
    Batch,
    /// All captions of the training splits, one document per image.
    Corpus,
}

/// Self-critical sequence training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ScstSettings {
    /// What the text places of a sampled caption see.
    pub mask: ScstMask,
    /// Over which captions CIDEr counts its document frequencies.
    pub document_frequency: DocumentFrequency,
}

/// Shape of the learning-rate schedule after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    /// Linear to 0 at the end of the training.
    #[default]
    WarmupLinear,
    /// Constant.
    WarmupConstant,
    /// Half a cosine.
    WarmupCosine,
}

/// Numbers in which the network computes while it trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats, as the paper's runs.
    #[default]
    Fp32,
    /// Matrix products and what is kept between them in bfloat16: the range of fp32, 8 bits of precision.
    Bf16,
    /// The same in IEEE half precision: 11 bits of precision, largest number 65,504. The loss is scaled, and a step whose
    /// gradients overflow is left out.
    Fp16,
}

/// Numbers in which the processes tell each other their gradients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Exchange {
    /// 32-bit floats.
    #[default]
    Fp32,
    /// bfloat16: half as many bytes, 8 bits of precision. With LibTorch the sum is rounded too.
    Bf16,
}

/// Where the optimiser keeps its state and computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerMemory {
    /// The device on a GPU, else the host.
    #[default]
    Auto,
    /// Host memory, one parameter after the other.
    Host,
    /// The device of the model, all parameters together; nothing goes over the host.
    Device,
}

impl OptimizerMemory {
    /// Whether it is the device, which may be a `gpu`.
    pub fn on_device(self, gpu: bool) -> bool {
        match self {
            Self::Auto => gpu,
            Self::Host => false,
            Self::Device => true,
        }
    }
}

/// Optimiser (BertAdam), schedule and length of the training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainSettings {
    /// Passes over the training samples.
    #[schemars(range(min = 1), extend("x-unit" = "epochs"))]
    pub epochs: usize,
    /// Samples per step and process.
    #[schemars(range(min = 1), extend("x-unit" = "samples"))]
    pub batch_size: usize,
    /// Batches whose gradients are averaged into one step of the optimiser.
    #[schemars(range(min = 1), extend("x-unit" = "batches"))]
    pub gradient_accumulation_steps: usize,
    /// Peak learning rate.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub learning_rate: f64,
    /// Schedule after the warm-up.
    pub schedule: Schedule,
    /// Share of all steps over which the learning rate rises from 0.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub warmup_proportion: f64,
    /// Decoupled weight decay of all parameters but biases and LayerNorm.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub weight_decay: f64,
    /// Decay of the first moment.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub beta1: f64,
    /// Decay of the second moment.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub beta2: f64,
    /// Added to the root of the second moment.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub epsilon: f64,
    /// Each parameter's gradient is clipped to this norm on its own; 0 switches clipping off.
    #[schemars(range(min = 0.0))]
    pub max_grad_norm: f64,
    /// Numbers in which the network computes while it trains. Parameters, optimiser, sums, LayerNorm, softmax and losses are fp32 in any case,
    /// and so are validation and evaluation.
    pub precision: Precision,
    /// Matrix products of fp32 numbers may round to 10 bits (TF32) on GPUs that can; read with `tch-cuda`.
    pub tf32: bool,
    /// Cheap values of the forward pass are computed again in the backward pass instead of kept: less memory, more time.
    pub gradient_checkpointing: bool,
    /// Where the optimiser keeps its state and computes. The steps are the same up to rounding, and so are the checkpoints.
    pub optimizer_memory: OptimizerMemory,
    /// Numbers in which the processes tell each other their gradients.
    pub gradient_exchange: Exchange,
    /// Steps between two points of the loss curve.
    #[schemars(range(min = 1), extend("x-unit" = "steps"))]
    pub log_every: usize,
    /// Newest checkpoints kept besides the best and the first.
    #[schemars(range(min = 1), extend("x-unit" = "checkpoints"))]
    pub keep_checkpoints: usize,
    /// The checkpoint of every so many epochs is kept for good; 0 for none.
    #[schemars(extend("x-unit" = "epochs"))]
    pub keep_every: usize,
    /// A checkpoint within an epoch after every so many steps; 0 for none.
    #[schemars(extend("x-unit" = "steps"))]
    pub checkpoint_every_steps: u64,
    /// A checkpoint within an epoch when the last one is so old; 0 for none.
    #[schemars(range(min = 0.0), extend("x-unit" = "minutes"))]
    pub checkpoint_every_minutes: f64,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            epochs: 30,
            batch_size: 64,
            gradient_accumulation_steps: 1,
            learning_rate: 3e-5,
            schedule: Schedule::WarmupLinear,
            warmup_proportion: 0.1,
            weight_decay: 0.01,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-6,
            max_grad_norm: 1.0,
            precision: Precision::Fp32,
            tf32: false,
            gradient_checkpointing: false,
            optimizer_memory: OptimizerMemory::Auto,
            gradient_exchange: Exchange::Fp32,
            log_every: 10,
            keep_checkpoints: 2,
            keep_every: 0,
            checkpoint_every_steps: 0,
            checkpoint_every_minutes: 30.0,
        }
    }
}

/// How the best checkpoint is chosen after each epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SelectSettings {
    /// Split that is decoded after each epoch; empty skips validation, and the last checkpoint is the best.
    pub split: String,
    /// Score that decides, SPICE excepted; the first of equal ones wins.
    pub metric: Metric,
    /// Beams; 1 is greedy.
    #[schemars(range(min = 1, max = 64))]
    pub beam_size: usize,
}

impl Default for SelectSettings {
    fn default() -> Self {
        Self { split: "val".into(), metric: Metric::Cider, beam_size: 1 }
    }
}

/// What is decoded and scored with the chosen checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluateSettings {
    /// Splits that are decoded and scored; empty for none.
    pub splits: Vec<String>,
    /// Checkpoints that are scored: the published number is that of `best`.
    pub checkpoints: Vec<CheckpointChoice>,
    /// Beams; 1 is greedy.
    #[schemars(range(min = 1, max = 64))]
    pub beam_size: usize,
    /// Images decoded at once.
    #[schemars(range(min = 1), extend("x-unit" = "images"))]
    pub batch_size: usize,
    /// Decoding stops after this many word pieces (`max_tgt_length`).
    #[schemars(range(min = 1, max = 400), extend("x-unit" = "word pieces"))]
    pub max_length: usize,
    /// No caption ends before it has this many word pieces.
    #[schemars(extend("x-unit" = "word pieces"))]
    pub min_length: usize,
    /// Added to a beam's score for each word piece.
    pub length_penalty: f64,
    /// No sequence of this many word pieces occurs twice in a caption; 0 allows all.
    pub no_repeat_ngram: usize,
}

impl Default for EvaluateSettings {
    fn default() -> Self {
        Self {
            splits: vec!["test".into()],
            checkpoints: vec![CheckpointChoice::Best],
            beam_size: 5,
            batch_size: 100,
            max_length: 20,
            min_length: 0,
            length_penalty: 0.0,
            no_repeat_ngram: 0,
        }
    }
}

/// Folders that a run writes to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OutputSettings {
    /// Runs go to `<runs>/<experiment>/<run id>`.
    #[schemars(extend("x-path" = "folder"))]
    pub runs: String,
    /// Generated tables go here.
    #[schemars(extend("x-path" = "folder"))]
    pub results: String,
}

impl Default for OutputSettings {
    fn default() -> Self {
        Self { runs: "runs".into(), results: "results".into() }
    }
}

/// A row of a published table: what was reported, and how far from it a reproduction may be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PaperRow {
    /// Table the row belongs to; tables are written to `<output.results>/<table>.*`.
    #[schemars(
        regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"),
        extend("x-form" = "letters, digits, `_` and `-`, the first a letter or digit")
    )]
    pub table: String,
    /// Name of the row.
    pub row: String,
    /// Split whose scores are shown.
    pub split: String,
    /// Checkpoint whose scores are shown.
    pub checkpoint: CheckpointChoice,
    /// Reported score in points (BLEU, ROUGE-L, CIDEr × 100), by metric.
    pub expect: BTreeMap<String, f64>,
    /// Largest difference from `expect`, in points, that still counts as reproduced; by metric.
    pub tolerance: BTreeMap<String, f64>,
    /// Smallest value that counts as reproduced where no exact figure is expected, by metric; `cider_over_first` is the
    /// ratio of this score to that of the first epoch's checkpoint.
    pub at_least: BTreeMap<String, f64>,
    /// Scores shown beside these, for which nothing was published; by metric.
    pub also: Vec<String>,
    /// Only the evaluation server can score this row; a finished run has a submission for it.
    pub server: bool,
    /// Where the reported scores come from.
    pub source: String,
}

impl Default for PaperRow {
    fn default() -> Self {
        Self {
            table: String::new(),
            row: String::new(),
            split: "test".into(),
            checkpoint: CheckpointChoice::Best,
            expect: BTreeMap::new(),
            tolerance: BTreeMap::new(),
            at_least: BTreeMap::new(),
            also: Vec::new(),
            server: false,
            source: String::new(),
        }
    }
}
