//! Every experiment of the paper from end to end, by its own file with `--profile tiny`, over a data root in the exact file
//! names of the original data (made here, 100 regions × 2048 numbers × 1601 classes, few images).

#[path = "hostile_pickles/make.rs"]
#[allow(dead_code)] // the other test uses the rest
mod make;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use vlp::data::demo_world::{self, WorldOptions};

/// The experiments of the paper and the number of processes of each.
const PAPER: [(&str, usize); 7] = [
    ("cc_pretrain", 8),
    ("coco_ce", 8),
    ("coco_scratch", 8),
    ("coco_scst", 4),
    ("flickr30k_ce", 8),
    ("vqa2_train", 2),
    ("vqa2_trainval", 2),
];

fn experiments() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("experiments")
}

/// A data root, a checkpoint root, and a folder to run in.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        demo_world::write(&world.path("data"), WorldOptions { seed: 3, full_size: true }).unwrap();
        // The original's COCO features are float32 under this name; float16 is read alike.
        let coco = world.path("data/COCO/region_feat_gvd_wo_bgd");
        fs::rename(coco.join("feat_cls_1000_float16"), coco.join("feat_cls_1000")).unwrap();
        world.test_dev_questions();
        world.detector_layer();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The first half of the test questions, as the official archive has them.
    fn test_dev_questions(&self) {
        let file = |phase: &str| self.path(&format!("data/VQA/v2_OpenEnded_mscoco_{phase}_questions.json"));
        let mut questions: Value = serde_json::from_slice(&fs::read(file("test2015")).unwrap()).unwrap();
        let list = questions["questions"].as_array_mut().unwrap();
        list.truncate(list.len() / 2);
        fs::write(file("test-dev2015"), questions.to_string()).unwrap();
    }

    /// The detector's fc7 layer, as pickled arrays.
    fn detector_layer(&self) {
        fs::create_dir(self.path("checkpoints")).unwrap();
        let small = |count: usize, scale: f32| -> Vec<u8> {
            let value = |i: usize| ((i * 2_654_435_761) % 1000) as f32 / 1000.0 - 0.5;
            make::floats(&(0..count).map(|i| value(i) * scale).collect::<Vec<_>>())
        };
        let write = |name: &str, shape: &[i64], bytes: Vec<u8>| {
            let length = (bytes.len() as u32).to_le_bytes();
            let data = [b"B", &length[..], &bytes[..]].concat();
            let pickle = make::pickle(&make::array(shape, make::dtype("f4"), data));
            fs::write(self.path("checkpoints").join(name), pickle).unwrap();
        };
        write("fc7_w.pkl", &[2048, 2048], small(2048 * 2048, 0.05));
        write("fc7_b.pkl", &[2048], small(2048, 0.1));
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vlp"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("VLP_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.current_dir(self.folder.path()).args(args);
        command.env("DATA_ROOT", self.path("data")).env("CHECKPOINT_ROOT", self.path("checkpoints"));
        command
    }

    fn vlp(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs `vlp`, which must succeed; its stdout and stderr.
    fn good(&self, args: &[&str]) -> (String, String) {
        let output = self.vlp(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        (String::from_utf8(output.stdout).unwrap(), stderr)
    }

    /// The run folders of an experiment below `runs/tiny`.
    fn runs(&self, experiment: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("runs/tiny").join(experiment));
        let mut runs: Vec<PathBuf> = entries.unwrap().map(|entry| entry.unwrap().path()).collect();
        runs.sort();
        runs
    }
}

/// The paths of all files of the paper.
fn files() -> Vec<String> {
    PAPER.iter().map(|(name, _)| experiments().join(format!("paper/{name}.toml")).display().to_string()).collect()
}

fn with_files<'a>(first: &[&'a str], files: &'a [String], last: &[&'a str]) -> Vec<&'a str> {
    first.iter().copied().chain(files.iter().map(String::as_str)).chain(last.iter().copied()).collect()
}

#[test]
fn the_files_of_the_paper_are_right_and_say_what_they_need() {
    let folder = tempfile::tempdir().unwrap();
    let files = files();
    let check = |variables: &[(&str, &str)]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vlp"));
        command.env_remove("DATA_ROOT").env_remove("CHECKPOINT_ROOT").envs(variables.iter().copied());
        let args = with_files(&["check", "-q"], &files, &[]);
        let output = command.current_dir(folder.path()).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(check(&[("DATA_ROOT", "/data"), ("CHECKPOINT_ROOT", "/checkpoints")]), (Some(0), String::new()));
    let (code, said) = check(&[]);
    assert_eq!(code, Some(2));
    for variable in ["DATA_ROOT", "CHECKPOINT_ROOT"] {
        assert!(said.contains(&format!("environment variable `{variable}` is not set")), "{said}");
    }
}

#[test]
fn every_experiment_of_the_paper_runs_at_tiny_size() {
    let world = World::new();
    let files = files();

    // Planned as they are: the processes of the paper. A plan reads no weights, but they must be there.
    let unilm = world.path("checkpoints/bert_save/base_model_pretrained/model_153999_cpu.bin");
    fs::create_dir_all(unilm.parent().unwrap()).unwrap();
    fs::write(unilm, make::small_legacy()).unwrap();
    for (file, (_, processes)) in files.iter().zip(PAPER) {
        let (plan, _) = world.good(&["plan", file]);
        let stage = plan.rsplit("stage ").next().unwrap();
        let ranks = stage.lines().filter(|line| line.trim_start().starts_with("process ")).count();
        assert_eq!(ranks, processes, "{plan}");
    }

    // Run at tiny size: one command, what several start from once.
    let (_, said) = world.good(&with_files(&["run"], &files, &["--profile", "tiny", "--device", "flex"]));
    for (name, _) in PAPER {
        let runs = world.runs(name);
        assert_eq!(runs.len(), 1, "{name}\n{said}");
        assert!(runs[0].join("checkpoints/epoch-0001/model.safetensors").is_file(), "{name}");
    }

    let scores = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(world.runs(name)[0].join("scores.json")).unwrap()).unwrap()
    };
    for name in ["coco_ce", "coco_scratch", "coco_scst", "flickr30k_ce"] {
        assert!(scores(name)["best/test"]["cider"].is_number(), "{name}: {}", scores(name));
    }
    let answers = &scores("vqa2_train")["best/val2014"];
    for score in ["overall", "yes_no", "number", "other"] {
        assert_eq!(answers[score], answers[format!("{score}_legacy")], "{answers}");
        assert!(answers[format!("{score}_official")].is_number(), "{answers}");
    }

    // What the evaluation server takes.
    let submissions = world.runs("vqa2_trainval")[0].join("submissions");
    let ids = |phase: &str, key: &str, file: PathBuf| -> Vec<u64> {
        let read: Value = serde_json::from_slice(&fs::read(&file).unwrap_or_else(|e| panic!("{phase}: {e}"))).unwrap();
        let list = if key.is_empty() { read } else { read[key].clone() };
        list.as_array().unwrap().iter().map(|entry| entry["question_id"].as_u64().unwrap()).collect()
    };
    let answer = submissions.join("v2_OpenEnded_mscoco_test2015_vlp_results.json");
    assert_eq!(ids("test2015", "", answer).len(), 2 * questions_per_image(&world));

    // The tables: at tiny size every score of the paper is missed or not there, and the server's rows are ready.
    let (table, _) = world.good(&["table", "--format", "json", &experiments().join("paper").display().to_string()]);
    let tables: Value = serde_json::from_str(&table).unwrap();
    let verdicts: Vec<&str> = cells(&tables).map(|cell| cell["verdict"].as_str().unwrap()).collect();
    assert!(verdicts.iter().all(|verdict| *verdict == "not run"), "tiny runs are no results: {verdicts:?}");
    let tiny: Value = serde_json::from_slice(&fs::read(world.path("runs/tiny/results/vqa.json")).unwrap()).unwrap();
    let server: Vec<&Value> = tiny["cells"].as_array().unwrap().iter().filter(|c| c["split"] == "test2015").collect();
    assert_eq!(server.len(), 8);
    assert!(server.iter().all(|cell| cell["verdict"] == "submission ready"), "{server:?}");

    // Everything is done: the same command reuses all of it.
    let (_, said) = world.good(&with_files(&["run"], &files, &["--profile", "tiny", "--device", "flex"]));
    assert_eq!(said.matches(": reuse ").count(), PAPER.len(), "{said}");
}

fn questions_per_image(world: &World) -> usize {
    let file = world.path("data/VQA/v2_OpenEnded_mscoco_test2015_questions.json");
    let questions: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let list = questions["questions"].as_array().unwrap();
    let first = &list[0]["image_id"];
    list.iter().filter(|q| q["image_id"] == *first).count()
}

fn cells(tables: &Value) -> impl Iterator<Item = &Value> {
    tables.as_array().unwrap().iter().flat_map(|table| table["cells"].as_array().unwrap())
}

/// Pre-training from a text-only checkpoint in PyTorch's legacy container with two segment types, as UniLM's.
#[test]
fn pre_training_starts_from_a_text_only_checkpoint() {
    let world = World::new();
    let tokens = fs::read_to_string(world.path("data/vocab.txt")).unwrap().lines().count() as i64;
    let (hidden, inner) = (16i64, 32i64);
    let mut storages: Vec<(String, u64, Vec<u8>)> = Vec::new();
    let mut entries: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |name: &str, shape: &[i64]| {
        let count: i64 = shape.iter().product();
        let key = storages.len().to_string();
        let strides: Vec<i64> = (0..shape.len()).map(|i| shape[i + 1..].iter().product()).collect();
        let storage = make::viewed("FloatStorage", &key, count, b"N".to_vec());
        entries.push((name.to_string(), make::tensor(storage, 0, shape, &strides)));
        storages.push((key, count as u64, make::floats(&vec![0.01; count as usize])));
    };
    add("bert.embeddings.word_embeddings.weight", &[tokens, hidden]);
    add("bert.embeddings.position_embeddings.weight", &[512, hidden]);
    add("bert.embeddings.token_type_embeddings.weight", &[2, hidden]);
    let layer = "bert.encoder.layer.0";
    for (name, out, from) in [
        ("attention.self.query", hidden, hidden),
        ("attention.self.key", hidden, hidden),
        ("attention.self.value", hidden, hidden),
        ("attention.output.dense", hidden, hidden),
        ("intermediate.dense", inner, hidden),
        ("output.dense", hidden, inner),
    ] {
        add(&format!("{layer}.{name}.weight"), &[out, from]);
        add(&format!("{layer}.{name}.bias"), &[out]);
    }
    for name in ["bert.embeddings", &format!("{layer}.attention.output"), &format!("{layer}.output")] {
        add(&format!("{name}.LayerNorm.gamma"), &[hidden]);
        add(&format!("{name}.LayerNorm.beta"), &[hidden]);
    }
    for (name, shape) in [
        ("bert.pooler.dense.weight", &[hidden, hidden][..]),
        ("bert.pooler.dense.bias", &[hidden]),
        ("cls.predictions.transform.dense.weight", &[hidden, hidden]),
        ("cls.predictions.transform.dense.bias", &[hidden]),
        ("cls.predictions.transform.LayerNorm.gamma", &[hidden]),
        ("cls.predictions.transform.LayerNorm.beta", &[hidden]),
        ("cls.predictions.bias", &[tokens]),
        ("cls.predictions.decoder.weight", &[tokens, hidden]),
    ] {
        add(name, shape);
    }
    let object: Vec<(&str, Vec<u8>)> = entries.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let views: Vec<(&str, u64, Vec<u8>)> = storages.iter().map(|(k, n, b)| (k.as_str(), *n, b.clone())).collect();
    let unilm = world.path("checkpoints/bert_save/base_model_pretrained/model_153999_cpu.bin");
    fs::create_dir_all(unilm.parent().unwrap()).unwrap();
    fs::write(&unilm, make::legacy(&make::dict(&object), &views)).unwrap();

    let file = experiments().join("paper/cc_pretrain.toml").display().to_string();
    let from = format!("init.from={}", unilm.display());
    world.good(&["run", &file, "--profile", "tiny", "--device", "flex", "--set", &from]);
    let log = fs::read_to_string(world.runs("cc_pretrain")[0].join("ranks/0.log")).unwrap();
    let line = log.lines().find(|line| line.contains("\"initial weights\"")).unwrap_or_else(|| panic!("{log}"));
    let told: Value = serde_json::from_str(line).unwrap();
    let missing = told["fields"]["missing"].as_str().unwrap();
    assert_eq!(
        missing,
        "vis_embed.0.weight, vis_embed.0.bias, vis_embed.2.weight, vis_embed.2.bias, vis_pe_embed.0.weight, vis_pe_embed.0.bias"
    );
    assert!(told["fields"]["changes"].as_str().unwrap().contains("token_type_embeddings"), "{told}");
}
