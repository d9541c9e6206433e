//! How long the caption metrics take for 5,000 images of five references each: `cargo bench --bench metrics`.
//!
//! Plain timings with medians, as a benchmark framework would bring dependencies whose features make burn compile twice. The
//! captions are those of `tests/golden/metrics/captions`, or of `$VLP_GOLDEN_DIR/metrics/captions`: the largest corpus,
//! gone round again until there are 5,000 images. METEOR is timed where its data are (`VLP_METEOR_DIR`, else
//! `~/.cache/vlp/meteor`); else a line says that it is not.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use flate2::read::MultiGzDecoder;
use serde_json::Value;
use vlp::metrics::cider::self_critical;
use vlp::metrics::meteor::Meteor;
use vlp::metrics::meteor::resources::Files;
use vlp::metrics::{CaptionEntry, score_captions, score_tokenized, tokenize_captions};

const IMAGES: usize = 5000;
const ROUNDS: usize = 7;

fn main() {
    // `cargo test --benches` starts benchmarks too; then one round shows that they run.
    let rounds = if std::env::args().any(|arg| arg == "--bench") { ROUNDS } else { 1 };
    let (name, images) = images();
    let references: usize = images.iter().map(|image| image.references.len()).sum();
    println!("{} images, {references} references, from {name}; median of {rounds}", images.len());
    let tokenized = tokenize_captions(&images);
    report("tokenizer", rounds, || tokenize_captions(&images).len());
    report("BLEU, ROUGE-L, CIDEr of tokens", rounds, || score_tokenized(&tokenized).unwrap().per_image.len());
    report("tokenizer, BLEU, ROUGE-L, CIDEr", rounds, || score_captions(&images).unwrap().per_image.len());
    let mut numbers = HashMap::new();
    let mut row = |caption: &str| -> Vec<u32> {
        let mut number = |word: &str| {
            let next = numbers.len() as u32 + 1;
            *numbers.entry(word.to_owned()).or_insert(next)
        };
        let words = caption.split(' ').map(&mut number).chain([0]);
        words.collect()
    };
    let of = |side: fn(&CaptionEntry) -> &str| tokenized[..128].iter().map(side).collect::<Vec<_>>();
    let captions = of(|image| &image.candidate);
    let references = of(|image| &image.references[0]);
    let captions: Vec<Vec<u32>> = captions.into_iter().map(&mut row).collect();
    let references: Vec<Vec<u32>> = references.into_iter().map(&mut row).collect();
    let rewards = || self_critical(&captions, &references, &references, 0).reward.len();
    report("CIDEr rewards of 128 captions", rounds, rewards);
    meteor(rounds, &tokenized);
}

fn meteor(rounds: usize, tokenized: &[CaptionEntry]) {
    let cache = || variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")));
    let folder = variable("VLP_METEOR_DIR").or_else(|| Some(cache()?.join("vlp/meteor")));
    let Some(folder) = folder.filter(|folder| Files::find(folder).is_ok()) else {
        return println!("METEOR is not timed: no data; run scripts/meteor.sh, or set VLP_METEOR_DIR");
    };
    let index = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let open = || Meteor::open(&folder, index).unwrap_or_else(|error| panic!("{error}"));
    drop(open()); // compiles the paraphrases where that was not done yet
    let pairs: Vec<(&str, Vec<&str>)> = tokenized
        .iter()
        .map(|image| (image.candidate.as_str(), image.references.iter().map(String::as_str).collect()))
        .collect();
    report("METEOR, opening its data", rounds, || open().language().function_words.len());
    let meteor = open();
    report("METEOR of tokens", rounds, || meteor.score(&pairs).per_image.len());
}

/// Prints the median time of `work`, in seconds.
fn report<T>(name: &str, rounds: usize, mut work: impl FnMut() -> T) {
    let mut seconds: Vec<f64> = (0..rounds)
        .map(|_| {
            let started = Instant::now();
            std::hint::black_box(work());
            started.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    println!("{name:<34} {:>8.4} s  ({:.4} to {:.4})", seconds[rounds / 2], seconds[0], seconds[rounds - 1]);
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The largest golden corpus, in [`IMAGES`] images; from the second round on, each image has the next one's candidate.
fn images() -> (String, Vec<CaptionEntry>) {
    let root = variable("VLP_GOLDEN_DIR").unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"));
    let folder = root.join("metrics/captions");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.to_string_lossy().ends_with(".json.gz"));
    paths.sort();
    let largest = paths.iter().map(|path| corpus(path)).max_by_key(|(_, images)| images.len());
    let (name, corpus) = largest.unwrap_or_else(|| panic!("{} has no *.json.gz", folder.display()));
    let images = (0..IMAGES).map(|at| {
        let (round, at) = (at / corpus.len(), at % corpus.len());
        let candidate = corpus[(at + round) % corpus.len()].candidate.clone();
        CaptionEntry { candidate, ..corpus[at].clone() }
    });
    (name, images.collect())
}

fn corpus(path: &Path) -> (String, Vec<CaptionEntry>) {
    let mut text = String::new();
    MultiGzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let entry = |(at, image): (usize, &Value)| CaptionEntry {
        id: at.to_string(),
        candidate: text(&image["candidate"]),
        references: image["references"].as_array().unwrap().iter().map(text).collect(),
    };
    let images = value["images"].as_array().map(|images| images.iter().enumerate().map(entry).collect());
    (path.file_name().unwrap().to_string_lossy().into_owned(), images.unwrap_or_default())
}
