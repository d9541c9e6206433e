//! Programs and data of others: Java, the data of METEOR, the SPICE tool, LibTorch, MLflow, Slurm.
//!
//! All are optional. Java is started once to ask its version; nothing else is run.

use std::path::{Path, PathBuf};

use super::super::dashboard::{self, VERSION};
use super::super::places::{in_path, variable};
use super::{Finding, State};
use crate::evaluate::Scorers;
use crate::metrics::meteor::resources::Files;
use crate::metrics::spice::{self, SpiceError};

/// What a run can use besides this program.
pub fn findings(scorers: &Scorers) -> Vec<Finding> {
    vec![java(scorers), meteor(scorers), spice(scorers), libtorch(scorers), nccl(), mlflow(), slurm()]
}

fn java(scorers: &Scorers) -> Finding {
    let program = &scorers.places.java;
    let why = match spice::java_version(program) {
        Ok(Ok(version)) => return Finding::ok("Java", format!("{version} (`{}`)", program.display())),
        Ok(Err(missing)) => missing.to_string(),
        Err(error) => first_line(&error),
    };
    let help = "apt-get install default-jdk-headless; or name another with JAVA_HOME or `metrics.java`".to_owned();
    let what = format!("for SPICE, and for `metrics.meteor = \"jar\"`; looked for `{}`", program.display());
    Finding::missing("Java", what, vec![why], vec![help])
}

fn meteor(scorers: &Scorers) -> Finding {
    let item = "METEOR data";
    let help = vec!["scripts/meteor.sh".to_owned()];
    let Some(folder) = &scorers.places.meteor else {
        return Finding::missing(item, "no folder to look in", vec!["HOME or VLP_METEOR_DIR".into()], help);
    };
    let missing = Files::missing(folder);
    if missing.is_empty() {
        return Finding::ok(item, format!("in `{}`", folder.display()));
    }
    let missing = missing.into_iter().map(|file| format!("file `{}`", folder.join(file).display())).collect();
    Finding::missing(item, format!("looked in `{}`", folder.display()), missing, help)
}

fn spice(scorers: &Scorers) -> Finding {
    let item = "SPICE tool";
    let settings = match scorers.spice_settings() {
        Ok(settings) => settings,
        Err(_) => {
            let help = vec!["set HOME, or VLP_SPICE_DIR and XDG_CACHE_HOME".to_owned()];
            return Finding::missing(item, "no folder to look in", vec!["HOME or VLP_SPICE_DIR".into()], help);
        }
    };
    let folder = settings.folder.display();
    match spice::check(&settings) {
        Ok(version) => Finding::ok(item, format!("in `{folder}`, with CoreNLP's models, on Java {version}")),
        Err(SpiceError::NotAvailable(unavailable)) => {
            let missing = unavailable.missing.iter().map(ToString::to_string).collect();
            Finding::missing(item, format!("looked in `{folder}`"), missing, unavailable.help())
        }
        Err(error) => Finding::missing(item, format!("looked in `{folder}`"), vec![first_line(&error)], Vec::new()),
    }
}

fn libtorch(scorers: &Scorers) -> Finding {
    let item = "LibTorch";
    if cfg!(feature = "tch") {
        return Finding::ok(item, "part of this build");
    }
    let library = |folder: &Path| folder.join("lib/libtorch_cpu.so").is_file();
    let build = "cargo build --release --features tch";
    match variable("LIBTORCH").into_iter().chain(fetched(scorers)).find(|folder| library(folder)) {
        Some(folder) => Finding {
            state: State::Unused,
            help: vec![format!("eval \"$(scripts/libtorch.sh)\" && {build}")],
            ..Finding::ok(item, format!("in `{}`; this build was made without", folder.display()))
        },
        None => Finding::missing(
            item,
            "for the device tch-cpu",
            vec!["lib/libtorch_cpu.so in `$LIBTORCH` or in the user's cache folder".into()],
            vec![format!("./bootstrap.sh setup-tch && eval \"$(scripts/libtorch.sh)\" && {build}")],
        ),
    }
}

fn nccl() -> Finding {
    let item = "NCCL";
    #[cfg(feature = "tch")]
    if crate::distributed::C10d::has_nccl() {
        return Finding::ok(item, "part of this build");
    }
    Finding::missing(
        item,
        "for several GPUs with tch-cuda",
        vec!["a build against a LibTorch with CUDA and the headers of NCCL".into()],
        vec!["README.md, \"GPUs\"".into()],
    )
}

/// The folders that scripts/libtorch.sh made, newest version first.
fn fetched(scorers: &Scorers) -> Vec<PathBuf> {
    let Some(entries) = scorers.places.cache.as_ref().and_then(|cache| std::fs::read_dir(cache).ok()) else {
        return Vec::new();
    };
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libtorch-"));
    let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(named).collect();
    folders.sort();
    folders.reverse();
    folders
}

fn mlflow() -> Finding {
    match dashboard::program(None) {
        Ok(program) => Finding::ok("MLflow", format!("`{}`", program.display())),
        Err(_) => Finding::missing(
            "MLflow",
            "for `vlp dashboard`, and a tracking server on this machine; another one needs nothing here",
            vec!["program `mlflow` in PATH, or named by VLP_MLFLOW".into()],
            vec![format!("python3 -m venv ~/mlflow && ~/mlflow/bin/pip install mlflow=={VERSION}")],
        ),
    }
}

fn slurm() -> Finding {
    match in_path("sbatch") {
        Some(program) => Finding::ok("Slurm", format!("`{}`", program.display())),
        None => Finding::missing(
            "Slurm",
            "for jobs on a cluster",
            vec!["program `sbatch` in PATH".into()],
            vec!["log in to a node of the cluster; for a trial on one machine, apt-get install slurm-wlm".into()],
        ),
    }
}

fn first_line(error: &SpiceError) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
