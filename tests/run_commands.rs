//! Commands around runs: `stop`, `repro`, `verify-resume`, and a second runner on one folder.

mod demo_runs;

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use demo_runs::{Folder, TINY, folders};
use vlp::track::{Lock, sha256_of_file};

fn folder() -> Folder {
    let folder = Folder::new();
    let text = TINY.split("[[paper]]").next().unwrap().replace("splits = [\"test\"]", "splits = []");
    folder.write("tiny.toml", text.replace("epochs = 2", "epochs = 40"));
    folder
}

/// A runner at work on its second step or later, and its folder.
fn at_work(folder: &Folder, args: &[&str]) -> (Child, PathBuf) {
    // Whoever asked for the runner waits for it.
    #[allow(clippy::zombie_processes)]
    let child = folder.command(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(run) = folder.path("runs/tiny").is_dir().then(|| folders(&folder.path("runs/tiny")).pop()).flatten()
        {
            let journal = std::fs::read_to_string(run.join("journal.jsonl")).unwrap_or_default();
            if journal.contains("train/loss") {
                return (child, run);
            }
        }
        assert!(Instant::now() < deadline, "the run never came to its first step");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn stop_ends_a_run_that_can_be_resumed_and_a_second_runner_is_refused() {
    let folder = folder();
    let idle = folder.failure(2, &["stop", "tiny"]);
    assert!(idle.starts_with("error: no run `tiny`, here or in `runs`\n"), "{idle}");
    let (mut runner, run) = at_work(&folder, &["run", "tiny.toml"]);
    let second = folder.failure(4, &["run", "tiny.toml", "-q"]);
    let relative = run.strip_prefix(folder.path("")).unwrap().display().to_string();
    assert_eq!(
        second,
        format!(
            "error: run `{relative}` is in use by another `vlp` process\n  help: wait until it ends, or stop it with Ctrl-C; \
             `vlp status` shows how far it is\n"
        )
    );
    let process = runner.id();
    let stopped = folder.vlp(&["stop", "tiny"]);
    assert_eq!(stopped.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(stopped.stderr).unwrap(),
        format!("asked process {process} to stop: {relative} saves at its next step and ends\n")
    );
    assert_eq!(runner.wait().unwrap().code(), Some(75));
    assert!(folder.stdout(&["status"]).contains("interrupted"));
    let again = folder.failure(2, &["stop", "tiny"]);
    assert_eq!(again, format!("error: nothing runs in `{relative}`\n  help: `vlp status` shows where it stands\n"));
}

#[test]
fn a_recorded_run_is_repeated_from_its_lock_unless_something_changed() {
    let folder = folder();
    folder.stdout(&["run", "tiny.toml", "--set", "train.epochs=1", "--set", "select.split=\"\""]);
    let run = folder.run("tiny");
    let lock = run.join("run.lock.toml");
    // Tests may run on a tree whose changes are not those that the binary was built from; the code is looked at below.
    let repeated = folder.vlp(&["repro", lock.to_str().unwrap()]);
    let text = String::from_utf8(repeated.stderr).unwrap();
    assert_eq!(repeated.status.code(), Some(0), "{text}");
    assert!(text.contains("note  the model of epoch 1 has the same bytes as "), "{text}");
    assert_eq!(folders(&folder.path("runs/tiny")).len(), 2);

    let recorded = std::fs::read_to_string(&lock).unwrap();
    let fingerprint = recorded.lines().find(|line| line.starts_with("data_fingerprint")).unwrap();
    let changed =
        recorded.replace(fingerprint, "data_fingerprint = \"another\"").replace("version = \"", "version = \"9");
    std::fs::write(&lock, changed).unwrap();
    let refused = folder.failure(2, &["repro", lock.to_str().unwrap(), "--allow-drift=code"]);
    assert!(refused.contains(" cannot be repeated as it was:\n    data: "), "{refused}");
    assert!(refused.contains(" (the record has another)\n  help: "), "{refused}");
    assert!(refused.contains("`--allow-drift=data`"), "{refused}");
    let both = folder.vlp(&["repro", lock.to_str().unwrap(), "--allow-drift=code", "--allow-drift=data"]);
    assert_eq!(both.status.code(), Some(0), "{}", String::from_utf8_lossy(&both.stderr));
}

#[test]
fn other_weights_and_another_device_are_drift() {
    let folder = folder();
    let short = ["--set", "train.epochs=1", "--set", "select.split=\"\""];
    folder.stdout(&[&["run", "tiny.toml"][..], &short].concat());
    let weights = folder.path("mine.safetensors");
    std::fs::copy(folder.run("tiny").join("checkpoints/epoch-0001/model.safetensors"), &weights).unwrap();
    let text = std::fs::read_to_string(folder.path("tiny.toml")).unwrap();
    let text = text.replace("name = \"tiny\"", "name = \"child\"");
    folder.write("child.toml", format!("{text}[init]\nfrom = \"mine.safetensors\"\n"));
    folder.stdout(&[&["run", "child.toml"][..], &short].concat());
    let run = folder.run("child");
    let lock = run.join("run.lock.toml");
    let path = lock.to_str().unwrap();

    // Other initial weights under the same name.
    let before = sha256_of_file(&weights).unwrap();
    let recorded = Lock::load(&lock).unwrap().parent.unwrap().checkpoint.display().to_string();
    std::fs::copy(run.join("checkpoints/epoch-0001/model.safetensors"), &weights).unwrap();
    let now = sha256_of_file(&weights).unwrap();
    assert_ne!(before, now);
    let drift = format!("{recorded} with SHA-256 {now} (the record has {recorded} with SHA-256 {before})");
    assert_eq!(
        folder.failure(2, &["repro", path, "--allow-drift=code"]),
        format!(
            "error: {path} cannot be repeated as it was:\n    weights: {drift}\n  help: restore the recorded state, or accept the \
             difference with `--allow-drift=weights`\n"
        )
    );

    // And a device that is not the recorded one.
    let text = std::fs::read_to_string(&lock).unwrap();
    std::fs::write(&lock, text.replacen("device = \"flex\"", "device = \"tch-cuda\"", 1)).unwrap();
    assert_eq!(
        folder.failure(2, &["repro", path, "--allow-drift=code", "--allow-drift=weights"]),
        format!(
            "error: {path} cannot be repeated as it was:\n    device: flex (the record has tch-cuda)\n  help: restore the \
             recorded state, or accept the difference with `--allow-drift=device`\n"
        )
    );
    let both = folder.failure(2, &["repro", path, "--allow-drift=code"]);
    assert!(both.contains(&format!("\n    device: flex (the record has tch-cuda)\n    weights: {drift}\n")), "{both}");

    let accepted = folder.vlp(&["repro", path, "--allow-drift=code", "--allow-drift=weights", "--allow-drift=device"]);
    let said = String::from_utf8(accepted.stderr).unwrap();
    assert_eq!(accepted.status.code(), Some(0), "{said}");
    assert!(said.contains("note  device differs: flex (the record has tch-cuda)\n"), "{said}");
    assert!(said.contains(&format!("note  weights differs: {drift}\n")), "{said}");
    assert_eq!(folders(&folder.path("runs/child")).len(), 2);
}

#[test]
fn verify_resume_kills_and_compares() {
    let folder = folder();
    // With fp16 `state.json` has the scale of the loss, too.
    let sets: [&[&str]; 3] = [
        &["launch.world_size=1", "train.precision=fp16"],
        &["launch.world_size=2", "train.gradient_checkpointing=true"],
        &["train.optimizer_memory=device", "train.precision=fp16", "train.gradient_checkpointing=true"],
    ];
    for set in sets {
        let set: Vec<&str> = set.iter().flat_map(|option| ["--set", option]).collect();
        let output = folder.vlp(&[&["verify-resume", "tiny.toml"], &set[..]].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{text}");
        assert_eq!(text.matches("killed after checkpoint ").count(), 2, "{text}");
        let said = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 3, "{said}");
        for (line, name) in lines.iter().zip(["model.safetensors", "optimizer.safetensors", "state.json"]) {
            assert!(line.starts_with(&format!("same  {name}  sha256 ")), "{said}");
        }
        assert_eq!(std::fs::read_dir(folder.path("runs")).unwrap().count(), 0, "something is left behind");
    }
}
