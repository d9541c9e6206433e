//! What is timed: sizes, random weights, batches of made-up regions and captions.
//!
//! As in the reference's timings, captions have 9 to 13 word pieces, three of them (or of the closing `[SEP]`) masked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::super::context::{Failure, exit};
use super::flops::Flops;
use crate::config::{ObjectiveKind, Settings};
use crate::data::batch::Batch;
use crate::data::karpathy::CaptionData;
use crate::data::random::Draw;
use crate::data::sample::{Choices, Example, Layout, MaskMode};
use crate::data::tokenizer::Tokenizer;
use crate::decode::Prompt;
use crate::model::inputs::region_table;
use crate::model::{DataSizes, Vlp};
use crate::train::step::TrainingData;

/// Masked words per sample.
pub const MASKED: usize = 3;

/// Sizes of network, regions and vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Size {
    /// Those of the paper: BERT-base, 100 regions of 2048 numbers, 28,996 words.
    Base,
    /// Two narrow layers: shows in a second that everything runs.
    Tiny,
}

impl Size {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Tiny => "tiny",
        }
    }

    /// Words of the vocabulary.
    fn vocabulary(self) -> usize {
        match self {
            Self::Base => 28_996,
            Self::Tiny => 200,
        }
    }

    fn settings(self) -> Settings {
        let mut settings = Settings::default();
        settings.train.learning_rate = 3e-5;
        if self == Self::Tiny {
            let model = &mut settings.model;
            (model.hidden_size, model.num_hidden_layers) = (32, 2);
            (model.num_attention_heads, model.intermediate_size) = (2, 64);
            let data = &mut settings.data;
            (data.num_regions, data.region_feature_size, data.num_region_classes) = (5, 16, 7);
        }
        settings
    }
}

/// Everything that does not depend on the device.
#[derive(Debug)]
pub struct World {
    /// What they are called.
    pub size: Size,
    /// Sizes; the objective is that of the masked words.
    pub settings: Settings,
    /// A vocabulary of control tokens and made-up words.
    pub tokenizer: Tokenizer,
    /// Places of a sequence.
    pub layout: Layout,
    /// No captions: nothing that is timed reads them.
    pub data: TrainingData,
}

impl World {
    /// Makes the vocabulary.
    pub fn new(size: Size) -> Result<Self, Failure> {
        let folder = Scratch::new()?;
        let path = folder.path().join("vocab.txt");
        let words: Vec<String> = (0..size.vocabulary()).map(word).collect();
        std::fs::write(&path, words.join("\n")).map_err(|error| unwritable(&path, &error))?;
        let tokenizer = Tokenizer::from_file(&path, true).map_err(|e| Failure::new(exit::DATA, e))?;
        let settings = size.settings();
        let layout = Layout::new(&settings.data, &tokenizer);
        let data = TrainingData::Captions(Arc::new(CaptionData { images: Vec::new(), samples: Vec::new() }));
        Ok(Self { size, settings, tokenizer, layout, data })
    }

    /// The settings with another objective.
    pub fn with_objective(&self, kind: ObjectiveKind) -> Settings {
        let mut settings = self.settings.clone();
        settings.objective.kind = kind;
        settings
    }

    /// Control tokens.
    pub fn prompt(&self) -> Prompt {
        let Layout { cls, sep, mask, pad, .. } = self.layout;
        Prompt { cls, sep, mask, pad }
    }

    /// Operations of this network.
    pub fn flops(&self) -> Flops {
        Flops::new(&self.settings.model, self.sizes(), self.layout.num_regions)
    }

    /// A model in training form.
    pub fn model(&self, device: &Device) -> Vlp {
        Vlp::new(&self.settings.model, self.sizes(), 0, device).train()
    }

    fn sizes(&self) -> DataSizes {
        let data = &self.settings.data;
        DataSizes {
            vocabulary: self.tokenizer.vocab_size(),
            region_feature_size: data.region_feature_size,
            num_region_classes: data.num_region_classes,
            answers: 0,
        }
    }

    /// A training batch, the same for the same size. With `masked` words a sample.
    pub fn batch(&self, size: usize, masked: usize) -> Batch {
        let mut draw = Draw::new("bench", &[size as u64]);
        let start = self.layout.text_start();
        let control = self.layout.mask as usize + 1;
        let examples: Vec<Example> = (0..size)
            .map(|_| {
                let length = 9 + draw.below(5);
                let words = self.tokenizer.vocab_size() - control;
                let pieces: Vec<u32> = (0..length).map(|_| (control + draw.below(words)) as u32).collect();
                let mut choices = Choices::none(MaskMode::SequenceToSequence);
                choices.masked_positions = draw.choose((start..=start + length).collect(), masked);
                choices.replacements = vec![self.layout.mask; masked];
                self.layout.build(&pieces, &choices)
            })
            .collect();
        let mut batch = Batch::from_examples(&examples, self.layout.num_regions, masked, self.layout.pad);
        let data = &self.settings.data;
        let rows = size * data.num_regions;
        batch.features = numbers(&mut draw, rows * data.region_feature_size, true);
        batch.positions = numbers(&mut draw, rows * (6 + data.num_region_classes), false);
        batch.samples = (0..size).collect();
        batch
    }

    /// Features `[B, R, F]` and positions `[B, R, 6 + C]` of a batch, on `device`.
    pub fn regions(&self, batch: &Batch, device: &Device) -> [Tensor<3>; 2] {
        [&batch.features, &batch.positions].map(|values| region_table(values, batch.size, batch.num_regions, device))
    }
}

/// The words of the vocabulary by id; control tokens stand where BERT's do.
fn word(id: usize) -> String {
    match id {
        0 => "[PAD]".into(),
        100 => "[UNK]".into(),
        101 => "[CLS]".into(),
        102 => "[SEP]".into(),
        103 => "[MASK]".into(),
        id => format!("word{id}"),
    }
}

/// Numbers of mean 0 and variance 1 (sums of four uniform ones), those below 0 cut off where `positive`.
pub fn numbers(draw: &mut Draw, count: usize, positive: bool) -> Vec<f32> {
    const STEPS: usize = 1 << 16;
    let uniform = |bits: usize| bits as f32 / STEPS as f32 - 0.5;
    let scale = 3f32.sqrt();
    let number = |_| {
        let bits = draw.below(usize::MAX);
        let sum: f32 = (0..4).map(|part| uniform((bits >> (16 * part)) % STEPS)).sum();
        if positive { (sum * scale).max(0.0) } else { sum * scale }
    };
    (0..count).map(number).collect()
}

/// A temporary folder, removed at the end.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes it below the system's folder for such.
    pub fn new() -> Result<Self, Failure> {
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("vlp-bench-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| unwritable(&path, &error))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!("cannot remove `{}`: {error}", self.0.display());
        }
    }
}

/// A temporary file cannot be written.
pub fn unwritable(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    let help = "set TMPDIR to a folder with room for temporary files";
    Failure::new(exit::DATA, format!("cannot write `{}`: {error}\n  help: {help}", path.display()))
}
