//! A folder with the demo world and a tiny experiment over it, in which the real binary is run.
#![allow(dead_code)] // each test file uses its part

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;
use vlp::data::demo_world::{self, WorldOptions};

/// A one-layer network, 40 images of each split, two epochs: seconds.
pub const TINY: &str = r#"[experiment]
name = "tiny"
seed = 1
[data]
annotations = "demo/COCO/annotations/dataset_coco.json"
valid_images = "demo/COCO/annotations/coco_valid_jpgs.json"
region_prefix = "demo/COCO/region_feat_gvd_wo_bgd/feat_cls_1000_float16/coco_detection_vg_100dets_gvd_checkpoint_trainval"
boxes = "demo/COCO/region_feat_gvd_wo_bgd/coco_detection_vg_thresh0.2_feat_gvd_checkpoint_trainvaltest.h5"
vocabulary = "demo/vocab.txt"
num_regions = 16
region_feature_size = 128
num_region_classes = 33
max_images = 40
[model]
hidden_size = 32
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 64
max_position_embeddings = 48
hidden_dropout_prob = 0.0
attention_probs_dropout_prob = 0.0
[train]
epochs = 2
batch_size = 20
learning_rate = 1e-3
log_every = 1
[evaluate]
splits = ["test"]
beam_size = 2
checkpoints = ["last", "first"]
[launch]
device = "flex"
[[paper]]
table = "tiny"
row = "Tiny / captioning"
checkpoint = "last"
at_least = { cider = 0.0 }
"#;

/// The folder.
pub struct Folder {
    temporary: TempDir,
}

impl Folder {
    /// The demo world under `demo/`, and `tiny.toml`.
    pub fn new() -> Self {
        let folder = Self { temporary: TempDir::new().unwrap() };
        demo_world::write(&folder.path("demo"), WorldOptions { seed: 0, full_size: false }).unwrap();
        folder.write("tiny.toml", TINY);
        folder
    }

    /// Where a file is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.temporary.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// `vlp` with these arguments, in the folder, without the variables of whoever runs the tests.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vlp"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("VLP_") || name.starts_with("MLFLOW_") || name.ends_with("_ROOT") || name == "RUST_LOG"
            {
                command.env_remove(name);
            }
        }
        command.current_dir(self.temporary.path()).args(args);
        command
    }

    /// Runs `vlp`.
    pub fn vlp(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs `vlp`, which must succeed; its stdout.
    pub fn stdout(&self, args: &[&str]) -> String {
        let output = self.vlp(args);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs `vlp`, which must fail with this exit code and an empty stdout; its stderr.
    pub fn failure(&self, code: i32, args: &[&str]) -> String {
        let output = self.vlp(args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
        assert!(!text.contains("panicked"), "{text}");
        text
    }

    /// The only run of an experiment.
    pub fn run(&self, experiment: &str) -> PathBuf {
        let runs = folders(&self.path("runs").join(experiment));
        assert_eq!(runs.len(), 1, "{runs:?}");
        runs.into_iter().next().unwrap()
    }
}

/// The folders in a folder, sorted.
pub fn folders(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_dir()).collect();
    found.sort();
    found
}

/// Every file below a folder, relative to it, sorted.
pub fn files(path: &Path) -> Vec<String> {
    let mut found: Vec<String> = walkdir::WalkDir::new(path)
        .into_iter()
        .map(|e| e.unwrap())
        .filter(|e| e.file_type().is_file())
        .map(|e| e.path().strip_prefix(path).unwrap().display().to_string())
        .collect();
    found.sort();
    found
}
