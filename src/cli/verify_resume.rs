//! `vlp verify-resume`: shows on this machine, with this experiment, that a run which is killed and resumed ends with the
//! bytes of one that was left alone.
//!
//! Both runs are short: three epochs over a few images, without scoring, in a folder of their own that is removed at the
//! end. They are processes of this program, as users start them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::context::{Context, Failure, LayerArgs, config_failure, exit};
use super::run::{print, track_failure};
use crate::config::{self, ObjectiveKind, Settings};
use crate::track::{RunDir, TrackError, sha256_of_file};

/// Check that a killed and resumed run equals an uninterrupted one, byte by byte.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Experiment file.
    pub file: PathBuf,
    #[command(flatten)]
    /// Layers above the file.
    pub layers: LayerArgs,
}

/// Epochs of the two runs.
const EPOCHS: usize = 3;

/// Images of the two runs.
const IMAGES: usize = 64;

/// How often the second run is killed.
const KILLS: usize = 2;

/// Files that must be equal.
const FILES: [&str; 3] = ["model.safetensors", "optimizer.safetensors", "state.json"];

/// Runs the command.
pub fn execute(args: &Args, context: &Context) -> Result<u8, Failure> {
    let experiment =
        config::load(&args.file, &args.layers.overrides()).map_err(|problems| config_failure(&problems, context))?;
    let settings = &experiment.settings;
    let folder = Path::new(&settings.output.runs).join(format!(".verify-resume-{}", std::process::id()));
    let compared = compare(args, settings, &folder, context);
    let removed = std::fs::remove_dir_all(&folder);
    let report = compared?;
    if let Err(error) = removed {
        eprintln!("warning: {}", TrackError::io("remove", &folder)(error));
    }
    print(&report)?;
    Ok(exit::OK)
}

fn compare(args: &Args, settings: &Settings, folder: &Path, context: &Context) -> Result<String, Failure> {
    let (whole, broken) = (folder.join("whole"), folder.join("killed"));
    let name = &settings.experiment.name;
    finish(args, settings, &whole)?;
    let mut seen = 0;
    for number in 1..=KILLS {
        let mut runner = start(args, settings, &broken)?;
        seen = kill_after_a_checkpoint(&mut runner, &broken, name, seen)?;
        if !context.quiet {
            eprintln!("killed after checkpoint {seen} (kill {number} of {KILLS})");
        }
    }
    finish(args, settings, &broken)?;
    let checkpoint = |runs: &Path| -> Result<PathBuf, Failure> {
        let run = RunDir::latest(runs, name).map_err(track_failure)?;
        Ok(run.map(|run| run.checkpoint(EPOCHS)).unwrap_or_default())
    };
    let (one, other) = (checkpoint(&whole)?, checkpoint(&broken)?);
    let mut report = String::new();
    let mut different = Vec::new();
    for file in FILES {
        let hash = sha256_of_file(&one.join(file)).map_err(track_failure)?;
        if hash == sha256_of_file(&other.join(file)).map_err(track_failure)? {
            report.push_str(&format!("same  {file}  sha256 {hash}\n"));
        } else {
            different.push(file);
        }
    }
    if different.is_empty() {
        return Ok(report);
    }
    let help = "a resumed run is not exact on this device; report it with the experiment file and the device";
    let files = different.join(", ");
    let report = format!("after {KILLS} kills the run ends with another {files}\n  help: {help}");
    Err(Failure::new(exit::TRAIN, report))
}

/// `vlp run` of the short form of the experiment, into `runs`.
fn start(args: &Args, settings: &Settings, runs: &Path) -> Result<Child, Failure> {
    let images = match settings.data.max_images {
        0 => IMAGES,
        given => given.min(IMAGES),
    };
    let text = |path: PathBuf| toml::Value::from(path.display().to_string()).to_string();
    let mut set = vec![
        format!("output.runs={}", text(runs.to_path_buf())),
        format!("output.results={}", text(runs.join(".results"))),
        format!("data.max_images={images}"),
        format!("train.epochs={EPOCHS}"),
        "train.checkpoint_every_steps=2".into(),
        "train.log_every=1".into(),
        "launch.launcher=local".into(),
        "launch.max_restarts=0".into(),
        "track.mlflow=off".into(),
        "select.split=\"\"".into(),
        "evaluate.splits=[]".into(),
        "paper=[]".into(),
    ];
    if settings.objective.kind != ObjectiveKind::Scst {
        // Exactness does not depend on the weights that training starts from.
        set.push("init.from=\"\"".into());
    }
    let program = std::env::current_exe();
    let mut command = Command::new(program.unwrap_or_else(|_| "vlp".into()));
    command.arg("--quiet").arg("run").arg(&args.file);
    let layers = &args.layers;
    for (flag, value) in layers
        .profile
        .iter()
        .map(|profile| ("--profile", profile))
        .chain(layers.device.iter().map(|device| ("--device", device)))
        .chain(layers.set.iter().chain(&set).map(|set| ("--set", set)))
    {
        command.args([flag, value]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().map_err(|error| {
        Failure::new(exit::TRAIN, format!("cannot start `vlp run`: {error}\n  help: start `vlp` by its full path"))
    })
}

fn finish(args: &Args, settings: &Settings, runs: &Path) -> Result<(), Failure> {
    let status = start(args, settings, runs)?.wait();
    let code = status.ok().and_then(|status| status.code());
    match code {
        Some(0) => Ok(()),
        code => {
            let code = code.and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::TRAIN);
            let help = "the lines above say why; the experiment must run before its resume can be checked";
            Err(Failure::new(code, format!("the short run did not finish\n  help: {help}")))
        }
    }
}

/// Waits until more than `seen` checkpoints were written, kills the runner, and returns their number; a run that is faster
/// than that ends by itself.
fn kill_after_a_checkpoint(runner: &mut Child, runs: &Path, name: &str, seen: usize) -> Result<usize, Failure> {
    let wait = |error| Failure::new(exit::TRAIN, format!("cannot wait for `vlp run`: {error}\n  help: try again"));
    loop {
        let run = RunDir::latest(runs, name).map_err(track_failure)?;
        let journal = run.and_then(|run| std::fs::read_to_string(run.journal_file()).ok()).unwrap_or_default();
        let written = journal.matches("\"checkpoint of ").count();
        if written > seen {
            let _ = runner.kill();
            runner.wait().map_err(wait)?;
            return Ok(written);
        }
        if runner.try_wait().map_err(wait)?.is_some() {
            return Ok(written);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
