//! The batch script for Slurm, word for word.

use std::path::Path;

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
