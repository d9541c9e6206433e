//! Mistakes in the configuration: the whole text that a person sees on stderr, from the real binary.
//!
//! The texts are in `snapshots/`; after a wanted change, `INSTA_UPDATE=always cargo test --test cli_config` writes them
//! again. Commands that succeed are in `cli_config/commands.rs`, the order of the layers in `cli_config/layers.rs`.

#[path = "cli_config/commands.rs"]
mod commands;
#[path = "cli_config/layers.rs"]
mod layers;
#[path = "cli_config/world.rs"]
mod world;

use world::{DATA, NAME, World, good, snapshot};

/// A test that runs `vlp check e.toml` on a good experiment that ends with the given text.
macro_rules! mistakes {
    ($($name:ident: $rest:expr;)*) => { $(
        #[test]
        fn $name() {
            snapshot(stringify!($name), &World::good($rest).mistake(&["check", "e.toml"]));
        }
    )* };
}

mistakes! {
    unknown_key: "[train]\nlearing_rate = 3e-5\n";
    unknown_key_like_no_other: "[train]\nzzz = 1\n";
    unknown_section: "[trian]\nepochs = 3\n";
    key_of_another_section: "[train]\nmax_pred = 3\n";
    section_as_value: "[init]\nfrom = \"cc\"\n[profile]\nquick = 3\n";
    wrong_type: "[train]\nbatch_size = \"64\"\nepochs = true\nschedule = 1\n[evaluate]\nsplits = \"test\"\n";
    float_for_integer: "[train]\nepochs = 30.0\n";
    date_for_string: "[select]\nsplit = 2020-02-01\n";
    out_of_range: "[train]\nbatch_size = 0\nwarmup_proportion = 1.5\nmax_grad_norm = -1\n";
    not_a_finite_number: "[train]\nlearning_rate = nan\n";
    integer_too_large: "[train]\nepochs = 99999999999999999999\n";
    unknown_choice: "[train]\nschedule = \"warmup_linea\"\n[launch]\nlauncher = \"pbs\"\ndevice = \"gpu\"\n";
    unknown_choice_in_list: "[evaluate]\ncheckpoints = [\"best\", \"frist\"]\n";
    unknown_table_in_section: "[data.extra]\nx = 1\n";
    row_with_single_brackets: "[paper]\ntable = \"t\"\n";
    like_one_key_and_the_name_of_another: "[select]\nsplits = [\"val\"]\n";
    duplicate_key: "[train]\nepochs = 3\nbatch_size = 8\nepochs = 4\n";
    duplicate_section: "[train]\nepochs = 3\n[model]\n[train]\nbatch_size = 8\n";
    value_missing: "[train]\nepochs =\nbatch_sise = 8\n";
    value_without_quotes: "[init]\nfrom = cc_pretrain\n";
    string_not_closed: "[init]\nfrom = \"cc_pretrain\n[train]\nepochs = 3\n";
    array_not_closed: "[evaluate]\nsplits = [\"val\", \"test\"\nbeam_size = 5\n[train]\nepochs = 3\n";
    header_not_closed: "[train\nepochs = 3\n";
    mistake_in_profile: "[profile.quick.train]\nepoch = 1\n[profile.quick.model]\nhidden_size = -1\n";
    probabilities: "[objective]\ns2s_prob = 0.8\nbi_prob = 0.3\n";
    heads: "[model]\nhidden_size = 130\nnum_attention_heads = 4\n";
    positions: "[model]\nmax_position_embeddings = 120\n";
    positions_of_decoding: "[model]\nmax_position_embeddings = 123\n[evaluate]\nmax_length = 30\n";
    drops_whole_batch: "[objective]\ndrop_worst_ratio = 0.9\n[train]\nbatch_size = 8\n";
    min_length: "[evaluate]\nmin_length = 21\n";
    named_twice: "[evaluate]\nsplits = [\"test\", \"val\", \"test\"]\ncheckpoints = [\"best\", \"best\"]\n";
    world_size: "[launch]\nworld_size = 8\nmaster_addr = \"node17\"\ndevice = \"flex\"\nhang_timeout_s = 5\n";
    vqa_of_captions: "[objective]\nkind = \"vqa\"\ns2s_prob = 0.0\nbi_prob = 1.0\n[select]\nmetric = \"overall\"\n";
    captions_of_questions: "dataset = \"vqa2\"\nanswers = \"a.txt\"\nimdb = { train = \"t.npy\", val = \"v.npy\", test = \"s.npy\" }\n";
    vqa_paths: "dataset = \"vqa2\"\n[objective]\nkind = \"vqa\"\ns2s_prob = 0.0\nbi_prob = 1.0\n[select]\nmetric = \"overall\"\n";
    vqa_splits: "dataset = \"vqa2\"\nanswers = \"a.txt\"\ntrain_splits = [\"train2014\"]\n\
        imdb = { train2014 = \"t.npy\", val2014 = \"\" }\n[objective]\nkind = \"vqa\"\ns2s_prob = 0.0\nbi_prob = 1.0\n\
        [select]\nmetric = \"overall\"\n[evaluate]\nsplits = [\"val2014\", \"test2015\"]\n";
    vqa_is_bidirectional: "dataset = \"vqa2\"\nanswers = \"a.txt\"\nimdb = { train = \"t.npy\", val = \"v.npy\", test = \"s.npy\" }\n\
        [objective]\nkind = \"vqa\"\n";
    masked_without_masks: "[objective]\nmax_pred = 0\n[select]\nmetric = \"overall\"\n";
    scst_of_nothing: "[objective]\nkind = \"scst\"\ns2s_prob = 0.5\nbi_prob = 0.5\n";
    paper_server: "[[paper]]\ntable = \"t\"\nrow = \"r\"\nserver = true\nexpect = { cider = 70.5 }\nat_least = { bleu_4 = 1.0 }\n";
    paper_also: "[[paper]]\ntable = \"t\"\nrow = \"r\"\nexpect = { cider = 1.0 }\ntolerance = { cider = 0.1 }\nalso = [\"cider\", \"bleu_4\", \"bleu\"]\n";
    paper_scores_of_answers: "[[paper]]\ntable = \"t\"\nrow = \"r\"\nat_least = { overall = 1.0, cider_minus_other_run = 2.0, cider_minus_majority = 3.0 }\n";
    starts_from_itself: "[init]\nfrom = \"demo\"\n";
    paper_row_incomplete: "[[paper]]\nrow = \"COCO\"\n\n[[paper]]\ntable = \"t\"\nexpect = { cider = 1.0 }\ntolerance = { cider = 0.1 }\n";
    selected_by_spice: "[select]\nmetric = \"spice\"\n";
    metrics: "[metrics]\ncaptions = [\"cider\", \"cider\"]\nmeteor = \"java\"\nspice_timeout_s = 0\nvqa = \"pythia\"\n";
    paper_tolerance: "[[paper]]\ntable = \"t\"\nrow = \"r\"\nexpect = { cider = 1.0, bleu_4 = 1.0 }\ntolerance = { cider = -0.1, bleu_3 = 1.0 }\n";
    paper_misspelt_score: "[[paper]]\ntable = \"t\"\nrow = \"r\"\nexpect = { cidre = 1.0 }\ntolerance = { cider = 0.1 }\n";
    paper_unknown_score: "[[paper]]\ntable = \"t\"\nrow = \"r\"\nat_least = { cyder = 1.0, bleu_5 = 2 }\n";
    paper_not_measured: "[[paper]]\ntable = \"t\"\nrow = \"r\"\nsplit = \"val\"\ncheckpoint = \"last\"\nat_least = { cider_over_first = 5.0 }\n";
    paper_not_computed: "[metrics]\ncaptions = [\"cider\"]\n[[paper]]\ntable = \"t\"\nrow = \"r\"\nexpect = { cider = 1.0, spice = 21.2 }\ntolerance = { cider = 1.0, spice = 0.3 }\n";
    paper_rows_alike: "[[paper]]\ntable = \"t\"\nrow = \"r\"\nat_least = { cider = 1 }\n[[paper]]\ntable = \"t\"\nrow = \"r\"\nat_least = { cider = 2 }\n";
    paper_bad_table_name: "[[paper]]\ntable = \"../t\"\nrow = \"r\"\nat_least = { cider = \"1\" }\n";
}

/// Snapshots what `vlp` says to files that are a mistake.
fn check(name: &str, files: &[(&str, &str)], args: &[&str]) {
    snapshot(name, &World::new(files).mistake(&[&["check"], args].concat()));
}

#[test]
fn keys_at_the_top() {
    check(
        "keys_at_the_top",
        &[("e.toml", &format!("epochs = 3\nbatch_size = 4\nname = 5\ntrain = 7\n{NAME}{DATA}"))],
        &["e.toml"],
    );
}

#[test]
fn bad_name() {
    check("bad_name", &[("e.toml", &format!("[experiment]\nname = \"my run\"\n{DATA}"))], &["e.toml"]);
}

#[test]
fn name_missing() {
    check("name_missing", &[("e.toml", &format!("[experiment]\nseed = 3\n{DATA}"))], &["e.toml"]);
}

#[test]
fn name_misspelt() {
    check("name_misspelt", &[("e.toml", &format!("[experiment]\nnmae = \"demo\"\n{DATA}"))], &["e.toml"]);
}

#[test]
fn a_fragment_cannot_be_shown() {
    snapshot("a_fragment_cannot_be_shown", &World::new(&[("e.toml", DATA)]).mistake(&["show", "e.toml"]));
}

#[test]
fn paths_missing() {
    check(
        "paths_missing",
        &[("e.toml", &format!("{NAME}[data]\nboxes = \"\"\nannotations = \"a.json\"\n"))],
        &["e.toml"],
    );
}

#[test]
fn all_paths_missing() {
    check("all_paths_missing", &[("e.toml", NAME)], &["e.toml"]);
}

#[test]
fn train_splits_empty() {
    check("train_splits_empty", &[("e.toml", &good("train_splits = []\n"))], &["e.toml"]);
}

#[test]
fn extends_missing_file() {
    let text = format!("extends = [\"../base/data.toml\", \"../base/modle.toml\", \"nowhere/x.toml\"]\n{NAME}");
    check(
        "extends_missing_file",
        &[("runs/e.toml", &text), ("base/data.toml", DATA), ("base/model.toml", "")],
        &["runs/e.toml"],
    );
}

#[test]
fn extends_cycle() {
    let files = [
        ("e.toml", &*format!("extends = [\"base/a.toml\"]\n{NAME}")),
        ("base/a.toml", "extends = [\"b.toml\"]\n"),
        ("base/b.toml", "extends = [\"../base/a.toml\"]\n"),
        ("self.toml", "extends = [\"self.toml\"]\n"),
    ];
    check("extends_cycle", &files, &["e.toml", "self.toml"]);
}

#[test]
fn extends_not_a_list() {
    check("extends_not_a_list", &[("e.toml", &format!("extends = \"base.toml\"\n{}", good("")))], &["e.toml"]);
}

#[test]
fn variable_not_set() {
    let data = DATA.replace("\"a.json\"", "\"${DATA_ROOT}/a.json\"").replace("\"v.json\"", "\"${DATA_ROOT}/v.json\"");
    let top = format!("extends = [\"data.toml\"]\n{NAME}[init]\nfrom = \"${{CHECKPOINT_ROOT}}/cc\"\n");
    check("variable_not_set", &[("e.toml", &top), ("data.toml", &data)], &["e.toml"]);
}

#[test]
fn variable_not_closed() {
    check("variable_not_closed", &[("e.toml", &good("").replace("\"r\"", "\"${DATA_ROOT/r\""))], &["e.toml"]);
}

#[test]
fn file_not_found() {
    check("file_not_found", &[("coco_ce.toml", &good(""))], &["coco_cd.toml", "flickr.toml"]);
}

#[test]
fn folder_instead_of_file() {
    check("folder_instead_of_file", &[("folder/e.toml", "")], &["folder"]);
}

#[test]
fn not_text() {
    let world = World::new(&[]);
    world.write("e.toml", b"name = \"\xff\xfe\"");
    snapshot("not_text", &world.mistake(&["check", "e.toml"]));
}

#[test]
fn unknown_profile() {
    let files = [("e.toml", &*good("[profile.quick.train]\nepochs = 1\n")), ("plain.toml", &good(""))];
    check("unknown_profile", &files, &["e.toml", "plain.toml", "--profile", "quik"]);
}

#[test]
fn bad_set() {
    let args = ["--set", "train.epochs", "--set", "=3", "--set", "train.batch_sise=8", "--set", "trian={epochs=3}"];
    let more =
        ["--set", "train.epochs=many", "--set", "train.batch_size=0", "--set", "paper.0.row=x", "--device", "gpu"];
    let world = World::good("");
    snapshot("bad_set", &world.mistake(&[&["check", "e.toml"], &args[..], &more[..]].concat()));
}

#[test]
fn bad_environment() {
    let world = World::good("[model]\nmax_position_embeddings = 130\n")
        .with("VLP_TRAIN__EPOCHS", "0")
        .with("VLP_TRAIN_BATCH_SIZE", "8")
        .with("VLP_TRAIN__SCHEDULE", "linear")
        .with("VLP_DATA__NUM_REGIONS", "200")
        .with("VLP_FOO", "1");
    snapshot("bad_environment", &world.mistake(&["check", "e.toml"]));
}

#[test]
fn rule_broken_by_set() {
    let world = World::good("[objective]\ns2s_prob = 0.75\nbi_prob = 0.25\n");
    snapshot("rule_broken_by_set", &world.mistake(&["check", "e.toml", "--set", "objective.s2s_prob=1.0"]));
}

#[test]
fn many_files_in_one_pass() {
    let files = [
        ("base.toml", &*format!("{DATA}[model]\nhiden_size = 128\n")),
        ("one.toml", &format!("extends = [\"base.toml\"]\n{NAME}[train]\nepochs = 0\n[launch]\nworld_size = 0\n")),
        (
            "two.toml",
            &format!("extends = [\"base.toml\"]\n{NAME}[train]\nlearning_rate = 0.01\n[init]\nfrom = \"one\"\n"),
        ),
        ("good.toml", &good("")),
    ];
    check("many_files_in_one_pass", &files, &["one.toml", "good.toml", "two.toml"]);
}

#[test]
fn wide_characters_and_tabs() {
    check(
        "wide_characters_and_tabs",
        &[("e.toml", &good("[train] # 训练 é\n\tschedule = \"线性\"\t# ← 日程\n"))],
        &["e.toml"],
    );
}

#[test]
fn windows_line_ends() {
    check(
        "windows_line_ends",
        &[("e.toml", &good("[train]\nepochs = 0\nbatch_size = 0").replace('\n', "\r\n"))],
        &["e.toml"],
    );
}

#[test]
fn explain_unknown_key() {
    let world = World::new(&[]);
    let said: Vec<String> = ["trian", "batch_size", "learning_rat", "train.epoch", "paper.rwo", "qqq"]
        .map(|key| world.mistake(&["explain", key]))
        .into();
    snapshot("explain_unknown_key", &said.join("\n"));
}

#[test]
fn list_of_no_folder() {
    snapshot("list_of_no_folder", &World::new(&[]).mistake(&["list", "nowhere"]));
}

#[test]
fn suspicious_settings_are_warnings() {
    let rest = "[objective]\nlabel_smoothing = 0.1\ndrop_worst_ratio = 0.2\nmax_pred = 30\nvis_mask_prob = 0.001\n\
        [train]\nlearning_rate = 0.01\nwarmup_proportion = 1\n[init]\nfrom = \"cc\"\n[select]\nsplit = \"train\"\n\
        [evaluate]\nmax_length = 25\nno_repeat_ngram = 1\nsplits = [\"test\", \"train\"]\n";
    let output = World::good(rest).vlp(&["check", "e.toml"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(output.stdout, b"");
    snapshot("suspicious_settings_are_warnings", &String::from_utf8(output.stderr).unwrap());
}

#[test]
fn suspicious_self_critical_training() {
    let rest = "[objective]\nkind = \"scst\"\nmask_prob = 0.0\nmax_pred = 0\nlabel_smoothing = 0.1\n\
        [init]\nfrom = \"coco_ce\"\n[train]\nlearning_rate = 3e-5\n";
    let output = World::good(rest).vlp(&["check", "e.toml"]);
    assert_eq!(output.status.code(), Some(0));
    snapshot("suspicious_self_critical_training", &String::from_utf8(output.stderr).unwrap());
    let quiet = "[objective]\nkind = \"scst\"\nmask_prob = 0.0\nmax_pred = 0\n[scst]\ndocument_frequency = \"corpus\"\n\
        [init]\nfrom = \"coco_ce\"\n[train]\nlearning_rate = 1e-6\n";
    let output = World::good(quiet).vlp(&["check", "e.toml"]);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "e.toml: ok\n");
}

#[test]
fn suspicious_settings_on_their_own() {
    let rest = "[train]\nlearning_rate = 0\n[evaluate]\nno_repeat_ngram = 21\n";
    let output = World::good(rest).vlp(&["check", "e.toml"]);
    assert_eq!(output.status.code(), Some(0));
    snapshot("suspicious_settings_on_their_own", &String::from_utf8(output.stderr).unwrap());
}

#[test]
fn colour_only_when_asked_for() {
    let world = World::good("[train]\nepochs = 0\n");
    assert!(!world.mistake(&["check", "e.toml"]).contains('\u{1b}'));
    assert!(!world.mistake(&["check", "e.toml", "--color", "never"]).contains('\u{1b}'));
    assert!(world.mistake(&["check", "e.toml", "--color", "always"]).contains("\u{1b}["));
}
