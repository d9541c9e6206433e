//! `vlp score`: metrics on a predictions file alone, as the COCO and VQA tools compute them.
//!
//! Reads files in the layouts of those tools and prints scores; it knows no runs and no experiments.

mod captions;
mod entries;
pub mod output;
mod vqa;

pub use captions::human_captions;

use std::path::PathBuf;

use super::context::{Context, Failure};
use crate::config::MeteorProgram;

/// Score predictions without a run.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// BLEU, METEOR, ROUGE-L, CIDEr and SPICE of captions, as the COCO caption tools compute them.
    Captions(CaptionArgs),
    /// Accuracy of answers, as the VQA tools compute it.
    Vqa(VqaArgs),
}

/// Arguments of `vlp score captions`.
#[derive(Debug, clap::Args)]
struct CaptionArgs {
    /// COCO results: a JSON list of `{"image_id": …, "caption": "…"}`, one caption per image.
    #[arg(long, value_name = "FILE")]
    predictions: PathBuf,
    /// COCO annotations: a JSON object with `annotations` (`image_id`, `caption`) and, usually, `images` (`id`).
    #[arg(long, value_name = "FILE")]
    references: PathBuf,
    /// Scores, separated by commas; `bleu` is all four. All when not given.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    metrics: Vec<MetricArg>,
    /// What computes METEOR; both give the same scores, the jar needs Java.
    #[arg(long, value_enum, default_value_t)]
    meteor: MeteorArg,
    #[command(flatten)]
    output: OutputArgs,
}

/// Arguments of `vlp score vqa`.
#[derive(Debug, clap::Args)]
struct VqaArgs {
    /// VQA results: a JSON list of `{"question_id": …, "answer": "…"}`.
    #[arg(long, value_name = "FILE")]
    predictions: PathBuf,
    /// VQA 2.0 questions; the file is compared with the annotations, and its texts go with `--per-image`.
    #[arg(long, value_name = "FILE")]
    questions: Option<PathBuf>,
    /// VQA 2.0 annotations.
    #[arg(long, value_name = "FILE")]
    annotations: PathBuf,
    /// The rule: official, or legacy (that of VLP's published dev accuracy).
    #[arg(long, value_enum, default_value_t)]
    evaluator: EvaluatorArg,
    /// Score the predicted questions only; else the official rule wants all of them. The legacy rule always does this.
    #[arg(long)]
    subset: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// How scores are printed.
#[derive(Debug, clap::Args)]
struct OutputArgs {
    /// Format; JSON and CSV are in full precision.
    #[arg(long, value_enum, default_value_t)]
    format: FormatArg,
    /// Also print the scores of each image, or question.
    #[arg(long)]
    per_image: bool,
}

/// Value of `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum FormatArg {
    /// A Markdown table.
    #[default]
    Table,
    /// JSON.
    Json,
    /// Comma-separated values.
    Csv,
}

/// Value of `--metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
enum MetricArg {
    /// BLEU-1 to BLEU-4.
    Bleu,
    /// BLEU-1.
    #[value(name = "bleu_1")]
    Bleu1,
    /// BLEU-2.
    #[value(name = "bleu_2")]
    Bleu2,
    /// BLEU-3.
    #[value(name = "bleu_3")]
    Bleu3,
    /// BLEU-4.
    #[value(name = "bleu_4")]
    Bleu4,
    /// METEOR 1.5, over the data in `$VLP_METEOR_DIR`, else `~/.cache/vlp/meteor`; `scripts/meteor.sh` fetches them.
    Meteor,
    /// ROUGE-L.
    RougeL,
    /// CIDEr-D.
    Cider,
    /// SPICE, by the official tool; the folder `$VLP_SPICE_DIR`, else `~/.cache/vlp/spice`.
    Spice,
}

/// Value of `--meteor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum MeteorArg {
    /// This program.
    #[default]
    Native,
    /// The official jar.
    Jar,
}

impl From<MeteorArg> for MeteorProgram {
    fn from(arg: MeteorArg) -> Self {
        match arg {
            MeteorArg::Native => Self::Native,
            MeteorArg::Jar => Self::Jar,
        }
    }
}

/// Value of `--evaluator`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum EvaluatorArg {
    /// That of the VQA challenge.
    #[default]
    Official,
    /// Pythia's, with which VLP's published dev accuracy was made.
    Legacy,
}

/// Runs the command.
pub fn execute(args: &Args, _context: &Context) -> Result<u8, Failure> {
    match &args.what {
        What::Captions(args) => captions::execute(args),
        What::Vqa(args) => vqa::execute(args),
    }
}
