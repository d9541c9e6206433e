//! Checkpoints of the reference: PyTorch's two containers hold the same values, old ones are made to fit, bit by bit.
//!
//! `VLP_GOLDEN_DIR` names the golden set; without it the copy in `tests/golden` is read, in which `.gz` files are unpacked
//! into a temporary folder first. Building a model from these values is tested elsewhere.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::Value as Json;
use tempfile::TempDir;
use vlp::formats::{
    Adapted, Change, Container, ElementType, FloatType, NamedTensor, StateDict, Target, Value, adapt, open,
    read_objects,
};

const WORDS: &str = "bert.embeddings.word_embeddings.weight";
const DECODER: &str = "cls.predictions.decoder.weight";

fn golden_dir() -> PathBuf {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    std::env::var_os("VLP_GOLDEN_DIR").map_or_else(|| PathBuf::from(beside), PathBuf::from)
}

/// A folder of the golden set, in which packed files appear unpacked.
struct Folder {
    path: PathBuf,
    unpacked: TempDir,
}

impl Folder {
    fn new(path: PathBuf) -> Self {
        Self { path, unpacked: TempDir::new().unwrap() }
    }

    /// Path of an existing file.
    fn file(&self, name: &str) -> PathBuf {
        let plain = self.path.join(name);
        if plain.exists() {
            return plain;
        }
        let packed = plain.with_added_extension("gz");
        let file = fs::File::open(&packed).unwrap_or_else(|e| panic!("{}: {e}", packed.display()));
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
        let path = self.unpacked.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn has(&self, name: &str) -> bool {
        self.path.join(name).exists() || self.path.join(name).with_added_extension("gz").exists()
    }

    fn json(&self, name: &str) -> Json {
        serde_json::from_slice(&fs::read(self.file(name)).unwrap()).unwrap()
    }

    /// Names of the files and folders without `.gz`, sorted.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.path).unwrap_or_else(|e| panic!("{}: {e}", self.path.display()));
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.iter_mut().for_each(|name| *name = name.trim_end_matches(".gz").to_owned());
        names.sort();
        names.dedup();
        names
    }
}

/// Shape and bits by name.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<u32>)>;

fn bits(tensors: Vec<NamedTensor>) -> Tensors {
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    tensors.into_iter().map(|t| (t.name, (t.shape, bits(t.values)))).collect()
}

/// Read by the `safetensors` crate alone.
fn reference(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let bits = |data: &[u8]| data.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect();
    file.iter()
        .map(|(name, view)| {
            assert_eq!(view.dtype(), safetensors::Dtype::F32, "{name}");
            (name.to_owned(), (view.shape().to_vec(), bits(view.data())))
        })
        .collect()
}

#[track_caller]
fn assert_same(what: &str, ours: &Tensors, theirs: &Tensors) {
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{what}: names");
    for (name, (shape, values)) in theirs {
        assert_eq!(&ours[name].0, shape, "{what}: shape of {name}");
        assert!(&ours[name].1 == values, "{what}: values of {name}");
    }
}

fn models(folder: &Folder) -> Vec<(String, StateDict)> {
    let names = folder.names();
    let names = names.iter().filter(|n| n.starts_with("model.") && n.ends_with(".bin"));
    let found: Vec<_> = names.map(|n| (n.clone(), open(&folder.file(n)).unwrap())).collect();
    assert!(!found.is_empty(), "no model.*.bin in {}", folder.path.display());
    found
}

#[test]
fn both_containers_hold_the_same_model() {
    let folder = Folder::new(golden_dir());
    let models = models(&folder);
    let (first_name, first) = &models[0];
    let expected = bits(first.read_all_f32().unwrap());
    for (name, model) in &models {
        let container = if name.contains("legacy") { Container::PytorchLegacy } else { Container::PytorchZip };
        assert_eq!(model.container(), container, "{name}");
        assert_eq!(model.skipped(), [], "{name}");
        assert_eq!(model.under(), None, "{name}");
        let names = |m: &StateDict| m.tensors().map(|(n, _)| n.to_owned()).collect::<Vec<_>>();
        assert_eq!(names(model), names(first), "{name} and {first_name}: order of the names");
        assert_same(name, &bits(model.read_all_f32().unwrap()), &expected);
    }
    if folder.has("model.safetensors") {
        let path = folder.file("model.safetensors");
        assert_same("model.safetensors", &expected, &reference(&path));
        assert_same("model.safetensors", &bits(open(&path).unwrap().read_all_f32().unwrap()), &expected);
    }
}

/// The first step of the golden optimiser has a learning rate of 0, so its parameters are those of the checkpoint.
#[test]
fn values_are_those_that_the_reference_trained_with() {
    let folder = Folder::new(golden_dir());
    let (_, model) = &models(&folder)[0];
    let optim = Folder::new(folder.path.join("optim"));
    assert_eq!(optim.json("optim.json")["steps"][0]["lr"].as_f64(), Some(0.0));
    let after = reference(&optim.file("params.safetensors"));
    let mut compared = 0;
    for (name, (shape, values)) in after.iter().filter_map(|(n, t)| Some((n.strip_prefix("step0.")?, t))) {
        assert_eq!(&model.get(name).unwrap().shape, shape, "{name}");
        let ours: Vec<u32> = model.read_f32(name).unwrap().into_iter().map(f32::to_bits).collect();
        assert!(&ours == values, "{name}");
        compared += 1;
    }
    assert!(compared > 0, "no step0.* in params.safetensors");
}

#[test]
fn names_and_shapes_are_those_of_the_configuration() {
    let folder = Folder::new(golden_dir());
    let config = folder.json("bert_config.json");
    let size = |key: &str| config[key].as_u64().unwrap() as usize;
    let (hidden, inner, words) = (size("hidden_size"), size("intermediate_size"), size("vocab_size"));
    for (file, model) in models(&folder) {
        let check = |name: &str, shape: &[usize]| {
            let info = model.get(name).unwrap_or_else(|| panic!("{file} has no {name}"));
            assert_eq!(info.shape, shape, "{file}: {name}");
            assert_eq!(info.element, ElementType::Float(FloatType::F32), "{file}: {name}");
        };
        check(WORDS, &[words, hidden]);
        check("bert.embeddings.position_embeddings.weight", &[size("max_position_embeddings"), hidden]);
        check("bert.embeddings.token_type_embeddings.weight", &[size("type_vocab_size"), hidden]);
        for layer in 0..size("num_hidden_layers") {
            let at = |part: &str| format!("bert.encoder.layer.{layer}.{part}");
            check(&at("attention.self.query.weight"), &[hidden, hidden]);
            check(&at("attention.output.LayerNorm.bias"), &[hidden]);
            check(&at("intermediate.dense.weight"), &[inner, hidden]);
            check(&at("output.dense.weight"), &[hidden, inner]);
        }
        check("cls.predictions.bias", &[words]);
        check(DECODER, &[words, hidden]);
        let (table, decoder) = (model.get(WORDS).unwrap(), model.get(DECODER).unwrap());
        assert_eq!((table.storage, table.offset), (decoder.storage, decoder.offset), "{file}: tied");
    }
}

/// Folders of the golden set that hold an old checkpoint and what it becomes.
fn old_checkpoints() -> Vec<Folder> {
    let root = Folder::new(golden_dir());
    let folders = root.names().into_iter().map(|name| Folder::new(root.path.join(name)));
    let found: Vec<Folder> = folders.filter(|f| f.path.is_dir() && f.has("adapt.json")).collect();
    assert!(!found.is_empty(), "no adapt.json below {}", root.path.display());
    found
}

fn adapted(folder: &Folder) -> Adapted {
    let info = folder.json("adapt.json");
    let size = |key: &str| info[key].as_u64().unwrap() as usize;
    let old = open(&folder.file("old.bin")).unwrap();
    let target = Target {
        hidden_size: old.get(WORDS).unwrap().shape[1],
        max_position_embeddings: size("max_position_embeddings"),
        type_vocab_size: size("type_vocab_size"),
        transforms: size("relax_projection").max(1),
        task_idx: info["task_idx"].as_u64().map(|task| task as usize),
    };
    adapt(old.read_all_f32().unwrap(), &target).unwrap()
}

#[test]
fn old_checkpoints_are_made_to_fit() {
    for folder in old_checkpoints() {
        let ours = bits(adapted(&folder).tensors);
        let what = folder.path.display().to_string();
        assert_same(&what, &ours, &reference(&folder.file("new.safetensors")));
        for (name, shape) in folder.json("adapt.json")["shapes"].as_object().unwrap() {
            let shape: Vec<usize> = serde_json::from_value(shape.clone()).unwrap();
            assert_eq!(ours[name].0, shape, "{what}: {name}");
        }
    }
}

#[test]
fn every_change_is_told() {
    for folder in old_checkpoints() {
        let old = open(&folder.file("old.bin")).unwrap();
        let adapted = adapted(&folder);
        let told = |name: &str| {
            adapted.changes.iter().any(|change| match change {
                Change::Renamed { to, .. } => to == name,
                Change::Segments { .. } => name.contains("token_type"),
                Change::Positions { .. } => name.contains("position"),
                Change::TransformTaken { name: n, .. } | Change::TransformRepeated { name: n, .. } => n == name,
                Change::WordsFromDecoder | Change::DecoderDiffers => name == WORDS,
            })
        };
        for tensor in &adapted.tensors {
            let same = old.get(&tensor.name).is_some_and(|info| info.shape == tensor.shape);
            assert_eq!(told(&tensor.name), !same, "{}: {}", folder.path.display(), tensor.name);
        }
    }
}

#[test]
fn questions_are_read_from_their_pickle() {
    let folder = Folder::new(golden_dir().join("preprocess"));
    let imdb = folder.names().into_iter().find(|n| n.starts_with("imdb_") && n.ends_with(".npy"));
    let pickle = read_objects(&folder.file(&imdb.expect("no imdb_*.npy"))).unwrap();
    let entries = pickle.root().items().unwrap();
    let golden = folder.json("answers.json");
    let golden = golden.as_array().unwrap();
    assert_eq!(entries.len(), golden.len() + 1);
    assert!(entries.get(0).unwrap().dict().unwrap().get("has_answer").and_then(|v| v.bool()).is_some());
    for (entry, golden) in entries.iter().skip(1).zip(golden) {
        let Value::Dict(entry) = entry else { panic!("an entry is {}", entry.kind()) };
        let text = |key: &str| entry.get(key).unwrap().text().unwrap();
        assert_eq!(text("image_name"), golden["image"].as_str().unwrap());
        assert_eq!(text("question_str"), golden["question"].as_str().unwrap());
        assert_eq!(entry.get("question_id").unwrap().int(), golden["question_id"].as_i64());
        let answers: Vec<&str> =
            entry.get("answers").unwrap().items().unwrap().iter().map(|v| v.text().unwrap()).collect();
        let expected: Vec<&str> = golden["answers"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
        assert_eq!(answers, expected);
    }
}
