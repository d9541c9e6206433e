//! Ranks and runners of a small two-rank run are killed at seeded random moments; whatever was hit, the same command brings
//! the run to the same bytes. `FAULT_POINTS` sets the number of moments, 20 without it.

mod demo_runs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use demo_runs::{Folder, TINY, folders};
use rand::{Rng, SeedableRng};
use vlp::track::{LOSS, What};

const RUN: [&str; 2] = ["run", "faults.toml"];

fn world() -> Folder {
    let folder = Folder::new();
    let text = TINY.split("[[paper]]").next().unwrap().replace("\"tiny\"\nseed", "\"faults\"\nseed");
    let text = text
        .replace("device = \"flex\"", "device = \"flex\"\nworld_size = 2\nthreads = 1")
        .replace("log_every = 1", "log_every = 1\ncheckpoint_every_steps = 2")
        .replace("splits = [\"test\"]", "splits = []");
    folder.write("faults.toml", text);
    folder
}

/// What must not depend on how often the run was interrupted.
#[derive(PartialEq)]
struct Result {
    files: Vec<Vec<u8>>,
    /// The newest value of each point of the loss curve.
    losses: BTreeMap<u64, u64>,
}

fn result(folder: &Folder) -> Result {
    let finished: Vec<PathBuf> = folders(&folder.path("runs/faults"))
        .into_iter()
        .filter(|run| run.join("checkpoints/epoch-0002").is_dir())
        .collect();
    assert_eq!(finished.len(), 1, "{finished:?}");
    let read = |name: &str| std::fs::read(finished[0].join("checkpoints/epoch-0002").join(name)).unwrap();
    let entries = vlp::track::read(&finished[0].join("journal.jsonl")).unwrap();
    let losses = entries.iter().filter_map(|entry| match &entry.what {
        What::Metric { name, value, step, .. } if name == LOSS => Some((*step, value.to_bits())),
        _ => None,
    });
    Result {
        files: ["model.safetensors", "optimizer.safetensors", "state.json"].map(read).into(),
        losses: losses.collect(),
    }
}

fn start(folder: &Folder) -> Child {
    folder.command(&RUN).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Process numbers of the workers of a runner, by rank.
fn workers(runner: u32) -> BTreeMap<usize, i32> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let read = |name: &str| std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join(name));
        let (Ok(stat), Ok(environment)) = (read("stat"), read("environ")) else { continue };
        let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        let rank = environment.split('\0').find_map(|pair| pair.strip_prefix("RANK=")?.parse().ok());
        if let (true, Some(rank)) = (parent == Some(runner), rank) {
            found.insert(rank, process);
        }
    }
    found
}

fn kill(process: i32) {
    // SAFETY: kill has no memory effects. The process may be gone, which is no matter.
    unsafe { libc::kill(process, libc::SIGKILL) };
}

fn gone(process: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
    stat.map_or(true, |stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')))
}

#[test]
fn a_run_killed_anywhere_ends_with_the_same_bytes() {
    let folder = world();
    let started = Instant::now();
    assert!(start(&folder).wait().unwrap().success());
    // The first run may be slower than the others, and the machine busier at times: what a run takes is measured all along.
    let mut whole = started.elapsed();
    let expected = result(&folder);
    assert_eq!(expected.losses.len(), 10);

    let points: usize = std::env::var("FAULT_POINTS").map_or(20, |text| text.parse().unwrap());
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(6);
    let (mut hits, mut misses) = (0, 0);
    while hits < points {
        std::fs::remove_dir_all(folder.path("runs")).unwrap();
        let fraction = random.random_range(0.0..1.0);
        let target = ["rank 0", "rank 1", "both ranks", "the runner"][random.random_range(0..4)];
        let moment = whole.mul_f64(fraction);
        let started = Instant::now();
        let mut runner = start(&folder);
        // A run that ends earlier is not waited for: its time is the better measure.
        while started.elapsed() < moment && runner.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        if runner.try_wait().unwrap().is_some() {
            whole = started.elapsed();
        }
        let ranks = workers(runner.id());
        let struck: Vec<i32> = match target {
            "rank 0" => ranks.get(&0).copied().into_iter().collect(),
            "rank 1" => ranks.get(&1).copied().into_iter().collect(),
            "both ranks" => ranks.values().copied().collect(),
            _ if runner.try_wait().unwrap().is_none() => vec![runner.id() as i32],
            _ => Vec::new(),
        };
        struck.iter().copied().for_each(kill);
        if struck.is_empty() {
            misses += 1;
        } else {
            hits += 1;
        }
        let first = runner.wait().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while !ranks.values().all(|process| gone(*process)) {
            assert!(Instant::now() < deadline, "{target} at {moment:?}: a rank outlives the runner");
            std::thread::sleep(Duration::from_millis(5));
        }
        if !first.success() {
            let again = folder.vlp(&RUN);
            let text = String::from_utf8_lossy(&again.stderr);
            assert!(again.status.success(), "point {hits}: {target} at {moment:?}: {text}");
        }
        assert!(result(&folder) == expected, "point {hits}: {target} at {moment:?}: another result");
        assert!(misses <= 10 * points, "{misses} moments found no process at work, {hits} did");
    }
}

#[test]
fn a_run_that_is_asked_to_stop_saves_at_the_next_step() {
    let folder = world();
    assert!(start(&folder).wait().unwrap().success());
    let expected = result(&folder);
    std::fs::remove_dir_all(folder.path("runs")).unwrap();

    let args = ["run", "faults.toml", "--set", "train.checkpoint_every_steps=0"];
    let mut runner =
        folder.command(&args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let journal = loop {
        let run = std::fs::read_dir(folder.path("runs/faults")).ok().and_then(|mut runs| runs.next());
        let journal = run.map(|run| run.unwrap().path().join("journal.jsonl"));
        let text = journal.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
        if text.contains("\"train/loss\"") {
            break journal.unwrap();
        }
        assert!(Instant::now() < deadline, "never came: the first step");
        std::thread::sleep(Duration::from_millis(2));
    };
    // SAFETY: the runner is a child that has not been waited for.
    unsafe { libc::kill(runner.id() as i32, libc::SIGINT) };
    assert_eq!(runner.wait().unwrap().code(), Some(75));
    let text = std::fs::read_to_string(&journal).unwrap();
    let steps = text.matches("\"train/loss\"").count();
    assert!(text.contains("checkpoint of "), "{text}");
    assert!(steps < 10, "it did not stop: {text}");
    let again = folder.vlp(&args);
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    let resumed = std::fs::read_to_string(&journal).unwrap();
    assert_eq!(resumed.matches("\"train/loss\"").count(), 10, "a step was done twice");
    assert!(result(&folder) == expected);
}
