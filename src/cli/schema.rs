//! `vlp schema`: the JSON Schema of experiment files, as committed at `schemas/experiment.schema.json`.

use super::context::{Context, Failure, exit};
use crate::config;

/// Print the JSON Schema of experiment files.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Prints the schema to stdout.
pub fn execute(_args: &Args, _context: &Context) -> Result<u8, Failure> {
    println!("{:#}", config::experiment_schema());
    Ok(exit::OK)
}
