//! `vlp show FILE`: the settings an experiment resolves to, as TOML or with the origin of each value.

use std::path::PathBuf;

use super::context::{Context, Failure, LayerArgs, config_failure, exit};
use crate::config::{self, Experiment};

/// Print the resolved settings of an experiment.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Experiment file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// One `key = value` per line, each with the place it was given.
    #[arg(long)]
    origin: bool,
    #[command(flatten)]
    layers: LayerArgs,
}

/// Prints TOML to stdout; it can be loaded again and resolves to the same settings.
pub fn execute(args: &Args, context: &Context) -> Result<u8, Failure> {
    let experiment = config::load(&args.file, &args.layers.overrides()).map_err(|p| config_failure(&p, context))?;
    if args.origin {
        print!("{}", with_origins(&experiment));
    } else {
        print!("{}", config::to_toml(&experiment.settings));
    }
    Ok(exit::OK)
}

fn with_origins(experiment: &Experiment) -> String {
    let lines: Vec<(String, String)> = config::flatten(&experiment.settings)
        .into_iter()
        .map(|(key, value)| {
            let origin = experiment.origins.of(&key).to_string();
            (format!("{key} = {}", config::toml_text(&value)), origin)
        })
        .collect();
    // One very long path must not push all origins to the right.
    let width = lines.iter().map(|(line, _)| line.chars().count()).filter(|n| *n <= 60).max().unwrap_or(0);
    lines.iter().map(|(line, origin)| format!("{line:width$}  # {origin}\n")).collect()
}
