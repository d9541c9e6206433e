//! `vlp explain [KEY]`: what an option means, from the same definition that the checks use.

use super::context::{Context, Failure, exit};
use crate::config;

/// Describe an option, the keys of a section, or list the sections.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Option (`train.batch_size`) or section (`train`).
    #[arg(value_name = "KEY")]
    key: Option<String>,
}

/// Prints the description to stdout.
pub fn execute(args: &Args, _context: &Context) -> Result<u8, Failure> {
    let text = config::explain(args.key.as_deref()).map_err(|e| Failure::new(exit::CONFIG, e))?;
    print!("{text}");
    Ok(exit::OK)
}
