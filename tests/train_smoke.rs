//! A tiny experiment, run by the real binary from the plan to the table: what it leaves behind, that it does nothing a
//! second time, and that an interrupted run ends as an uninterrupted one does.

mod demo_runs;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use demo_runs::{Folder, TINY, files, folders};
use vlp::track::{LOSS, What};

fn losses(run: &Path) -> Vec<f64> {
    let entries = vlp::track::read(&run.join("journal.jsonl")).unwrap();
    let of = |what: &What| match what {
        What::Metric { name, value, .. } if name == LOSS => Some(*value),
        _ => None,
    };
    entries.iter().filter_map(|entry| of(&entry.what)).collect()
}

#[test]
fn a_run_leaves_what_the_manual_says_and_nothing_else() {
    let folder = Folder::new();
    let before = files(&folder.path("demo"));
    let table = folder.stdout(&["run", "tiny.toml"]);
    assert!(table.contains("| Tiny / captioning | test | CIDEr | ≥ 0.0 |"), "{table}");
    assert!(table.contains("reproduced"), "{table}");

    let run = folder.run("tiny");
    assert_eq!(
        files(&run),
        [
            ".runner.lock",
            "checkpoints/epoch-0001/model.safetensors",
            "checkpoints/epoch-0001/optimizer.safetensors",
            "checkpoints/epoch-0001/state.json",
            "checkpoints/epoch-0002/model.safetensors",
            "checkpoints/epoch-0002/optimizer.safetensors",
            "checkpoints/epoch-0002/state.json",
            "journal.jsonl",
            "predictions/epoch-0001.test.beam-2.json",
            "predictions/epoch-0001.test.beam-2.scores.json",
            "predictions/epoch-0001.val.json",
            "predictions/epoch-0002.test.beam-2.json",
            "predictions/epoch-0002.test.beam-2.scores.json",
            "predictions/epoch-0002.val.json",
            "ranks/.0.alive",
            "ranks/0.log",
            "report.html",
            "run.lock.toml",
            "scores.json",
        ]
    );
    assert_eq!(files(&folder.path("results")), ["tiny.csv", "tiny.json", "tiny.md", "tiny.tex"]);
    assert_eq!(files(&folder.path("demo")), before);
    let top: Vec<String> =
        folders(&folder.path(".")).iter().map(|p| p.file_name().unwrap().to_string_lossy().into()).collect();
    assert_eq!(top, ["demo", "results", "runs"]);

    let predictions: Vec<serde_json::Value> =
        serde_json::from_slice(&std::fs::read(run.join("predictions/epoch-0002.val.json")).unwrap()).unwrap();
    assert_eq!(predictions.len(), 40);
    assert!(predictions.iter().all(|p| p["image_id"].is_u64() && p["caption"].is_string()));

    // The same command again trains nothing and prints the same table.
    let again = folder.vlp(&["run", "tiny.toml"]);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), table);
    assert_eq!(folders(&folder.path("runs/tiny")).len(), 1);
    assert_eq!(losses(&run).len(), 20);

    // A seed decides everything: another run of the same settings gives the same checkpoint.
    folder.stdout(&["run", "tiny.toml", "--fresh"]);
    let runs = folders(&folder.path("runs/tiny"));
    let model = |run: &Path| std::fs::read(run.join("checkpoints/epoch-0002/model.safetensors")).unwrap();
    assert!(model(&runs[0]) == model(&runs[1]), "two runs of one seed differ");
}

#[test]
fn the_seeded_losses_are_those_of_the_first_version() {
    let folder = Folder::new();
    folder.stdout(&["run", "tiny.toml", "--set", "train.epochs=1", "--set", "evaluate.splits=[]", "--set", "paper=[]"]);
    let found = losses(&folder.run("tiny"));
    assert_eq!(found.len(), FROZEN.len());
    for (step, (found, frozen)) in found.iter().zip(FROZEN).enumerate() {
        assert!((found - frozen).abs() < 1e-3, "step {step}: {found} instead of {frozen}");
    }
}

/// Losses of the ten steps of the first epoch.
const FROZEN: [f64; 10] = [6.06355, 6.04812, 5.87477, 5.81417, 5.70979, 5.56855, 5.57882, 5.35849, 5.35400, 5.36354];

#[test]
fn an_interrupted_run_goes_on_and_ends_as_an_uninterrupted_one() {
    let folder = Folder::new();
    let long = TINY.replace("epochs = 2", "epochs = 4");
    folder.write("tiny.toml", &long);
    let mut runner =
        folder.command(&["run", "tiny.toml"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let first = loop {
        let found =
            std::fs::read_dir(folder.path("runs/tiny")).ok().and_then(|mut f| f.next()).map(|e| e.unwrap().path());
        match found {
            Some(run) if run.join("checkpoints/epoch-0001").is_dir() => break run,
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    // SAFETY: the runner is a child that has not been waited for.
    unsafe { libc::kill(runner.id() as i32, libc::SIGTERM) };
    let mut text = String::new();
    std::io::Read::read_to_string(&mut runner.stderr.take().unwrap(), &mut text).unwrap();
    assert_eq!(runner.wait().unwrap().code(), Some(75), "{text}");
    assert!(text.contains("interrupted"), "{text}");
    assert!(!first.join("checkpoints/epoch-0004").exists());

    let resumed = folder.vlp(&["run", "tiny.toml"]);
    assert_eq!(resumed.status.code(), Some(0), "{}", String::from_utf8_lossy(&resumed.stderr));
    folder.stdout(&["run", "tiny.toml", "--fresh"]);
    let runs = folders(&folder.path("runs/tiny"));
    assert_eq!(runs[0], first);
    for name in ["model.safetensors", "optimizer.safetensors"] {
        let file = |run: &Path| std::fs::read(run.join("checkpoints/epoch-0004").join(name)).unwrap();
        assert!(file(&runs[0]) == file(&runs[1]), "{name} of the resumed run differs");
    }
}

#[test]
fn fine_tuning_starts_from_the_upstream_checkpoint() {
    let folder = Folder::new();
    let upstream = TINY.replace("\"tiny\"\nseed", "\"up\"\nseed").replace("checkpoints = [\"last\", \"first\"]", "");
    let upstream = upstream.split("[[paper]]").next().unwrap().replace("epochs = 2", "epochs = 1");
    folder.write("up.toml", upstream);
    folder.write("down.toml", TINY.replace("\"tiny\"\nseed", "\"down\"\nseed") + "[init]\nfrom = \"up\"\n");
    let plan = folder.stdout(&["plan", "down.toml"]);
    assert!(plan.contains("up"), "{plan}");
    assert!(!folder.path("runs").exists(), "a plan writes nothing");
    folder.stdout(&["run", "down.toml"]);
    let lock = std::fs::read_to_string(folder.run("down").join("run.lock.toml")).unwrap();
    let parent = folder.run("up").join("checkpoints/epoch-0001/model.safetensors");
    let relative = parent.strip_prefix(folder.path("")).unwrap();
    assert!(lock.contains(&format!("checkpoint = \"{}\"", relative.display())), "{lock}");
    let (up, down) = (losses(&folder.run("up")), losses(&folder.run("down")));
    assert!(down[0] < up[0] - 0.3, "the first loss falls from {} to {}", up[0], down[0]);
}

#[test]
fn a_loss_that_is_no_number_ends_the_run_and_says_what_to_do() {
    let folder = Folder::new();
    let nan = vec![half::f16::NAN; 16 * 128];
    let features = "demo/COCO/region_feat_gvd_wo_bgd/feat_cls_1000_float16";
    for name in files(&folder.path(features)).iter().filter(|name| name.contains("_feat")) {
        let file = hdf5::File::open_rw(folder.path(features).join(name)).unwrap();
        for stem in file.member_names().unwrap() {
            file.dataset(&stem).unwrap().write_raw(&nan).unwrap();
        }
    }
    let text = folder.failure(4, &["run", "tiny.toml", "-q"]);
    assert!(text.contains("ERROR the loss is NaN at epoch 1, step 1\n"), "{text}");
    assert!(text.contains("`vlp data verify FILE` finds values in the data that are not finite"), "{text}");
    assert!(folder.stdout(&["status"]).contains("failed"));
}
