//! Runs of two ranks: what they compute, how they are started, and what they leave.

mod demo_runs;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;
use demo_runs::{Folder, TINY, files};
use vlp::config::{self, Overrides, Settings};
use vlp::data::batch::BatchSource;
use vlp::data::karpathy::CaptionData;
use vlp::data::loader::{epoch_order, in_batches};
use vlp::data::region_store::RegionStore;
use vlp::data::sample::Sampler;
use vlp::data::tokenizer::Tokenizer;
use vlp::model::layers::mix;
use vlp::model::weights::{self, LoadOptions};
use vlp::model::{DataSizes, Vlp, device, host_floats};
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

/// Three steps of two batches, the last of one, through two blocks.
const ACCUMULATED: [&str; 4] = ["--set", "train.gradient_accumulation_steps=2", "--set", "model.num_hidden_layers=2"];

/// Each block is applied twice: to the image and to the text.
const SELF_CRITICAL: [&str; 12] = [
    "--set",
    "objective.kind=scst",
    "--set",
    "objective.s2s_prob=1.0",
    "--set",
    "objective.bi_prob=0.0",
    "--set",
    "objective.mask_prob=0.0",
    "--set",
    "objective.max_pred=0",
    "--set",
    "model.num_hidden_layers=2",
];

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("two.toml", TINY.replace("\"tiny\"\nseed", "\"two\"\nseed"));
    folder
}

fn model_of(run: &Path) -> PathBuf {
    run.join("checkpoints/epoch-0001/model.safetensors")
}

/// The settings of `two.toml` and of `more` options, with paths that hold from everywhere.
fn settings(folder: &Folder, more: &[&str]) -> Settings {
    let set = TWO.iter().chain(more).filter(|a| a.contains('=')).map(|a| (*a).to_string()).collect();
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

/// One process that accumulates the gradients of both ranks' batches before each step.
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
    let data = TrainingData::Captions(Arc::clone(&texts));
    let objective = Objective::new(settings, &data, &tokenizer);
    let mut model = initial(settings, &device).train();
    let batches_per_step = settings.train.gradient_accumulation_steps;
    let mut adam = BertAdam::new(&settings.train, 5usize.div_ceil(batches_per_step) as u64);
    let shares =
        [0, 1].map(|rank| in_batches(&epoch_order(texts.samples.len(), seed, 1, rank, 2), settings.train.batch_size));
    assert_eq!(shares[0].len(), 5);
    for step in (0..5).collect::<Vec<_>>().chunks(batches_per_step) {
        let mut gradients = HostGradients::new();
        for (rank, share) in shares.iter().enumerate() {
            for index in step {
                let batch = source.batch(1, &share[*index]).unwrap();
                // What is drawn at random follows from the place of a batch, as in the training loop.
                let key = mix(seed ^ mix((1 << 40) ^ ((*index as u64) << 12) ^ rank as u64));
                let loss = objective.loss(&model, &batch, 1, &device.clone().autodiff(), key);
                let mut backward = loss.total.div_scalar((2 * step.len()) as f64).backward();
                for (name, values) in bert_adam::host_gradients(&model, &mut backward) {
                    let sum: &mut Vec<f32> = gradients.entry(name).or_insert_with(|| vec![0.0; values.len()]);
                    sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
                }
            }
        }
        model = adam.step(model, gradients).0;
    }
    values(&model)
}

fn two_ranks_equal_one(device: &str, more: &[&str]) {
    let folder = folder();
    compared(&folder, "two", device, more);
}

/// The same of self-critical training, which goes on with what two ranks have learned before.
fn two_self_critical_ranks_equal_one(device: &str) {
    let folder = folder();
    folder.stdout(&[&TWO[..], &["--device", "flex", "--set", "model.num_hidden_layers=2"]].concat());
    let from = format!("init.from={}", model_of(&folder.run("two")).display());
    let more = [&SELF_CRITICAL[..], &["--set", "experiment.name=critical", "--set", &from]].concat();
    compared(&folder, "critical", device, &more);
}

fn compared(folder: &Folder, name: &str, device: &str, more: &[&str]) {
    let settings = settings(folder, more);
    let expected = one_rank(&settings, device);
    folder.stdout(&[&TWO[..], &["--device", device], more].concat());
    let found = weights::load_tensors(&model_of(&folder.run(name))).unwrap();
    let distance = |values: BTreeMap<String, Vec<f32>>| {
        let pairs = values.iter().flat_map(|(name, values)| found[name].iter().zip(values));
        pairs.map(|(a, b)| (a - b).abs()).fold(0f32, f32::max)
    };
    let apart = distance(expected);
    assert!(apart <= 1e-5, "a parameter differs by {apart}");
    let moved = distance(values(&initial(&settings, &device::open("flex").unwrap())));
    assert!(moved > 1e-4, "the parameters did not move: {moved}");
}

/// The model from which a training starts.
fn initial(settings: &Settings, device: &Device) -> Vlp {
    let sizes = DataSizes {
        vocabulary: Tokenizer::from_file(&settings.data.vocabulary, settings.data.cased).unwrap().vocab_size(),
        region_feature_size: settings.data.region_feature_size,
        num_region_classes: settings.data.num_region_classes,
        answers: 0,
    };
    let model = Vlp::new(&settings.model, sizes, settings.experiment.seed, device);
    match settings.init.from.as_str() {
        "" => model,
        from => weights::load(model, Path::new(from), LoadOptions::default()).unwrap().0,
    }
}

fn values(model: &Vlp) -> BTreeMap<String, Vec<f32>> {
    model.parameters().into_iter().map(|p| (p.name, host_floats(p.data))).collect()
}

#[test]
fn two_ranks_equal_one_that_accumulates_the_same_batches() {
    two_ranks_equal_one("flex", &[]);
}

#[test]
fn two_ranks_that_accumulate_equal_one() {
    two_ranks_equal_one("flex", &ACCUMULATED);
}

#[test]
fn two_ranks_of_self_critical_training_equal_one() {
    two_self_critical_ranks_equal_one("flex");
}

#[cfg(feature = "tch")]
#[test]
fn two_ranks_equal_one_that_accumulates_the_same_batches_on_the_tch_engine() {
    two_ranks_equal_one("tch-cpu", &[]);
}

#[cfg(feature = "tch")]
#[test]
fn two_ranks_that_accumulate_equal_one_on_the_tch_engine() {
    two_ranks_equal_one("tch-cpu", &ACCUMULATED);
}

#[cfg(feature = "tch")]
#[test]
fn two_ranks_of_self_critical_training_equal_one_on_the_tch_engine() {
    two_self_critical_ranks_equal_one("tch-cpu");
}

#[test]
fn ranks_can_be_started_by_hand() {
    let folder = folder();
    folder.stdout(&TWO);
    let expected = std::fs::read(model_of(&folder.run("two"))).unwrap();
    let mut settings = settings(&folder, &[]);
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
