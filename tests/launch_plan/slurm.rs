//! The batch script for Slurm, word for word.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use vlp::config::Settings;
use vlp::launch::plan::plan;
use vlp::launch::slurm::script;

use super::{facts, machine};

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.experiment.name = "coco_ce".into();
    settings.launch.world_size = 4;
    settings
}

fn text(settings: &Settings) -> String {
    script(settings, &plan(settings, &facts(), &machine(), Path::new("runs/coco_ce/20261123-171500")))
}

#[test]
fn one_machine_with_the_defaults() {
    insta::assert_snapshot!(text(&settings()));
}

#[test]
fn several_machines_with_everything_set() {
    let mut settings = settings();
    settings.launch.threads = 8;
    settings.slurm.nodes = 2;
    settings.slurm.gpus_per_node = 2;
    settings.slurm.time = "08:00:00".into();
    settings.slurm.partition = "gpu".into();
    settings.slurm.account = "vision".into();
    settings.slurm.constraint = "a100".into();
    settings.slurm.requeue = false;
    settings.slurm.signal_s = 300;
    settings.slurm.extra = vec!["--mail-type=END".into(), "--mem=64G".into()];
    settings.slurm.setup = vec!["module load hdf5".into()];
    insta::assert_snapshot!(text(&settings));
}

/// The script is run by bash; Slurm's commands stand in `bin`, and `srun` ends when its step was killed.
#[test]
fn a_step_without_progress_is_killed_and_one_with_progress_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let program = |name: &str, script: &str| {
        let path = folder.path().join("bin").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("#!/bin/bash\n{script}\n")).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    };
    program("squeue", "echo 7.batch; echo 7.0");
    program("scancel", "echo \"$@\" >> killed");
    let ranks = folder.path().join("runs/coco_ce/20261123-171500/ranks");
    std::fs::create_dir_all(&ranks).unwrap();
    let run = |srun: &str| {
        program("srun", srun);
        let mut settings = settings();
        settings.launch.hang_timeout_s = 4;
        std::fs::write(folder.path().join("job.sh"), text(&settings)).unwrap();
        let path = format!("{}:/usr/bin:/bin", folder.path().join("bin").display());
        let mut job = Command::new("bash");
        job.arg("job.sh").current_dir(folder.path()).env("PATH", path).env("SLURM_JOB_ID", "7");
        let output = job.output().unwrap();
        let killed = std::fs::read_to_string(folder.path().join("killed")).unwrap_or_default();
        (output.status.code(), String::from_utf8(output.stderr).unwrap(), killed)
    };
    // A mark that is touched seven times, each time long before four seconds are over.
    let busy = format!("for i in 1 2 3 4 5 6 7; do date > {0}/.0.alive; sleep 0.9; done; exit 3", ranks.display());
    assert_eq!(run(&busy), (Some(3), String::new(), String::new()));
    let (code, said, killed) = run("while [ ! -e killed ]; do sleep 0.1; done; exit 137");
    assert_eq!((code, killed.as_str()), (Some(137), "--signal=KILL 7.0\n"));
    assert_eq!(said, "hung: no process made progress for 4 s (launch.hang_timeout_s); they are killed\n");
}
