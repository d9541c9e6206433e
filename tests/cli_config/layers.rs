//! The order of the layers: each beats the one below; and `show --origin` says which one won.

use super::world::{DATA, NAME, World, good};

/// `train.epochs` and its origin, as `show --origin` prints them.
fn epochs(world: &World, args: &[&str]) -> String {
    let shown = world.stdout(&[&["show", "e.toml", "--origin"], args].concat());
    let line = shown.lines().find(|line| line.starts_with("train.epochs = ")).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Files in which every layer below the environment gives `train.epochs`, but for those in `without`.
fn world(without: &[&str]) -> World {
    let text = |layer: &str, epochs: &str| if without.contains(&layer) { String::new() } else { epochs.to_string() };
    let deep = text("deep", "[train]\nepochs = 1\n");
    let first = format!(
        "extends = [\"deep.toml\"]\n{}{}",
        text("first", "[train]\nepochs = 2\n"),
        text("profile of first", "[profile.quick.train]\nepochs = 5\n")
    );
    let second = text("second", "[train]\nepochs = 3\n");
    let file = format!(
        "extends = [\"base/first.toml\", \"base/second.toml\"]\n{NAME}{DATA}{}{}",
        text("file", "[train]\nepochs = 4\n"),
        text("profile", "[profile.quick.train]\nepochs = 6\n")
    );
    World::new(&[
        ("base/deep.toml", &deep),
        ("base/first.toml", &first),
        ("base/second.toml", &second),
        ("e.toml", &file),
    ])
}

#[test]
fn each_layer_beats_the_one_below() {
    let quick = ["--profile", "quick"];
    let upper = ["file", "second", "first", "deep"];
    assert_eq!(epochs(&world(&upper), &[]), "train.epochs = 30 # default");
    assert_eq!(epochs(&world(&upper[..3]), &[]), "train.epochs = 1 # base/deep.toml:2");
    assert_eq!(epochs(&world(&upper[..2]), &[]), "train.epochs = 2 # base/first.toml:3");
    assert_eq!(epochs(&world(&upper[..1]), &[]), "train.epochs = 3 # base/second.toml:2");
    assert_eq!(epochs(&world(&[]), &[]), "train.epochs = 4 # e.toml:11");
    assert_eq!(epochs(&world(&["profile"]), &quick), "train.epochs = 5 # base/first.toml:5 (profile quick)");
    assert_eq!(epochs(&world(&[]), &quick), "train.epochs = 6 # e.toml:13 (profile quick)");
    let with_variable = world(&[]).with("VLP_TRAIN__EPOCHS", "7");
    assert_eq!(epochs(&with_variable, &quick), "train.epochs = 7 # VLP_TRAIN__EPOCHS");
    let set = ["--profile", "quick", "--set", "train.epochs=8"];
    assert_eq!(epochs(&with_variable, &set), "train.epochs = 8 # --set");
    let twice = ["--set", "train.epochs=8", "--set", "train.epochs=9"];
    assert_eq!(epochs(&with_variable, &twice), "train.epochs = 9 # --set");
}

#[test]
fn a_file_that_is_extended_twice_counts_once_at_its_lowest_place() {
    let world = World::new(&[
        ("common.toml", "[train]\nepochs = 1\nbatch_size = 2\n"),
        ("left.toml", "extends = [\"common.toml\"]\n[train]\nepochs = 5\n"),
        ("right.toml", "extends = [\"common.toml\"]\n[train]\nlog_every = 3\n"),
        ("e.toml", &format!("extends = [\"left.toml\", \"right.toml\"]\n{}", good(""))),
    ]);
    assert_eq!(epochs(&world, &[]), "train.epochs = 5 # left.toml:3");
}

#[test]
fn paper_rows_of_the_file_replace_those_it_extends() {
    let row = |name: &str| format!("[[paper]]\ntable = \"t\"\nrow = \"{name}\"\nat_least = {{ cider = 1.0 }}\n");
    let world = World::new(&[
        ("base.toml", &(row("a") + &row("b"))),
        ("e.toml", &format!("extends = [\"base.toml\"]\n{}", good(&row("c")))),
    ]);
    let shown = world.stdout(&["show", "e.toml"]);
    assert_eq!(shown.lines().filter(|l| l.starts_with("row = ")).collect::<Vec<_>>(), ["row = \"c\""]);
}

#[test]
fn set_and_environment_take_toml_values_and_bare_words() {
    let world = World::good("")
        .with("VLP_EVALUATE__SPLITS", "[\"val\", \"test\"]")
        .with("VLP_EXPERIMENT__DESCRIPTION", "3 words here");
    let sets = [
        "init.from=cc_pretrain",
        "train.learning_rate=1",
        "select.split=",
        "experiment.name=\"quoted\"",
        "data.cased=false",
        "init.checkpoint=best",
    ];
    let args: Vec<&str> = ["show", "e.toml"].into_iter().chain(sets.iter().flat_map(|s| ["--set", s])).collect();
    let shown = world.stdout(&args);
    for line in [
        "splits = [\"val\", \"test\"]",
        "description = \"3 words here\"",
        "from = \"cc_pretrain\"",
        "learning_rate = 1.0",
        "split = \"\"",
        "name = \"quoted\"",
        "cased = false",
        "checkpoint = \"best\"",
    ] {
        assert!(shown.lines().any(|l| l == line), "{line} is not in\n{shown}");
    }
}

#[test]
fn a_string_option_takes_a_number_as_text() {
    let world = World::good("").with("VLP_EXPERIMENT__NAME", "2020");
    assert!(world.stdout(&["show", "e.toml"]).contains("name = \"2020\""));
}

#[test]
fn the_device_flag_is_a_set() {
    let shown = World::good("").stdout(&["show", "e.toml", "--origin", "--device", "flex"]);
    let line = shown.lines().find(|line| line.starts_with("launch.device")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>().join(" "), "launch.device = \"flex\" # --set");
}

#[test]
fn variables_are_replaced_in_paths_only() {
    let text = good("[init]\nfrom = \"${DATA_ROOT}/${RUN}/model\"\n").replace("\"a.json\"", "\"${DATA_ROOT}/a.json\"");
    let text = text.replace("name = \"demo\"", "name = \"demo\"\ndescription = \"below ${DATA_ROOT}\"");
    let world = World::new(&[("e.toml", &text)]).with("DATA_ROOT", "/data").with("RUN", "7");
    let shown = world.stdout(&["show", "e.toml"]);
    assert!(shown.contains("annotations = \"/data/a.json\""), "{shown}");
    assert!(shown.contains("from = \"/data/7/model\""), "{shown}");
    assert!(shown.contains("description = \"below ${DATA_ROOT}\""), "{shown}");
}

#[test]
fn a_variable_is_not_needed_where_a_higher_layer_wins() {
    let text = good("").replace("\"a.json\"", "\"${DATA_ROOT}/a.json\"");
    let world = World::new(&[("e.toml", &text)]);
    assert!(world.mistake(&["show", "e.toml"]).contains("`DATA_ROOT` is not set"));
    assert!(world.stdout(&["show", "e.toml", "--set", "data.annotations=b.json"]).contains("annotations = \"b.json\""));
}

#[test]
fn variables_of_the_tests_are_no_options() {
    let output = World::good("").with("VLP_GOLDEN_DIR", "x").vlp(&["check", "e.toml"]);
    assert_eq!(
        (output.status.code(), String::from_utf8(output.stderr).unwrap()),
        (Some(0), "e.toml: ok\n".to_string())
    );
}
