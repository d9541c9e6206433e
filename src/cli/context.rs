//! What every subcommand shares: how to print, how to fail, and the flags that add configuration layers.

use std::collections::BTreeMap;
use std::io::IsTerminal;

use crate::config::{Overrides, Problems};

/// Exit codes that scripts and schedulers read.
pub mod exit {
    /// Success.
    pub const OK: u8 = 0;
    /// The configuration or the command line is wrong.
    pub const CONFIG: u8 = 2;
    /// Data on disk is missing or wrong.
    pub const DATA: u8 = 3;
    /// Training or launching failed, or the self-test found a difference.
    pub const TRAIN: u8 = 4;
    /// A table cell is outside its tolerance (`table --check`).
    pub const OUTSIDE: u8 = 5;
    /// Interrupted; running the same command again resumes.
    pub const RESUMABLE: u8 = 75;
}

/// How to talk to the person at the terminal.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// Colour on stderr and stdout.
    pub color: bool,
    /// Only warnings and errors on stderr.
    pub quiet: bool,
    /// stderr is a terminal.
    pub terminal: bool,
}

impl Context {
    /// `choice` is the value of `--color`; `auto` asks whether stderr is a terminal and honours `NO_COLOR`.
    pub fn new(choice: ColorChoice, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let color = match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        };
        Self { color, quiet, terminal }
    }
}

/// Value of `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ColorChoice {
    /// Colour on a terminal.
    #[default]
    Auto,
    /// Colour everywhere.
    Always,
    /// No colour.
    Never,
}

/// A command that did not succeed: what is printed to stderr, and the exit code.
#[derive(Debug)]
pub struct Failure {
    /// One of [`exit`].
    pub code: u8,
    /// Printed to stderr as it stands.
    pub report: String,
}

impl Failure {
    /// A failure from an error whose text ends with a `help:` line; `error: ` is put before it.
    pub fn new(code: u8, error: impl std::fmt::Display) -> Self {
        Self { code, report: format!("error: {error}") }
    }
}

/// All problems of a configuration, rendered with their source lines; exit code 2.
pub fn config_failure(problems: &Problems, context: &Context) -> Failure {
    Failure { code: exit::CONFIG, report: problems.render(context.color) }
}

/// Flags that add layers above the experiment file.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct LayerArgs {
    /// Set one option, e.g. `--set train.batch_size=8` (repeatable).
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Apply the `[profile.NAME]` tables of the files.
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Device: auto, flex, tch-cpu, tch-cuda[:N], cuda[:N]. Short for `--set launch.device=…`.
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Who starts the processes: local, slurm. Short for `--set launch.launcher=…`.
    #[arg(long, value_name = "LAUNCHER")]
    pub launcher: Option<String>,
}

impl LayerArgs {
    /// The flags that are short for `--set` and are given: option, flag, value.
    fn short(&self) -> impl Iterator<Item = (&'static str, &'static str, &String)> {
        let all = [("launch.device", "--device", &self.device), ("launch.launcher", "--launcher", &self.launcher)];
        all.into_iter().filter_map(|(key, flag, value)| Some((key, flag, value.as_ref()?)))
    }

    /// The options that `--set` and its short forms fix, each with what fixes it.
    pub fn fixed(&self) -> Vec<(String, String)> {
        let set = self.set.iter().filter_map(|set| set.split_once('=')).map(|(key, _)| key.trim());
        let set = set.map(|key| (key.to_owned(), format!("--set {key}=…")));
        set.chain(self.short().map(|(key, flag, _)| (key.to_owned(), flag.to_owned()))).collect()
    }

    /// The layers above the file: these flags and the process environment.
    pub fn overrides(&self) -> Overrides {
        let environment: BTreeMap<String, String> =
            std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
        let mut set = self.set.clone();
        set.extend(self.short().map(|(key, _, value)| format!("{key}={value}")));
        Overrides { profile: self.profile.clone(), set, environment }
    }
}
