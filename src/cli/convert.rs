//! `vlp convert`: a checkpoint of PyTorch or safetensors, rewritten as safetensors under today's parameter names.

use std::path::PathBuf;

use super::context::{Context, Failure, exit};
use crate::model::weights;

/// Rewrite a checkpoint (PyTorch .bin/.pt, safetensors) as safetensors that PyTorch code loads unchanged.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Checkpoint to read.
    #[arg(value_name = "IN")]
    from: PathBuf,
    /// File to write, `.safetensors`; must not exist.
    #[arg(value_name = "OUT")]
    to: PathBuf,
}

/// Runs the command.
pub fn execute(args: &Args, context: &Context) -> Result<u8, Failure> {
    let refuse = |text: String| Err(Failure::new(exit::CONFIG, text));
    let to = args.to.display();
    if args.to.extension().is_none_or(|e| e != "safetensors") {
        return refuse(format!("{to} does not end in .safetensors\n  help: safetensors is the only format written"));
    }
    if args.to.exists() {
        return refuse(format!("{to} exists\n  help: name another file; nothing is overwritten"));
    }
    let notes = weights::convert(&args.from, &args.to).map_err(|e| Failure::new(exit::DATA, e))?;
    if !context.quiet {
        notes.iter().for_each(|note| eprintln!("{note}"));
        eprintln!("wrote {to}");
    }
    Ok(exit::OK)
}
