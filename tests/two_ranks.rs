//! Runs of two ranks: what they compute, how they are started, and what they leave.

mod demo_runs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use demo_runs::{Folder, TINY, files};
use vlp::config::{self, Overrides, Settings};
use vlp::data::batch::BatchSource;
use vlp::data::karpathy::CaptionData;
use vlp::data::loader::{epoch_order, in_batches};
use vlp::data::region_store::RegionStore;
use vlp::data::sample::Sampler;
use vlp::data::tokenizer::Tokenizer;
use vlp::model::{DataSizes, Vlp, device, host_floats, weights};
use vlp::track::{Lock, RunDir, RunRecord};
use vlp::train::bert_adam::{self, BertAdam, HostGradients};
use vlp::train::step::{Objective, TrainingData};

/// Five steps of two times twenty samples, and nothing after them.
const TWO: [&str; 12] = [
    "run",
    "two.toml",
    "--set",
    "evaluate.splits=[]",
    "--set",
    "paper=[]",
    "--set",
    "train.epochs=1",
    "--set",
    "select.split=\"\"",
    "--set",
    "launch.world_size=2",
];

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("two.toml", TINY.replace("\"tiny\"\nseed", "\"two\"\nseed"));
    folder
}

fn model_of(run: &Path) -> PathBuf {
    run.join("checkpoints/epoch-0001/model.safetensors")
}

/// The settings of `two.toml`, with paths that hold from everywhere.
fn settings(folder: &Folder) -> Settings {
    let set = TWO.iter().filter(|a| a.contains('=')).map(|a| (*a).to_string()).collect();
    let overrides = Overrides { set, ..Overrides::default() };
    let mut settings = config::load(&folder.path("two.toml"), &overrides).unwrap().settings;
    let data = &mut settings.data;
    for path in
        [&mut data.annotations, &mut data.valid_images, &mut data.region_prefix, &mut data.boxes, &mut data.vocabulary]
    {
        *path = folder.path(path).display().to_string();
    }
    settings
}

/// One process that accumulates the gradients of both ranks' batches before each of the five steps.
fn one_rank(settings: &Settings, device: &str) -> BTreeMap<String, Vec<f32>> {
    let device = device::open(device).unwrap();
    let tokenizer = Tokenizer::from_file(&settings.data.vocabulary, settings.data.cased).unwrap();
    let texts = Arc::new(CaptionData::load(&settings.data, &settings.data.train_splits, &tokenizer).unwrap());
    let seed = settings.experiment.seed;
    let source = BatchSource {
        data: Arc::clone(&texts),
        store: Arc::new(RegionStore::open(&settings.data).unwrap()),
        sampler: Sampler::new(&settings.data, &settings.objective, seed, &tokenizer),
    };
    let sizes = DataSizes {
        vocabulary: tokenizer.vocab_size(),
        region_feature_size: settings.data.region_feature_size,
        num_region_classes: settings.data.num_region_classes,
        answers: 0,
    };
    let data = TrainingData::Captions(Arc::clone(&texts));
    let objective = Objective::new(settings, &data, &tokenizer);
    let mut model = Vlp::new(&settings.model, sizes, seed, &device).train();
    let mut adam = BertAdam::new(&settings.train, 5);
    let shares =
        [0, 1].map(|rank| in_batches(&epoch_order(texts.samples.len(), seed, 1, rank, 2), settings.train.batch_size));
    assert_eq!(shares[0].len(), 5);
    for step in 0..5 {
        let mut gradients = HostGradients::new();
        for share in &shares {
            let batch = source.batch(1, &share[step]).unwrap();
            let loss = objective.loss(&model, &batch, 1, &device.clone().autodiff(), 0);
            let mut backward = loss.total.div_scalar(2.0).backward();
            for (name, values) in bert_adam::host_gradients(&model, &mut backward) {
                let sum: &mut Vec<f32> = gradients.entry(name).or_insert_with(|| vec![0.0; values.len()]);
                sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            }
        }
        model = adam.step(model, gradients).0;
    }
    model.parameters().into_iter().map(|p| (p.name, host_floats(p.data))).collect()
}

fn two_ranks_equal_one(device: &str) {
    let folder = folder();
    let expected = one_rank(&settings(&folder), device);
    folder.stdout(&[&TWO[..], &["--device", device]].concat());
    let found = weights::load_tensors(&model_of(&folder.run("two"))).unwrap();
    let mut largest = 0f32;
    for (name, expected) in &expected {
        for (found, expected) in found[name].iter().zip(expected) {
            largest = largest.max((found - expected).abs());
        }
    }
    assert!(largest <= 1e-5, "a parameter differs by {largest}");
    let moved = one_step_away(&folder, &found);
    assert!(moved > 1e-4, "the parameters did not move: {moved}");
}

/// Largest difference of a parameter from its initial value.
fn one_step_away(folder: &Folder, found: &BTreeMap<String, Vec<f32>>) -> f32 {
    let settings = settings(folder);
    let tokenizer = Tokenizer::from_file(&settings.data.vocabulary, settings.data.cased).unwrap();
    let sizes = DataSizes {
        vocabulary: tokenizer.vocab_size(),
        region_feature_size: settings.data.region_feature_size,
        num_region_classes: settings.data.num_region_classes,
        answers: 0,
    };
    let model = Vlp::new(&settings.model, sizes, settings.experiment.seed, &device::open("flex").unwrap());
    let initial = model.parameters().into_iter().map(|p| (p.name, host_floats(p.data)));
    let distance =
        |name: &str, values: &[f32]| found[name].iter().zip(values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    initial.map(|(name, values)| distance(&name, &values)).fold(0.0, f32::max)
}

#[test]
fn two_ranks_equal_one_that_accumulates_the_same_batches() {
    two_ranks_equal_one("flex");
}

#[cfg(feature = "tch")]
#[test]
fn two_ranks_equal_one_that_accumulates_the_same_batches_on_the_tch_engine() {
    two_ranks_equal_one("tch-cpu");
}

#[test]
fn ranks_can_be_started_by_hand() {
    let folder = folder();
    folder.stdout(&TWO);
    let expected = std::fs::read(model_of(&folder.run("two"))).unwrap();
    let mut settings = settings(&folder);
    settings.experiment.name = "by_hand".into();
    let lock = Lock::new(&folder.path("two.toml"), &settings, "by hand", None);
    let run = RunDir::create(&folder.path("runs"), &lock).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let start = |rank: &str, world_size: &str| {
        let mut command = folder.command(&["worker", "--run", run.path().to_str().unwrap()]);
        command.env("RANK", rank).env("WORLD_SIZE", world_size).env("MASTER_ADDR", "127.0.0.1");
        command.env("MASTER_PORT", &port).env("LOCAL_RANK", rank);
        command
    };
    let mut other = start("1", "2").spawn().unwrap();
    let first = start("0", "2").output().unwrap();
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    assert!(other.wait().unwrap().success());
    assert!(std::fs::read(model_of(run.path())).unwrap() == expected, "the model differs from the launcher's");
    assert_eq!(RunRecord::read(&run).unwrap().condition.to_string(), "finished");
    let wrong = start("0", "3").output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(wrong.stderr).unwrap(),
        "error: WORLD_SIZE is 3, but this run has `launch.world_size` = 2\n  help: start 2 processes with WORLD_SIZE=2; \
         `vlp run` does\n"
    );
}

#[test]
fn checkpoints_within_an_epoch_are_overtaken_by_those_of_epochs() {
    let folder = folder();
    folder.stdout(&[&TWO[..], &["--set", "train.checkpoint_every_steps=2"]].concat());
    let run = folder.run("two");
    assert_eq!(demo_runs::folders(&run.join("checkpoints")), [run.join("checkpoints/epoch-0001")]);
    let journal = std::fs::read_to_string(run.join("journal.jsonl")).unwrap();
    for what in ["checkpoint of step 2", "checkpoint of step 4", "checkpoint of epoch 1"] {
        assert!(journal.contains(what), "{what}: {journal}");
    }
    assert!(files(&run.join("ranks")).contains(&"1.log".to_owned()));
}

#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_it_used() {
    let folder = folder();
    let args = [&TWO[..], &["--set", "train.epochs=3"]].concat();
    folder.stdout(&args);
    let run = folder.run("two");
    let read = |name: &str| std::fs::read(run.join("checkpoints/epoch-0003").join(name)).unwrap();
    let expected = ["model.safetensors", "optimizer.safetensors", "state.json"].map(read);
    // As if the machine had gone down after the third epoch, with a page of its checkpoint lost.
    let journal = std::fs::read_to_string(run.join("journal.jsonl")).unwrap();
    let unfinished: String =
        journal.lines().filter(|line| !line.contains("\"finished\"")).map(|line| format!("{line}\n")).collect();
    std::fs::write(run.join("journal.jsonl"), unfinished).unwrap();
    let damaged = run.join("checkpoints/epoch-0003/model.safetensors");
    let mut bytes = std::fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    folder.stdout(&args);
    assert!(["model.safetensors", "optimizer.safetensors", "state.json"].map(read) == expected);
    let log = std::fs::read_to_string(run.join("ranks/0.log")).unwrap();
    assert!(log.contains("checkpoints/epoch-0003 is not usable, trying the one before: "), "{log}");
    assert!(log.contains("is damaged: its SHA-256 is "), "{log}");
}
