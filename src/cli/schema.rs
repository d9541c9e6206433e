//! `vlp schema`: the JSON Schemas of experiment and sweep files, as committed in `schemas/`.

use super::context::{Context, Failure, exit};
use crate::config;

/// Print the JSON Schema of experiment files, or of another kind of file.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kind of file.
    #[arg(value_name = "KIND", value_enum, default_value_t)]
    kind: Kind,
}

/// Kinds of files with a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Kind {
    /// `experiments/*/*.toml`.
    #[default]
    Experiment,
    /// `experiments/sweeps/*.toml`.
    Sweep,
}

/// Prints the schema to stdout.
pub fn execute(args: &Args, _context: &Context) -> Result<u8, Failure> {
    let schema = match args.kind {
        Kind::Experiment => config::experiment_schema(),
        Kind::Sweep => config::sweep_schema(),
    };
    println!("{schema:#}");
    Ok(exit::OK)
}
