//! `vlp repro`: does the work of a recorded run again, from its lock alone, and refuses when code, data, device or initial
//! weights are not those of the record.

use std::path::{Path, PathBuf};

use super::context::{Context, Failure, LayerArgs, exit};
use super::facts::facts;
use super::run::{self, ReuseArgs, resolved_device, track_failure};
use crate::config::to_toml;
use crate::track::{Code, Lock, RunDir, sha256_of_file, write_atomic};

/// Run again what a lock file records.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// `run.lock.toml` of a run.
    pub lock: PathBuf,
    /// Go on although this differs from the record: code, data, device or weights (repeatable).
    #[arg(long = "allow-drift", value_name = "KEY", value_parser = ["code", "data", "device", "weights"])]
    pub allow_drift: Vec<String>,
}

/// Runs the command.
pub fn execute(args: &Args, context: &Context) -> Result<u8, Failure> {
    let lock = Lock::load(&args.lock).map_err(track_failure)?;
    let drift = drift(&lock)?;
    let (allowed, refused): (Vec<_>, Vec<_>) =
        drift.iter().partition(|(key, _)| args.allow_drift.iter().any(|a| a == key));
    if let Some((key, _)) = refused.first() {
        let listed: String = refused.iter().map(|(key, text)| format!("\n    {key}: {text}")).collect();
        let help = format!("restore the recorded state, or accept the difference with `--allow-drift={key}`");
        let report = format!("{} cannot be repeated as it was:{listed}\n  help: {help}", args.lock.display());
        return Err(Failure::new(exit::CONFIG, report));
    }
    for (key, text) in allowed {
        eprintln!("note  {key} differs: {text}");
    }
    let file = experiment_file(&lock)?;
    let reuse = ReuseArgs { fresh: true, allow_drift: false };
    let run = run::Args { files: vec![file], layers: LayerArgs::default(), dry_run: false, reuse };
    let code = run::execute(&run, context)?;
    compare(&args.lock, &lock, context)?;
    Ok(code)
}

/// What differs from the record: a key and both values in words.
fn drift(lock: &Lock) -> Result<Vec<(&'static str, String)>, Failure> {
    let mut found = Vec::new();
    let mut differs = |key, now: String, recorded: &str| {
        if now != recorded {
            found.push((key, format!("{now} (the record has {recorded})")));
        }
    };
    let (version, code) = (env!("CARGO_PKG_VERSION"), Code::find());
    if (version, &code.source) != (lock.version.as_str(), &lock.code.source) {
        let text = |version: &str, code: &Code| format!("vlp {version}, commit {}, changes {}", code.commit, code.diff);
        differs("code", text(version, &code), &text(&lock.version, &lock.code));
    }
    let data = facts(&lock.settings).map_err(|error| Failure::new(exit::DATA, error))?.data_fingerprint;
    differs("data", data, &lock.data_fingerprint);
    differs("device", resolved_device(&lock.settings), &lock.device);
    if let Some(parent) = &lock.parent {
        let now = sha256_of_file(&parent.checkpoint).map_err(track_failure)?;
        differs(
            "weights",
            format!("{} with SHA-256 {now}", parent.checkpoint.display()),
            &format!("{} with SHA-256 {}", parent.checkpoint.display(), parent.sha256),
        );
    }
    Ok(found)
}

/// The recorded settings as an experiment file beside the runs; it starts from the recorded weights.
fn experiment_file(lock: &Lock) -> Result<PathBuf, Failure> {
    let mut settings = lock.settings.clone();
    if let Some(parent) = &lock.parent {
        settings.init.from = parent.checkpoint.display().to_string();
    }
    let file = Path::new(&settings.output.runs).join(".repro").join(format!("{}.toml", settings.experiment.name));
    let text = format!("# Written by `vlp repro` from the record of {}.\n{}", lock.created, to_toml(&settings));
    write_atomic(&file, text.as_bytes()).map_err(track_failure)?;
    Ok(file)
}

/// Says whether the last checkpoint has the bytes of the recorded run, where that still has one.
fn compare(file: &Path, lock: &Lock, context: &Context) -> Result<(), Failure> {
    let recorded = RunDir::open(file.parent().unwrap_or(Path::new("."))).map_err(track_failure)?;
    let settings = &lock.settings;
    let newest = RunDir::latest(Path::new(&settings.output.runs), &settings.experiment.name).map_err(track_failure)?;
    let Some(repeated) = newest else { return Ok(()) };
    let epoch = settings.train.epochs;
    let (one, other) = (recorded.model_file(epoch), repeated.model_file(epoch));
    if context.quiet || !one.is_file() || !other.is_file() {
        return Ok(());
    }
    let same = sha256_of_file(&one).map_err(track_failure)? == sha256_of_file(&other).map_err(track_failure)?;
    let verdict = if same { "has the same bytes as" } else { "differs from" };
    eprintln!("note  the model of epoch {epoch} {verdict} {}", one.display());
    Ok(())
}
