//! The committed JSON Schema: fresh, true for every experiment file by an independent validator, and of one mind with
//! the program's own checks.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::Value;
use vlp::config::{Overrides, experiment_schema, is_sweep, load};

const REFRESH: &str = "vlp schema > schemas/experiment.schema.json";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn committed() -> PathBuf {
    root().join("schemas/experiment.schema.json")
}

/// A validator made of the committed file alone.
fn validator() -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(committed()).unwrap()).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

/// Every TOML file below `experiments/` that is no sweep: those have a schema of their own.
fn experiment_files() -> Vec<PathBuf> {
    // `follow_links`: a checkout may keep the folder elsewhere.
    let entries = walkdir::WalkDir::new(root().join("experiments")).follow_links(true).sort_by_file_name();
    let paths = entries.into_iter().map(|entry| entry.unwrap().into_path());
    let files: Vec<PathBuf> = paths.filter(|p| p.extension().is_some_and(|e| e == "toml") && !is_sweep(p)).collect();
    assert!(!files.is_empty(), "no experiment files");
    files
}

fn json(toml_text: &str) -> Value {
    serde_json::to_value(toml::from_str::<toml::Value>(toml_text).unwrap()).unwrap()
}

#[test]
fn the_committed_schema_is_fresh() {
    let text = std::fs::read_to_string(committed()).unwrap_or_default();
    let fresh = format!("{:#}\n", experiment_schema());
    assert!(text == fresh, "schemas/experiment.schema.json is stale; refresh it with\n    {REFRESH}");
}

#[test]
fn the_schema_is_a_valid_schema() {
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(committed()).unwrap()).unwrap();
    assert!(jsonschema::meta::is_valid(&schema));
}

#[test]
fn every_experiment_file_names_the_committed_schema() {
    let committed = committed().canonicalize().unwrap();
    for file in experiment_files() {
        let text = std::fs::read_to_string(&file).unwrap();
        let first = text.lines().next().unwrap_or_default();
        let named = first
            .strip_prefix("#:schema ")
            .unwrap_or_else(|| panic!("{} does not begin with `#:schema`", file.display()));
        let path = file.canonicalize().unwrap().parent().unwrap().join(named);
        assert_eq!(path.canonicalize().unwrap(), committed, "{}", file.display());
    }
}

#[test]
fn every_experiment_file_validates() {
    let validator = validator();
    for file in experiment_files() {
        let value = json(&std::fs::read_to_string(&file).unwrap());
        let errors: Vec<String> =
            validator.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect();
        assert_eq!(errors, Vec::<String>::new(), "{}", file.display());
    }
}

/// Texts that neither the schema nor the program accepts.
const BAD: [&str; 17] = [
    "zzz = 1",
    "train = 1",
    "[trian]\nepochs = 1",
    "[train]\nlearing_rate = 1.0",
    "[train]\nepochs = 0",
    "[train]\nepochs = 1.5",
    "[train]\nepochs = \"3\"",
    "[train]\nschedule = \"linear\"",
    "[train]\nlearning_rate = 2.0",
    "[data]\ntrain_splits = []",
    "[data]\ncased = 1",
    "[launch]\ndevice = \"gpu\"",
    "[evaluate]\ncheckpoints = [\"worst\"]",
    "[experiment]\nname = \"a b\"",
    "[[paper]]\nexpect = { cider = \"1\" }",
    "[profile.quick.train]\nepoch = 1",
    "extends = \"base.toml\"",
];

/// Texts that the schema accepts and whose values the program accepts.
const GOOD: [&str; 6] = [
    "",
    "extends = []",
    "[train]\nlearning_rate = 1",
    "[experiment]\nseed = 9007199254740993",
    "[profile.quick.train]\nepochs = 1\n[profile.none]",
    "[[paper]]\ntable = \"t\"\nexpect = { cider = 1 }",
];

#[test]
fn schema_and_program_agree() {
    let validator = validator();
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("e.toml");
    let complaints = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let problems = load(&file, &Overrides::default()).expect_err("no such text has a name and paths").0;
        let about_values = |message: &str| {
            !message.contains("not given") && !message.contains("[[paper]]") && !message.contains("tolerance")
        };
        problems.into_iter().map(|p| p.message).filter(|m| about_values(m)).collect::<Vec<_>>()
    };
    for text in BAD {
        assert!(!validator.is_valid(&json(text)), "the schema accepts\n{text}");
        assert_eq!(complaints(text).len(), 1, "{text}\n{:?}", complaints(text));
    }
    for text in GOOD {
        assert!(validator.is_valid(&json(text)), "the schema rejects\n{text}");
        assert_eq!(complaints(text), Vec::<String>::new(), "{text}");
    }
}

/// Pieces that make a text likely to be half a configuration.
fn pieces() -> impl Strategy<Value = String> {
    const KNOWN: &[&str] = &[
        "[train]\n",
        "[data]\n",
        "[[paper]]\n",
        "[profile.a.train]\n",
        "[paper]\n",
        "epochs = ",
        "batch_size = ",
        "name = ",
        "extends = ",
        "paper = ",
        "expect = ",
        "train.epochs = ",
        "annotations = ",
        "3\n",
        "0.5\n",
        "nan\n",
        "\"${A}\"\n",
        "\"${\"\n",
        "[",
        "]",
        "{",
        "}",
        "\"",
        "'''",
        "\n",
        "=",
        ".",
        ",",
        "# é\n",
        "\t",
        "\r\n",
        "线",
        "\u{0}",
        "\u{feff}",
        "1979-05-27\n",
        "-9223372036854775808\n",
        "[1, 2]\n",
        "{ cider = 1 }\n",
        "true\n",
    ];
    let piece = prop_oneof![4 => proptest::sample::select(KNOWN).prop_map(String::from), 1 => any::<String>()];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_program_panic(text in pieces(), set in any::<String>(), value in any::<String>()) {
        let folder = tempfile::TempDir::new().unwrap();
        let file = folder.path().join("e.toml");
        std::fs::write(&file, &text).unwrap();
        let environment = [("VLP_TRAIN__EPOCHS".to_string(), value.clone()), (format!("VLP_{value}"), text.clone())].into();
        let overrides = Overrides { profile: Some("a".into()), set: vec![set, format!("data.boxes={value}")], environment };
        let problems = load(&file, &overrides).expect_err("no text has a name and paths");
        prop_assert!(problems.errors() > 0);
        for color in [false, true] {
            prop_assert!(problems.render(color).contains("error:"));
        }
    }
}
