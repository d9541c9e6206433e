//! What `vlp convert` and a training write is loaded by PyTorch itself, into a network of the published names.
//!
//! `VLP_TORCH_PYTHON` names a Python with `torch` and `safetensors`; where it is not set, the parts that need it are
//! skipped, and say so. That names, shapes and values survive is compared without PyTorch in `golden_weights.rs`.

mod demo_runs;
#[path = "support/mod.rs"]
mod support;
#[path = "support/model.rs"]
mod world;

use std::path::Path;
use std::process::Command;

use demo_runs::Folder;
use support::{golden_dir, read};
use vlp::formats;

/// Builds modules under the published names with the sizes given, ties the output matrix to the word embedding, loads the
/// file with `strict=True`, and prints each entry's name, shape, sum and last value.
const LOAD: &str = r#"
import json, sys
import torch
from torch import nn
from safetensors.torch import load_file

path, pickled, c = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
H, I, V, F = c["hidden"], c["inner"], c["words"], c["features"]


def branch(**parts):
    module = nn.Module()
    for name, part in parts.items():
        setattr(module, name, part)
    return module


def norm():
    return nn.LayerNorm(H, eps=1e-5)


def layer():
    projections = branch(query=nn.Linear(H, H), key=nn.Linear(H, H), value=nn.Linear(H, H))
    after = branch(dense=nn.Linear(H, H), LayerNorm=norm())
    return branch(
        attention=branch(self=projections, output=after),
        intermediate=branch(dense=nn.Linear(H, I)),
        output=branch(dense=nn.Linear(I, H), LayerNorm=norm()),
    )


tables = branch(
    word_embeddings=nn.Embedding(V, H),
    position_embeddings=nn.Embedding(c["positions"], H),
    token_type_embeddings=nn.Embedding(c["types"], H),
    LayerNorm=norm(),
)
encoder = branch(layer=nn.ModuleList(layer() for _ in range(c["layers"])))
words = branch(transform=branch(dense=nn.Linear(H, H), LayerNorm=norm()), decoder=nn.Linear(H, V, bias=False))
words.bias = nn.Parameter(torch.zeros(V))
words.decoder.weight = tables.word_embeddings.weight
model = branch(
    bert=branch(embeddings=tables, encoder=encoder, pooler=branch(dense=nn.Linear(H, H))),
    cls=branch(predictions=words),
    vis_embed=nn.Sequential(nn.Linear(F, F), nn.ReLU(), nn.Linear(F, H)),
    vis_pe_embed=nn.Sequential(nn.Linear(c["geometry"], H), nn.ReLU()),
)
if c["answers"]:
    model.ans_classifier = nn.Sequential(nn.Linear(H, 2 * H), nn.ReLU(), nn.Linear(2 * H, c["answers"]))

state = load_file(path)
model.load_state_dict(state, strict=True)
if pickled:
    theirs = torch.load(pickled, map_location="cpu", weights_only=True)
    assert set(theirs) == set(state), set(theirs) ^ set(state)
    for name, tensor in theirs.items():
        assert tensor.dtype == state[name].dtype and torch.equal(tensor, state[name]), name
for name, tensor in model.state_dict().items():
    flat = tensor.flatten()
    print(json.dumps([name, list(tensor.shape), flat.double().sum().item(), flat[-1].item()]))
"#;

/// Loads `path` in PyTorch and compares what it then holds with what we read; `pickled` is compared value by value there.
fn pytorch_loads(path: &Path, pickled: Option<&Path>) {
    let Some(python) = std::env::var_os("VLP_TORCH_PYTHON") else {
        eprintln!(
            "SKIPPED: {} was not loaded by PyTorch; set VLP_TORCH_PYTHON to a python with torch and safetensors",
            path.display()
        );
        return;
    };
    let file = formats::open(path).unwrap();
    let length = |name: &str, axis: usize| file.get(name).map_or(0, |info| info.shape[axis]);
    let inner = |layer: usize| format!("bert.encoder.layer.{layer}.intermediate.dense.weight");
    let sizes = serde_json::json!({
        "hidden": length("bert.embeddings.word_embeddings.weight", 1),
        "words": length("bert.embeddings.word_embeddings.weight", 0),
        "positions": length("bert.embeddings.position_embeddings.weight", 0),
        "types": length("bert.embeddings.token_type_embeddings.weight", 0),
        "layers": (0..).take_while(|i| file.get(&inner(*i)).is_some()).count(),
        "inner": length(&inner(0), 0),
        "features": length("vis_embed.0.weight", 1),
        "geometry": length("vis_pe_embed.0.weight", 1),
        "answers": length("ans_classifier.2.weight", 0),
    });
    let run = Command::new(&python)
        .args(["-c", LOAD])
        .args([path.as_os_str(), pickled.map(Path::as_os_str).unwrap_or_default()])
        .arg(sizes.to_string())
        .output()
        .unwrap_or_else(|e| panic!("VLP_TORCH_PYTHON={}: {e}", python.display()));
    assert!(run.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&run.stderr));
    let mut entries = 0;
    for line in String::from_utf8(run.stdout).unwrap().lines() {
        let (name, shape, sum, last): (String, Vec<usize>, f64, f32) = serde_json::from_str(line).unwrap();
        let ours = file.read_f32(&name).unwrap();
        assert_eq!(file.get(&name).unwrap().shape, shape, "{name}");
        assert_eq!(ours.last(), Some(&last), "{name}");
        let (total, size): (f64, f64) =
            ours.iter().map(|v| f64::from(*v)).fold((0.0, 0.0), |(sum, size), v| (sum + v, size + v.abs()));
        assert!((total - sum).abs() <= 1e-12 * size, "{name}: sum {total} in Rust, {sum} in PyTorch");
        entries += 1;
    }
    assert_eq!(entries, file.tensors().len());
}

#[test]
fn pytorch_loads_what_convert_writes() {
    let folder = tempfile::tempdir().unwrap();
    for name in world::checkpoints(&golden_dir()) {
        let (from, to) = (folder.path().join(&name), folder.path().join(format!("{name}.safetensors")));
        std::fs::write(&from, read(&golden_dir().join(&name))).unwrap();
        vlp::model::weights::convert(&from, &to).unwrap();
        pytorch_loads(&to, Some(&from));
    }
}

#[test]
fn pytorch_loads_the_checkpoint_of_a_training() {
    let folder = Folder::new();
    folder.stdout(&["run", "tiny.toml", "--set", "evaluate.splits=[]", "--set", "paper=[]"]);
    pytorch_loads(&folder.run("tiny").join("checkpoints/epoch-0002/model.safetensors"), None);
}
