//! What the configuration commands print when nothing is wrong.

use super::world::{DATA, NAME, World, good, snapshot};

const ROWS: &str = "[[paper]]\ntable = \"captioning\"\nrow = \"COCO\"\nexpect = { cider = 116.9 }\ntolerance = { cider = 1.5 }\n\
    [profile.quick]\ntrain = { epochs = 1 }\n";

#[test]
fn check_says_ok_and_keeps_quiet_with_q() {
    let world = World::new(&[("e.toml", &good("")), ("fragment.toml", "[train]\nepochs = 3\n")]);
    let output = world.vlp(&["check", "e.toml", "fragment.toml"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, b"");
    let said = "e.toml: ok\nfragment.toml: ok (a fragment: no [experiment] table)\n";
    assert_eq!(String::from_utf8(output.stderr).unwrap(), said);
    let output = world.vlp(&["-q", "check", "e.toml", "fragment.toml"]);
    assert_eq!((output.status.code(), output.stdout, output.stderr), (Some(0), vec![], vec![]));
}

#[test]
fn show_prints_the_resolved_settings() {
    snapshot("show", &World::good(ROWS).stdout(&["show", "e.toml", "--set", "train.epsilon=1e-9"]));
}

#[test]
fn show_can_be_loaded_again() {
    let world = World::good(ROWS);
    let first = world.stdout(&["show", "e.toml"]);
    world.write("again.toml", &first);
    assert_eq!(world.stdout(&["show", "again.toml"]), first);
    assert_eq!(world.stdout(&["diff", "e.toml", "again.toml"]), "");
}

#[test]
fn show_with_origins() {
    let base = format!("{DATA}[model]\nhidden_size = 144\n");
    let world = World::new(&[
        ("base/data.toml", &base),
        ("runs/e.toml", &format!("extends = [\"../base/data.toml\"]\n{NAME}{ROWS}")),
    ])
    .with("VLP_TRAIN__LOG_EVERY", "3");
    let args = ["show", "runs/e.toml", "--origin", "--profile", "quick", "--set", "select.split=dev"];
    snapshot("show_with_origins", &world.stdout(&args));
}

#[test]
fn diff_prints_what_differs() {
    let world =
        World::new(&[("a.toml", &good("[train]\nepochs = 3\n")), ("b.toml", &good(ROWS).replace("demo", "other"))]);
    snapshot("diff", &world.stdout(&["diff", "a.toml", "b.toml"]));
    let same = world.vlp(&["diff", "a.toml", "a.toml"]);
    assert_eq!((same.status.code(), same.stdout), (Some(0), vec![]));
    assert_eq!(String::from_utf8(same.stderr).unwrap(), "no differences\n");
}

#[test]
fn explain_describes_options_and_sections() {
    let world = World::new(&[]);
    let keys = [
        "train.batch_size",
        "train.schedule",
        "data.annotations",
        "experiment.name",
        "evaluate.checkpoints",
        "paper.expect",
        "extends",
        "select",
        "paper",
    ];
    let mut said = world.stdout(&["explain"]);
    for key in keys {
        said.push_str(&format!("\n--- {key}\n{}", world.stdout(&["explain", key])));
    }
    snapshot("explain", &said);
}

#[test]
fn every_listed_key_can_be_explained() {
    let world = World::new(&[]);
    for section in [
        "experiment",
        "data",
        "model",
        "init",
        "objective",
        "scst",
        "train",
        "select",
        "evaluate",
        "metrics",
        "launch",
        "output",
        "paper",
    ] {
        let listed = world.stdout(&["explain", section]);
        let keys: Vec<&str> = listed.lines().skip(2).filter_map(|line| line.split_whitespace().next()).collect();
        assert!(!keys.is_empty(), "{section}");
        for key in keys {
            let said = world.stdout(&["explain", &format!("{section}.{key}")]);
            assert!(said.starts_with(&format!("{section}.{key}\n")) & said.contains("    type "), "{said}");
        }
    }
}

#[test]
fn list_prints_the_experiments_of_a_folder() {
    let named =
        |name: &str, rest: &str| format!("[experiment]\nname = \"{name}\"\ndescription = \"The {name} run\"\n{rest}");
    let world = World::new(&[
        ("experiments/base/data.toml", DATA),
        ("experiments/paper/b.toml", &named("coco", "[init]\nfrom = \"cc\"\n")),
        ("experiments/paper/a.toml", &named("cc", "")),
        ("experiments/broken.toml", &named("broken", "[train]\nepoch = 3\n")),
        ("experiments/notes.md", "no experiment"),
    ]);
    let output = world.vlp(&["list"]);
    assert_eq!(output.status.code(), Some(0));
    snapshot("list", &String::from_utf8(output.stdout).unwrap());
    snapshot("list_stderr", &String::from_utf8(output.stderr).unwrap());
    let json: serde_json::Value =
        serde_json::from_str(&world.stdout(&["list", "experiments/paper", "--format", "json"])).unwrap();
    assert_eq!(
        json,
        serde_json::json!([
            { "name": "cc", "upstream": null, "file": "experiments/paper/a.toml", "description": "The cc run" },
            { "name": "coco", "upstream": "cc", "file": "experiments/paper/b.toml", "description": "The coco run" },
        ])
    );
}
