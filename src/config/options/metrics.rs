//! `[metrics]`: which scores are computed, by which implementation, and where the official tools' parts are.
//!
//! Where an empty path leads is for the program to say, because it depends on the process environment.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A score of captions or answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// BLEU-1.
    #[serde(rename = "bleu_1")]
    Bleu1,
    /// BLEU-2.
    #[serde(rename = "bleu_2")]
    Bleu2,
    /// BLEU-3.
    #[serde(rename = "bleu_3")]
    Bleu3,
    /// BLEU-4.
    #[serde(rename = "bleu_4")]
    Bleu4,
    /// METEOR 1.5; needs the data of its official jar (scripts/meteor.sh).
    Meteor,
    /// ROUGE-L.
    RougeL,
    /// CIDEr (the clipped, length-penalised form of the COCO tools).
    #[default]
    Cider,
    /// SPICE; needs the official tool, its language models and Java, and is not for `select.metric`.
    Spice,
    /// VQA accuracy over all questions, by the evaluator that `metrics.vqa` names; for `select.metric` only.
    Overall,
}

impl Metric {
    /// All scores of captions, in the order in which papers print them.
    pub const ALL: [Metric; 8] =
        [Self::Bleu1, Self::Bleu2, Self::Bleu3, Self::Bleu4, Self::Meteor, Self::RougeL, Self::Cider, Self::Spice];

    /// Whether it scores answers to questions rather than captions.
    pub fn is_of_answers(self) -> bool {
        self == Self::Overall
    }

    /// The name in configuration files, score files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bleu1 => "bleu_1",
            Self::Bleu2 => "bleu_2",
            Self::Bleu3 => "bleu_3",
            Self::Bleu4 => "bleu_4",
            Self::Meteor => "meteor",
            Self::RougeL => "rouge_l",
            Self::Cider => "cider",
            Self::Spice => "spice",
            Self::Overall => "overall",
        }
    }
}

/// What computes METEOR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MeteorProgram {
    /// This program, over the data of the official jar; no Java.
    #[default]
    Native,
    /// The official jar, run with Java; for cross-checks, as both give the same scores.
    Jar,
}

/// Which rule decides whether an answer is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VqaEvaluator {
    /// The evaluation of the VQA challenge; test-dev and test-standard numbers are made with it.
    #[default]
    Official,
    /// Pythia's, which the published dev accuracy was made with.
    Legacy,
}

/// Scores: which ones, by which implementation, and where the official tools' parts are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsSettings {
    /// Scores of captions on `evaluate.splits`. One whose parts are not installed is noted in the journal and is
    /// `not available` in tables; the others are computed all the same.
    #[schemars(length(min = 1))]
    pub captions: Vec<Metric>,
    /// What computes METEOR.
    pub meteor: MeteorProgram,
    /// Folder with `meteor-1.5.jar` and `data/paraphrase-en.gz`; empty for `$VLP_METEOR_DIR`, else `vlp/meteor` in the
    /// user's cache folder.
    #[schemars(extend("x-path" = "folder"))]
    pub meteor_folder: String,
    /// Folder with `spice-1.0.jar` and `lib`; empty for `$VLP_SPICE_DIR`, else `vlp/spice` in the user's cache folder.
    #[schemars(extend("x-path" = "folder"))]
    pub spice_folder: String,
    /// SPICE is given up after this time.
    #[schemars(range(min = 1, max = 604800), extend("x-unit" = "s"))]
    pub spice_timeout_s: u64,
    /// Java heap of SPICE at most; its authors ask for 8192.
    #[schemars(range(min = 256, max = 1048576), extend("x-unit" = "MiB"))]
    pub spice_memory_mb: u64,
    /// Parser threads of SPICE; 0 for all processors.
    #[schemars(range(max = 1024), extend("x-unit" = "threads"))]
    pub spice_threads: usize,
    /// The `java` program; empty for `bin/java` in `$JAVA_HOME`, else `java` in PATH.
    #[schemars(extend("x-path" = "file"))]
    pub java: String,
    /// Folder for METEOR's compiled paraphrases (`meteor-cache`) and the captions SPICE has parsed (`spice-cache`); empty
    /// for `vlp` in the user's cache folder (`$XDG_CACHE_HOME`, else `~/.cache`).
    #[schemars(extend("x-path" = "folder"))]
    pub cache: String,
    /// Whose accuracy is called `overall`, `yes_no`, `number` and `other` in selection, scores and tables; both are recorded, as
    /// `overall_official`, `overall_legacy` and so on.
    pub vqa: VqaEvaluator,
}

impl Default for MetricsSettings {
    fn default() -> Self {
        Self {
            captions: Metric::ALL.to_vec(),
            meteor: MeteorProgram::Native,
            meteor_folder: String::new(),
            spice_folder: String::new(),
            spice_timeout_s: 7200,
            spice_memory_mb: 8192,
            spice_threads: 0,
            java: String::new(),
            cache: String::new(),
            vqa: VqaEvaluator::Official,
        }
    }
}
