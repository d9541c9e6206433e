//! `vlp doctor`: what this machine and this build have, what is missing, and the command that gets it.
//!
//! It looks; it installs nothing, downloads nothing and writes nothing. What it finds is a diagnosis and not a mistake of
//! the user's: the exit code is 0 whatever is missing.

mod machine;
mod tools;

use std::path::PathBuf;

use serde::Serialize;

use super::context::{Context, Failure, LayerArgs, config_failure, exit};
use super::places::scorers;
use super::run::print;
use super::score::output;
use crate::config::{self, Settings};

/// Look at this machine.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Experiment file, for the folders that its `[metrics]` and `[output]` name; the defaults when not given.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Format.
    #[arg(long, value_enum, default_value_t)]
    format: FormatArg,
}

/// Value of `--format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum FormatArg {
    /// A Markdown table, and below it what is missing.
    #[default]
    Table,
    /// JSON.
    Json,
}

/// Whether a thing can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It is there.
    Ok,
    /// It is there, but this build was made without it.
    Unused,
    /// It is not there.
    Missing,
}

/// One thing that was looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The thing.
    pub item: String,
    /// Whether it can be used.
    pub state: State,
    /// What was found, or where it was looked for.
    pub found: String,
    /// What is missing, exactly: files, programs.
    pub missing: Vec<String>,
    /// Commands and advice that get it.
    pub help: Vec<String>,
}

impl Finding {
    /// It is there.
    pub fn ok(item: impl Into<String>, found: impl Into<String>) -> Self {
        Self { item: item.into(), state: State::Ok, found: found.into(), missing: Vec::new(), help: Vec::new() }
    }

    /// It is not.
    pub fn missing(item: impl Into<String>, found: impl Into<String>, missing: Vec<String>, help: Vec<String>) -> Self {
        Self { item: item.into(), state: State::Missing, found: found.into(), missing, help }
    }
}

/// Runs the command.
pub fn execute(args: &Args, context: &Context) -> Result<u8, Failure> {
    let settings = match &args.file {
        None => Settings::default(),
        Some(file) => {
            let loaded = config::load(file, &LayerArgs::default().overrides());
            loaded.map_err(|problems| config_failure(&problems, context))?.settings
        }
    };
    let mut findings = machine::findings(&settings.output.runs);
    findings.extend(tools::findings(&scorers(&settings.metrics)));
    print(&match args.format {
        FormatArg::Table => table(&findings),
        FormatArg::Json => {
            let json = serde_json::to_string_pretty(&findings);
            json.map_err(|error| Failure::new(exit::DATA, format!("cannot write JSON: {error}\n  help: report this")))?
                + "\n"
        }
    })?;
    Ok(exit::OK)
}

fn table(findings: &[Finding]) -> String {
    let header = ["Item", "State", "Found"].map(str::to_owned);
    let row = |finding: &Finding| {
        let state = match finding.state {
            State::Ok => "ok",
            State::Unused => "unused",
            State::Missing => "missing",
        };
        vec![finding.item.clone(), state.to_owned(), finding.found.clone()]
    };
    let mut text = output::table(&header, &findings.iter().map(row).collect::<Vec<_>>(), 3);
    for finding in findings.iter().filter(|finding| finding.state != State::Ok) {
        text.push_str(&format!("\n{}\n", finding.item));
        finding.missing.iter().for_each(|missing| text.push_str(&format!("  missing: {missing}\n")));
        finding.help.iter().for_each(|help| text.push_str(&format!("  help: {help}\n")));
    }
    text
}
