//! `vlp plan`: what `vlp run` would do, and what it would need, before anything runs.

use std::path::PathBuf;

use super::context::{Context, Failure, LayerArgs, exit};
use super::run::{Prepared, print};

/// Print stages, processes with their environment, samples, steps, parameters, memory and disk.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Experiment file.
    pub file: PathBuf,
    #[command(flatten)]
    /// Layers above the file.
    pub layers: LayerArgs,
    /// Plan a new run of this experiment beside those there are.
    #[arg(long)]
    pub fresh: bool,
}

/// Runs the command.
pub fn execute(args: &Args, context: &Context) -> Result<u8, Failure> {
    let prepared = Prepared::new(&args.file, &args.layers, args.fresh, context)?;
    print(&prepared.describe(context)?)?;
    Ok(exit::OK)
}
