//! The Slurm launcher against a real Slurm: started by `scripts/slurm_test.sh`, which brings up two nodes on one machine.
//! Without it the tests say loudly that they skip.

mod demo_runs;

use std::time::{Duration, Instant};

use demo_runs::{Folder, TINY, folders};

/// A multi-node group needs LibTorch; the embedded engine serves one node.
const NODES: usize = if cfg!(feature = "tch") { 2 } else { 1 };

fn folder() -> Option<Folder> {
    if std::env::var_os("SLURM_TEST").is_none() {
        eprintln!("SKIPPED: scripts/slurm_test.sh starts a Slurm for this test");
        return None;
    }
    let folder = Folder::new();
    let device = if cfg!(feature = "tch") { "tch-cpu" } else { "flex" };
    let text = TINY.split("[[paper]]").next().unwrap().replace("splits = [\"test\"]", "splits = []");
    let launch = format!(
        "device = \"{device}\"\nlauncher = \"slurm\"\nworld_size = {}\nthreads = 1\n[slurm]\nnodes = {NODES}\n\
         extra = [\"--overcommit\", \"--oversubscribe\"]\n",
        2 * NODES
    );
    folder.write("tiny.toml", text.replace("device = \"flex\"", &launch));
    Some(folder)
}

fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(180);
    while !ready() {
        assert!(Instant::now() < deadline, "never came: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_job_ends_as_a_local_run_does() {
    let Some(folder) = folder() else { return };
    folder.stdout(&["run", "tiny.toml"]);
    folder.stdout(&["run", "tiny.toml", "--fresh", "--launcher", "local"]);
    let runs = folders(&folder.path("runs/tiny"));
    let model = |run: &std::path::Path| std::fs::read(run.join("checkpoints/epoch-0002/model.safetensors")).unwrap();
    assert!(model(&runs[0]) == model(&runs[1]), "Slurm and the local launcher end with different bytes");
    assert!(folder.stdout(&["status"]).contains("finished"));
    let rank = (2 * NODES - 1).to_string();
    assert!(folder.stdout(&["logs", runs[0].to_str().unwrap(), "--rank", &rank]).contains("worker started"));
}

#[test]
fn a_stopped_job_is_resumed_and_a_preempted_one_comes_back() {
    let Some(folder) = folder() else { return };
    let long = ["run", "tiny.toml", "--set", "train.epochs=60", "--set", "slurm.wait=false"];
    folder.stdout(&long);
    let run = folder.run("tiny");
    let journal = || std::fs::read_to_string(run.join("journal.jsonl")).unwrap_or_default();
    let job = std::fs::read_to_string(run.join("slurm.job")).unwrap().trim().to_owned();
    wait_for("the first step", || journal().contains("train/loss"));
    assert!(folder.stdout(&["status"]).contains(&format!("(job {job} running)")));
    // As Slurm does before the time limit and at a preemption: the workers are signalled, and the job comes back.
    let signalled = std::process::Command::new("scancel").args(["--signal=TERM", &job]).status().unwrap();
    assert!(signalled.success());
    wait_for("the interruption", || journal().contains("\"interrupted\""));
    wait_for("the second start", || journal().matches("\"running\"").count() == 2);
    let losses = journal().matches("train/loss").count();
    wait_for("further steps", || journal().matches("train/loss").count() > losses);
    folder.stdout(&["stop", "tiny"]);
    wait_for("the end", || journal().matches("\"interrupted\"").count() == 2);
    wait_for("an empty queue", || {
        let queue = std::process::Command::new("squeue").args(["--noheader", "--jobs", &job]).output().unwrap();
        String::from_utf8_lossy(&queue.stdout).trim().is_empty()
    });
    assert_eq!(journal().matches("\"running\"").count(), 2, "a stopped job came back");
}
