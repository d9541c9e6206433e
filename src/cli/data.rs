//! `vlp data`: write the demo world, and check the data that an experiment reads.

use std::path::PathBuf;

use super::context::{Context, Failure, LayerArgs, config_failure, exit};
use super::facts::used_splits;
use super::run::print;
use crate::config;
use crate::data::demo_world::{self, Outcome, WorldOptions};
use crate::data::verify;

/// Write the demo world; check the data that an experiment reads.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write a small synthetic data root that can be learnt, in the layouts of the original data.
    Demo(DemoArgs),
    /// Check every image of the splits that an experiment uses, and report all defects.
    Verify(VerifyArgs),
}

#[derive(Debug, clap::Args)]
struct DemoArgs {
    /// Folder to write; new, empty, or an equal demo world.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Decides everything that is random.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// The paper's 100 regions × 2048 numbers and 1601 classes, with few images.
    #[arg(long)]
    full_size: bool,
}

#[derive(Debug, clap::Args)]
struct VerifyArgs {
    /// Experiment file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    layers: LayerArgs,
}

/// Runs the command.
///
/// # Errors
/// What cannot be configured (exit code 2), written or read (3).
pub fn execute(args: &Args, context: &Context) -> Result<u8, Failure> {
    match &args.command {
        Command::Demo(args) => demo(args, context),
        Command::Verify(args) => verify(args, context),
    }
}

fn demo(args: &DemoArgs, context: &Context) -> Result<u8, Failure> {
    let options = WorldOptions { seed: args.seed, full_size: args.full_size };
    let outcome = demo_world::write(&args.out, options).map_err(|error| Failure::new(exit::DATA, error))?;
    let (done, summary) = match &outcome {
        Outcome::Written(summary) => ("written", summary),
        Outcome::UpToDate(summary) => ("up to date", summary),
    };
    if !context.quiet {
        eprintln!(
            "demo world {done}: {} COCO, {} CC and {} Flickr30k images, {} questions; {:.1} MB in {} files",
            summary.coco,
            summary.cc,
            summary.flickr,
            summary.questions,
            summary.bytes as f64 / 1e6,
            summary.files
        );
        let folder = std::path::absolute(&args.out).unwrap_or_else(|_| args.out.clone());
        eprintln!("hint: export DATA_ROOT={}", quoted(&folder.display().to_string()));
    }
    Ok(exit::OK)
}

/// `text` as one word of a shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:,@".contains(c);
    if text.chars().all(plain) { text.into() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

fn verify(args: &VerifyArgs, context: &Context) -> Result<u8, Failure> {
    let experiment = config::load(&args.file, &args.layers.overrides()).map_err(|p| config_failure(&p, context))?;
    let settings = experiment.settings;
    let report =
        verify::verify(&settings.data, &used_splits(&settings)).map_err(|error| Failure::new(exit::DATA, error))?;
    print(&format!("{report}\n"))?;
    Ok(if report.defects.is_empty() { exit::OK } else { exit::DATA })
}
