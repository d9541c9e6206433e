//! `vlp diff A B`: the settings in which two experiments differ.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::context::{Context, Failure, LayerArgs, config_failure, exit};
use crate::config;

/// Print the settings in which two experiments differ.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Experiment file.
    #[arg(value_name = "A")]
    left: PathBuf,
    /// Experiment file.
    #[arg(value_name = "B")]
    right: PathBuf,
    #[command(flatten)]
    layers: LayerArgs,
}

/// Prints key, value in A, value in B to stdout; `-` where one has no such key. Without differences stdout is empty.
pub fn execute(args: &Args, context: &Context) -> Result<u8, Failure> {
    let overrides = args.layers.overrides();
    let settings = |file: &Path| {
        let experiment = config::load(file, &overrides).map_err(|p| config_failure(&p, context))?;
        Ok::<_, Failure>(config::flatten(&experiment.settings))
    };
    let (left, right) = (settings(&args.left)?, settings(&args.right)?);
    let cell = |value: Option<&Value>| value.map_or_else(|| "-".to_string(), config::toml_text);
    let mut keys: Vec<&String> = left.keys().chain(right.keys()).collect();
    keys.sort();
    keys.dedup();
    let different = keys.into_iter().filter(|key| left.get(*key) != right.get(*key));
    let rows: Vec<[String; 3]> =
        different.map(|key| [key.clone(), cell(left.get(key)), cell(right.get(key))]).collect();
    if rows.is_empty() {
        if !context.quiet {
            eprintln!("no differences");
        }
        return Ok(exit::OK);
    }
    let header = ["key".to_string(), args.left.display().to_string(), args.right.display().to_string()];
    print!("{}", super::list::columns(&header, &rows));
    Ok(exit::OK)
}
