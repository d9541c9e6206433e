//! `vlp plan`: what `vlp run` would do, and what it would need, before anything runs.

use std::path::PathBuf;

use super::context::{Context, Failure, LayerArgs, exit};
use super::run::{Prepared, ReuseArgs, print};

/// Print stages, processes with their environment, samples, steps, parameters, memory and disk.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Experiment files; what several start from is planned once.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    #[command(flatten)]
    /// Layers above the files.
    pub layers: LayerArgs,
    #[command(flatten)]
    /// Which earlier runs count.
    pub reuse: ReuseArgs,
}

/// Runs the command.
pub fn execute(args: &Args, context: &Context) -> Result<u8, Failure> {
    let prepared = Prepared::new(&args.files, &args.layers, &args.reuse, context)?;
    print(&prepared.describe(context)?)?;
    Ok(exit::OK)
}
