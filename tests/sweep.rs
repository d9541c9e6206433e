//! `vlp sweep`: what is proposed, how trials run, stop, fail and resume, and what is left behind. Real runs over a tiny world.

#[path = "demo_runs/mod.rs"]
mod demo_runs;
#[path = "mlflow_sink/mod.rs"]
mod tiny_server;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use demo_runs::{Folder, files};
use serde_json::Value;
use tiny_server::Tiny;

/// A sweep over the tiny experiment; what follows `[sweep]` comes first, then `[space]`.
fn sweep(more: &str, space: &str) -> String {
    format!("[sweep]\nname = \"s\"\nbase = \"tiny.toml\"\nseed = 3\n{more}\n[space]\n{space}\n")
}

const RATE: &str = "\"train.learning_rate\" = { log_uniform = [1e-5, 1e-2] }";

/// A folder with the sweep in `s.toml`.
fn folder(text: &str) -> Folder {
    let folder = Folder::new();
    folder.write("s.toml", text);
    folder
}

/// The lines of the study file.
fn study(folder: &Folder) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.path("runs/s/study.jsonl")).unwrap_or_default();
    let complete = text.rfind('\n').map_or(0, |at| at + 1);
    text[..complete].lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of_kind<'a>(lines: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    lines.iter().filter(move |line| line["kind"] == kind)
}

/// Options of each trial, by number.
fn asked(lines: &[Value]) -> BTreeMap<u64, Value> {
    of_kind(lines, "asked").map(|line| (line["trial"].as_u64().unwrap(), line["options"].clone())).collect()
}

fn outcomes(lines: &[Value]) -> BTreeMap<u64, String> {
    of_kind(lines, "ended")
        .map(|line| (line["trial"].as_u64().unwrap(), line["outcome"].as_str().unwrap().to_owned()))
        .collect()
}

#[test]
fn the_plan_shows_what_will_be_tried() {
    let folder = folder(&sweep(
        "method = \"grid\"\nparallel = 2\ngrid_points = 3",
        "\"train.learning_rate\" = { log_uniform = [1e-5, 1e-3] }\n\"train.batch_size\" = { choice = [10, 20] }",
    ));
    insta::assert_snapshot!(folder.stdout(&["sweep", "plan", "s.toml"]));
    folder.write("s.toml", sweep("method = \"tpe\"\ntrials = 5\nstartup_trials = 2\npruner = \"median\"", RATE));
    insta::assert_snapshot!(folder.stdout(&["sweep", "plan", "s.toml"]));
    assert!(!folder.path("runs").exists());
    let text = folder.failure(2, &["sweep", "status", "s.toml"]);
    assert_eq!(
        text,
        "error: the sweep `s` was not started: there is no `runs/s/study.jsonl`\n  help: `vlp sweep run FILE` starts it\n"
    );
}

#[test]
fn mistakes_are_reported_with_their_place() {
    let bad = [
        ("space", sweep("trials = 0\nmethod = \"tpo\"\nmetrics = \"a\"", "\"train.learnin_rate\" = { choice = [1] }")),
        (
            "forms",
            sweep(
                "",
                "\"train.learning_rate\" = { log_uniform = [0.0, 1.0] }\n\"train.batch_size\" = { uniform = [1, 2] }\n\"train.epochs\" = { int = [5, 2] }\n\"select.metric\" = { choice = [\"cidre\"] }\n\"train.warmup_proportion\" = { unifrom = [0.0, 0.5] }\n\"data.cased\" = 3\n\"experiment.name\" = { choice = [\"a\"] }",
            ),
        ),
        (
            "ranges",
            sweep(
                "",
                "\"train.learning_rate\" = { uniform = [-1.0, 2.0] }\ntrain.epochs = { int = [1, 2] }\n\"train.batch_size\" = { choice = [] }",
            ),
        ),
        ("empty", "[sweep]\ntrials = 3\n".to_owned()),
        ("syntax", "[sweep]\nname = \n".to_owned()),
        ("base", sweep("", RATE).replace("tiny.toml", "tinny.toml")),
    ];
    for (name, text) in bad {
        let folder = folder(&text);
        insta::assert_snapshot!(format!("mistake_{name}"), folder.failure(2, &["check", "s.toml"]));
        folder.failure(2, &["sweep", "run", "s.toml"]);
        assert!(!folder.path("runs").exists());
    }
}

#[test]
fn the_same_seed_proposes_the_same_trials_whatever_the_method() {
    for method in ["random", "tpe"] {
        let space = format!("{RATE}\n\"train.batch_size\" = {{ choice = [10, 20] }}");
        let pruner = if method == "tpe" { "median" } else { "none" };
        let more =
            format!("method = \"{method}\"\npruner = \"{pruner}\"\ntrials = 4\nparallel = 2\nstartup_trials = 2");
        let text = sweep(&more, &space);
        let [first, second] = [&text, &text].map(|text| {
            let folder = folder(text);
            folder.stdout(&["sweep", "run", "s.toml"]);
            let lines = study(&folder);
            (asked(&lines), outcomes(&lines))
        });
        assert_eq!(first.0.len(), 4);
        assert_eq!(first, second, "{method}");
        let other = folder(&text.replace("seed = 3", "seed = 4"));
        let plan = other.stdout(&["sweep", "plan", "s.toml"]);
        assert!(!plan.contains(&first.0[&0]["train.learning_rate"].to_string()), "{plan}");
    }
}

#[test]
fn a_sweep_leaves_a_table_the_best_settings_and_a_report() {
    let folder = folder(&sweep("method = \"grid\"\ngrid_points = 4\nparallel = 2\ntrials = 3", RATE));
    let table = folder.stdout(&["sweep", "run", "s.toml"]);
    assert_eq!(outcomes(&study(&folder)).into_values().collect::<Vec<_>>(), ["complete"; 3]);
    assert_eq!(folder.stdout(&["sweep", "status", "s.toml"]), table);
    assert!(table.ends_with("\nbest settings: runs/s/best.toml\n"), "{table}");
    // The best first.
    let values: Vec<f64> = table
        .lines()
        .filter(|l| l.starts_with("s-0"))
        .map(|l| l.split_whitespace().nth(2).unwrap().parse().unwrap())
        .collect();
    assert_eq!(values.len(), 3);
    assert!(values.is_sorted_by(|a, b| a >= b), "{table}");
    // Trials are ordinary runs of files that people can run again.
    assert_eq!(
        folder.stdout(&["run", "--dry-run", "runs/s/trials/s-001.toml"]).lines().next().unwrap().split(" (").nth(1),
        Some("finished with the same settings and data)")
    );
    folder.stdout(&["check", "runs/s/best.toml"]);
    folder.stdout(&["run", "runs/s/best.toml"]);
    assert!(folder.run("s-best").join("scores.json").is_file());
    let page = std::fs::read_to_string(folder.path("runs/s/report.html")).unwrap();
    for part in ["<title>s</title>", "Parallel coordinates", "Value over the trials", "train.learning_rate"] {
        assert!(page.contains(part), "{part}");
    }
    assert_eq!(folder.stdout(&["report", "s"]), "runs/s/report.html\n");
    assert_eq!(folder.stdout(&["report", "s.toml", "--out", "r.html"]), "r.html\n");
    assert_eq!(std::fs::read_to_string(folder.path("r.html")).unwrap(), page);
    // Once more: everything is there.
    let before = study(&folder);
    assert_eq!(folder.stdout(&["sweep", "run", "s.toml"]), table);
    assert_eq!(study(&folder), before);
    // Other settings are another study.
    folder.write("s.toml", sweep("method = \"grid\"\ngrid_points = 5\nparallel = 2\ntrials = 3", RATE));
    assert_eq!(
        folder.failure(2, &["sweep", "run", "s.toml"]),
        "error: the study `runs/s/study.jsonl` was begun with other settings: sweep.grid_points is 5, was 4\n  \
         help: give the sweep another `name`, or remove its folder to begin anew\n"
    );
}

#[test]
fn a_killed_sweep_goes_on_without_repeating_a_finished_trial() {
    let folder = folder(&sweep("method = \"random\"\ntrials = 5\nparallel = 2", RATE));
    let mut child = folder.command(&["--quiet", "sweep", "run", "s.toml"]).spawn().unwrap();
    // Killed when something has ended and something is at work.
    for _ in 0..600 {
        std::thread::sleep(Duration::from_millis(50));
        let lines = study(&folder);
        if !outcomes(&lines).is_empty() && asked(&lines).len() > outcomes(&lines).len() {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = study(&folder);
    let ended = outcomes(&before);
    assert!(!ended.is_empty() && ended.len() < 5, "{before:?}");
    // A torn last line, as a power cut would leave it.
    let file = folder.path("runs/s/study.jsonl");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.extend(b"{\"kind\":\"as");
    std::fs::write(&file, bytes).unwrap();
    let stamps = |folder: &Folder| -> BTreeMap<u64, Vec<(String, std::time::SystemTime)>> {
        let of = |number: &u64| {
            let run = folder.path(&format!("runs/s-{:03}", number + 1));
            let stamp = |name: String| (name.clone(), run.join(&name).metadata().unwrap().modified().unwrap());
            (*number, files(&run).into_iter().map(stamp).collect())
        };
        ended.keys().map(of).collect()
    };
    let finished = stamps(&folder);

    folder.stdout(&["sweep", "resume", "s.toml"]);
    let after = study(&folder);
    assert_eq!(&after[..before.len()], before);
    assert_eq!(outcomes(&after).into_values().collect::<Vec<_>>(), ["complete"; 5]);
    assert_eq!(stamps(&folder), finished, "a finished trial was touched");
    // Each trial was asked once, and ran in one folder.
    assert_eq!(of_kind(&after, "asked").count(), 5);
    for number in 1..=5 {
        folder.run(&format!("s-{number:03}"));
    }
}

#[test]
fn a_failing_trial_is_recorded_and_the_sweep_goes_on() {
    let space = "\"model.num_attention_heads\" = { choice = [2, 3, 4] }";
    let folder = folder(&sweep("method = \"grid\"", space));
    let table = folder.stdout(&["sweep", "run", "s.toml"]);
    let lines = study(&folder);
    assert_eq!(outcomes(&lines).into_values().collect::<Vec<_>>(), ["complete", "failed", "complete"]);
    let failed = of_kind(&lines, "ended").find(|line| line["outcome"] == "failed").unwrap();
    let detail = failed["detail"].as_str().unwrap();
    assert!(detail.contains("num_attention_heads"), "{detail}");
    assert!(table.contains("s-002  failed"), "{table}");
    let page = std::fs::read_to_string(folder.path("runs/s/report.html")).unwrap();
    assert!(page.contains("<span class=\"pill bad\">failed</span>"));
}

#[test]
fn a_trial_that_failed_is_tried_again_where_that_is_asked_for() {
    let folder =
        folder(&sweep("method = \"grid\"", "\"data.vocabulary\" = { choice = [\"demo/vocab.txt\", \"late.txt\"] }"));
    let ends = |outcomes: &[&str]| {
        let found = study(&folder);
        let found: Vec<&str> =
            of_kind(&found, "ended").map(|line| line["outcome"].as_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(found, outcomes);
    };
    folder.stdout(&["sweep", "run", "s.toml"]);
    ends(&["complete", "failed"]);
    std::fs::copy(folder.path("demo/vocab.txt"), folder.path("late.txt")).unwrap();
    // Not without being asked.
    folder.stdout(&["sweep", "resume", "s.toml"]);
    ends(&["complete", "failed"]);
    let output = folder.vlp(&["sweep", "resume", "s.toml", "--retry-failed", "--set", "launch.hang_timeout_s=77"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.starts_with("retry s-002\nstart s-002  data.vocabulary=\"late.txt\"\n"), "{said}");
    ends(&["complete", "failed", "complete"]);
    let lines = study(&folder);
    assert_eq!(of_kind(&lines, "retry").map(|line| line["trial"].clone()).collect::<Vec<_>>(), [1]);
    let status = folder.stdout(&["sweep", "status", "s.toml"]);
    assert_eq!(status.matches("  complete").count(), 2, "{status}");
    // Its file has the options of the command that tried it again; that of the other is as it was.
    let file = |name: &str| std::fs::read_to_string(folder.path(&format!("runs/s/trials/{name}.toml"))).unwrap();
    assert!(file("s-002").contains("hang_timeout_s = 77\n"), "{}", file("s-002"));
    assert!(!file("s-001").contains("hang_timeout_s"), "{}", file("s-001"));

    let output = folder.vlp(&["sweep", "resume", "s.toml", "--retry-failed"]);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "note  no trial of the sweep s has failed\n");
    ends(&["complete", "failed", "complete"]);
}

#[test]
fn device_launcher_and_profile_reach_the_trials_and_stand_in_their_files() {
    let folder = folder(&sweep("method = \"grid\"", "\"train.learning_rate\" = { choice = [1e-3] }"));
    let profile = "[profile.short.train]\nepochs = 1\nlearning_rate = 1e-4\n[profile.quick.train]\nepochs = 1\n";
    let tiny = demo_runs::TINY.replace("device = \"flex\"\n", "device = \"tch-cuda\"\n");
    folder.write("tiny.toml", format!("{tiny}{profile}"));
    let refused = folder.failure(2, &["sweep", "run", "s.toml", "--profile", "short"]);
    assert_eq!(
        refused,
        "error: `--profile short` fixes `train.learning_rate`, an option that `[space]` searches over\n  help: leave one of them out\n"
    );
    folder.stdout(&["sweep", "run", "s.toml", "--profile", "quick", "--device", "flex", "--launcher", "local"]);
    let file = std::fs::read_to_string(folder.path("runs/s/trials/s-001.toml")).unwrap();
    assert!(
        file.contains(
            "# With the options of the profile quick; `--profile quick` applies it to what this starts from too.\n"
        ),
        "{file}"
    );
    assert!(file.contains("[train]\nlearning_rate = 0.001\nepochs = 1\n"), "{file}");
    assert!(file.contains("device = \"flex\"\nlauncher = \"local\"\n"), "{file}");
    let lock = std::fs::read_to_string(folder.run("s-001").join("run.lock.toml")).unwrap();
    assert!(lock.contains("device = \"flex\"") && lock.contains("epochs = 1\n"), "{lock}");
    // The file alone says all of it: what it describes is there.
    folder.stdout(&["run", "runs/s/trials/s-001.toml"]);
    folder.run("s-001");
    let best = std::fs::read_to_string(folder.path("runs/s/best.toml")).unwrap();
    assert!(best.contains("epochs = 1\n") && best.contains("device = \"flex\"\n"), "{best}");

    folder.write("s.toml", sweep("method = \"grid\"", "\"launch.device\" = { choice = [\"flex\"] }"));
    assert_eq!(
        folder.failure(2, &["sweep", "plan", "s.toml", "--device", "flex"]),
        "error: `--device` fixes `launch.device`, an option that `[space]` searches over\n  help: leave one of them out\n"
    );
}

#[test]
fn a_pruned_trial_ends_at_the_boundary_of_an_epoch() {
    // The second learning rate teaches nothing: it is behind from the first epoch on.
    let space = "\"train.learning_rate\" = { choice = [3e-3, 1e-8] }\n\"train.epochs\" = { choice = [6] }";
    let folder = folder(&sweep(
        "method = \"grid\"\npruner = \"median\"\nmetric = \"train/loss\"\ndirection = \"minimize\"",
        space,
    ));
    folder.stdout(&["sweep", "run", "s.toml"]);
    let lines = study(&folder);
    assert_eq!(outcomes(&lines).into_values().collect::<Vec<_>>(), ["complete", "pruned"]);
    let run = folder.run("s-002");
    let checkpoints: Vec<String> =
        files(&run.join("checkpoints")).iter().map(|f| f.split('/').next().unwrap().to_owned()).collect();
    assert!(!checkpoints.is_empty() && checkpoints.iter().all(|name| name.starts_with("epoch-")), "{checkpoints:?}");
    let last: u64 = checkpoints.last().unwrap().strip_prefix("epoch-").unwrap().parse().unwrap();
    assert!(last < 6, "{checkpoints:?}");
    let journal = std::fs::read_to_string(run.join("journal.jsonl")).unwrap();
    let newest: Value = serde_json::from_str(journal.lines().last().unwrap()).unwrap();
    assert_eq!(newest["state"], "interrupted");
    assert_eq!(newest["detail"], "pruned by the sweep s");
    assert!(!run.join("scores.json").exists());
    let status = folder.stdout(&["sweep", "status", "s.toml"]);
    assert!(status.lines().nth(2).unwrap().starts_with("s-002  pruned"), "{status}");
    // It can be taken up again by hand.
    folder.stdout(&["run", "runs/s/trials/s-002.toml"]);
    assert!(run.join("scores.json").exists());
}

#[test]
fn all_ranks_of_a_pruned_trial_end_together() {
    let space = "\"train.learning_rate\" = { choice = [3e-3, 1e-8] }";
    let folder = folder(&sweep(
        "method = \"grid\"\npruner = \"median\"\nmetric = \"train/loss\"\ndirection = \"minimize\"",
        space,
    ));
    let set = ["--set", "launch.world_size=2", "--set", "train.epochs=6", "--set", "train.batch_size=10"];
    folder.stdout(&[&["sweep", "run", "s.toml"][..], &set].concat());
    assert_eq!(outcomes(&study(&folder)).into_values().collect::<Vec<_>>(), ["complete", "pruned"]);
    let run = folder.run("s-002");
    let checkpoints = files(&run.join("checkpoints"));
    assert!(!checkpoints.is_empty() && checkpoints.iter().all(|file| file.starts_with("epoch-")), "{checkpoints:?}");
    assert!(!run.join("scores.json").exists());
    // Fixed from outside and searched over at once is a contradiction.
    assert_eq!(
        folder.failure(2, &["sweep", "run", "s.toml", "--set", "train.learning_rate=1e-3"]),
        "error: `--set train.learning_rate=…` fixes an option that `[space]` searches over\n  help: leave one of them out\n"
    );
}

#[test]
fn trials_are_child_runs_of_the_sweep_in_mlflow() {
    let tiny = Tiny::start(&[]);
    let folder = folder(&sweep("method = \"random\"\ntrials = 2", RATE));
    let output =
        folder.command(&["sweep", "run", "s.toml"]).env("MLFLOW_TRACKING_URI", &tiny.address).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let told = tiny.told.lock().unwrap();
    let tag = |run: &Value, key: &str| {
        let tags = run["tags"].as_array().unwrap().clone();
        tags.into_iter().find(|tag| tag["key"] == key).map(|tag| tag["value"].as_str().unwrap().to_owned())
    };
    let names: Vec<&str> = told.runs.iter().map(|run| run["run_name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), 3);
    assert_eq!(names[0], "s");
    assert!(names[1].starts_with("s-001/") && names[2].starts_with("s-002/"), "{names:?}");
    assert_eq!(tag(&told.runs[0], "vlp.sweep").as_deref(), Some("s"));
    assert_eq!(tag(&told.runs[0], "mlflow.parentRunId"), None);
    for child in &told.runs[1..] {
        assert_eq!(tag(child, "mlflow.parentRunId").as_deref(), Some("run-0"));
    }
    assert_eq!(told.statuses.last().map(String::as_str), Some("FINISHED"));
    assert_eq!(told.statuses.iter().filter(|status| *status == "FINISHED").count(), 3);
}

#[test]
fn every_sweep_of_the_repository_is_right() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let committed = std::fs::read_to_string(root.join("schemas/sweep.schema.json")).unwrap_or_default();
    let fresh = format!("{:#}\n", vlp::config::sweep_schema());
    assert!(committed == fresh, "refresh it with\n    vlp schema sweep > schemas/sweep.schema.json");
    let schema: Value = serde_json::from_str(&committed).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let mut found = 0;
    for file in files(&root.join("experiments")) {
        let path = root.join("experiments").join(&file);
        if !vlp::config::is_sweep(&path) {
            continue;
        }
        found += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("#:schema ../../schemas/sweep.schema.json\n"), "{file}");
        let value = serde_json::to_value(toml::from_str::<toml::Value>(&text).unwrap()).unwrap();
        let errors: Vec<String> =
            validator.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert_eq!(errors, Vec::<String>::new(), "{file}");
        let environment = BTreeMap::from([("DATA_ROOT".to_owned(), "/data".to_owned())]);
        let overrides = vlp::config::Overrides { environment, ..Default::default() };
        vlp::config::load_sweep(&path, &overrides).unwrap_or_else(|problems| panic!("{problems}"));
    }
    assert!(found >= 1);
    let explained = vlp::config::explain(Some("sweep.parallel")).unwrap();
    assert!(explained.starts_with("sweep.parallel\n    Trials at the same time.\n"), "{explained}");
    for bad in ["[sweep]\ntrials = 0", "[space]\n\"a.b\" = { int = [1, 2] }", "[space]\n\"train.epochs\" = {}"] {
        let value = serde_json::to_value(toml::from_str::<toml::Value>(bad).unwrap()).unwrap();
        assert!(!validator.is_valid(&value), "{bad}");
    }
}
