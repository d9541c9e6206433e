//! How much memory a training takes at most: a pure function of settings and facts, held against measured peaks in the tests below.
//!
//! Letters: B batch, R regions, X text places, T = R + 2 + X positions, H hidden, I intermediate, A heads, L blocks, F feature
//! numbers, C classes, V words, P masked places, W = X words of a sampled caption, S = R + 2; k bytes of a number of `train.precision`.
//!
//! **Kept for the backward pass.** A block of n rows that look at K places each, with the steps of `model::fused` (on the CPU in fp32 without
//! `train.gradient_checkpointing`):
//!
//! * 4·n·(6 H + 2 I): its input, query, key, value, context, input of the inner layer; the inner layer before and after its GELU;
//! * n·(4·(2 H + 2) + 2 H): of both normalisations the normalised values and 1/σ of each row; two dropout masks, a byte per value;
//! * A·n·K·(4 + 1): the softmax and a dropout mask;
//! * 4·3·H²: the weights of query, key and value one below the other, in blocks that look at their own rows only (`masked`, `vqa`).
//!
//! With composed operations, everywhere else (on `tch-cuda` attention in one call, `model::attention`, keeps less than its line says; how much
//! depends on the kernel, and has not been measured):
//!
//! * k·n·(6 H + 2 I): as above;
//! * 4·n·6 H: of both normalisations the centred and the normalised values; two dropout masks;
//! * A·n·K·(3·4 + k): scores less their maximum, exponentials, dropout mask; the weights that are left.
//!
//! `train.gradient_checkpointing` computes the inner layer behind its GELU (k·n·I) and one of the three (4·A·n·K) again.
//!
//! With m bytes of a mask's value, 1 with fused steps and 4 else: regions B·R·(k·(3 F + 6 + C + 2 H) + m·2 H): features, the inner layer before and after its
//! ReLU; geometry and classes; what both ReLUs before the sum read; masks. Embeddings, per row: (4 + m)·H with fused steps, 4·3 H else. Word head, per place:
//! 4·(V + 4 H) with fused steps, 4·(V + 5 H) else.
//!
//! * `masked`: L − 1 blocks of B·T rows, K = T; the last at the P masked places only, with input, keys and values of all, k·3 H·B·T; the word head at P.
//! * `vqa`: the same with 2 places, `[CLS]` and `[SEP]`, and no word head.
//! * `scst`: the image part, L − 1 blocks of B·S rows, K = S, and input, keys and values of the last; the text, 2 W rows per sample in L − 1 blocks and W in
//!   the last, K = S + 2 W, whose keys and values are copied behind those of the image (k·2 H·B·K in place of the own k·2 H·n);
//!   the word head at W places.
//!
//! **The peak** is the larger of two moments, each with weights (4 bytes per parameter) and moments (8; on a GPU only where the optimiser's state is there):
//!
//! * the backward pass begins: everything that is kept, weights converted to a low type, and twice 4·V·H (gradient of the word embedding, and a
//!   copy of it);
//! * the gradients are there, 4 bytes per parameter, and the optimiser takes them. Twice 4·V·H on top: on the CPU the holes that the gradient of the word
//!   embedding and its copy left, which nothing else fits in; for a GPU its values and the new ones. Where its state is on the device, three times 4 bytes per
//!   parameter (flat values, clipped gradients, and what is worked on). With `scst`, which goes through the blocks twice, the gradients of the image
//!   part are added at the end only: until then 4 bytes once more per weight of L − 1 blocks. On the CPU that, with 4·V·H, counts where it is more than
//!   what the optimiser takes; on a GPU it is added.
//!
//! The copy of the weights with which `scst` writes its words is gone before the text is computed. Where LibTorch's CPU packs it, the holes that it leaves are
//! too small for most of what comes then: 4 bytes per weight of the blocks and of the word head stay in the process to the end.
//!
//! On the CPU come on top: the program, and what the allocator, which gives nothing back, holds in the holes between kept values, a share of what was kept
//! for the backward pass, measured for each engine; and the regions of a batch, 4·B·R·(F + 6 + C), for each batch that the loader has ready. On a GPU nothing is
//! added: what the driver and the allocator take there has not been measured. Nor has `vqa`, which `vlp bench` does not time.

use super::plan::Facts;
use crate::config::{ObjectiveKind, Precision, Settings, gpus_of};

/// Bytes of a 32-bit float.
const FLOAT: u64 = 4;

const MIB: u64 = 1 << 20;

/// Estimated peak of one process in training, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Weights, their gradients where they are at the peak, moments.
    pub state_bytes: u64,
    /// Values kept for the backward pass, and those that are worked on.
    pub activation_bytes: u64,
    /// The program, holes of the allocator, batches in waiting.
    pub process_bytes: u64,
}

impl Memory {
    /// All together.
    pub fn total_bytes(&self) -> u64 {
        self.state_bytes + self.activation_bytes + self.process_bytes
    }
}

/// What an engine takes besides the numbers that are computed with; measured (see the tests).
#[derive(Debug, Clone, Copy)]
struct Engine {
    /// The program with its libraries.
    program: u64,
    /// Hundredths of the kept values that are held in holes when the backward pass begins, and when the optimiser works.
    holes: [u64; 2],
}

impl Engine {
    fn of(device: &str, fused: bool, checkpointing: bool) -> Self {
        if !gpus_of(device, 1).is_empty() {
            return Self { program: 0, holes: [0, 0] };
        }
        let libtorch = device == "tch-cpu";
        let holes = match (libtorch, fused, checkpointing) {
            (true, true, _) => [26, 26],
            (true, false, false) => [26, 80],
            (true, false, true) => [70, 80],
            (false, true, _) => [15, 5],
            (false, false, false) => [0, 45],
            (false, false, true) => [10, 20],
        };
        Self { program: if libtorch { 150 * MIB } else { 30 * MIB }, holes }
    }
}

/// The peak of one process: see the head of this file. Batches are taken to be full, with texts of `data.max_text_length`.
pub fn memory(settings: &Settings, facts: &Facts) -> Memory {
    let waiting = settings.data.prefetch + settings.data.workers + 1;
    peak(settings, facts, settings.data.max_text_length + 1, waiting)
}

/// The largest `train.batch_size` whose estimated memory is at most nine tenths of `bytes`, and at most the one asked for; none
/// when not even one sample fits.
pub fn largest_batch(settings: &Settings, facts: &Facts, bytes: u64) -> Option<usize> {
    let fits = |batch: usize| {
        let mut settings = settings.clone();
        settings.train.batch_size = batch;
        memory(&settings, facts).total_bytes() <= bytes / 10 * 9
    };
    // The estimate grows with the batch: those that fit are 1 to the answer.
    let (mut most, mut too_many) = (0, settings.train.batch_size + 1);
    while most + 1 < too_many {
        let middle = most + (too_many - most) / 2;
        if fits(middle) { most = middle } else { too_many = middle }
    }
    (most > 0).then_some(most)
}

/// The peak with `text` places for each text and so many batches of regions in memory.
fn peak(settings: &Settings, facts: &Facts, text: usize, batches: usize) -> Memory {
    let device = facts.device.as_str();
    let gpu = !gpus_of(device, 1).is_empty();
    let sizes = Sizes::new(settings, facts, text);
    let engine = Engine::of(device, sizes.fused, sizes.checkpointing);
    let scst = settings.objective.kind == ObjectiveKind::Scst;

    let kept = sizes.kept(settings);
    let table = FLOAT * sizes.vocabulary * sizes.hidden;
    let weights = FLOAT * facts.parameters;
    let on_device = settings.train.optimizer_memory.on_device(gpu);
    let moments = if on_device || !gpu { 2 * weights } else { 0 };
    let again = if scst { FLOAT * sizes.blocks_before_last() * sizes.block_weights() } else { 0 };
    let packed = if scst && sizes.number == FLOAT && device == "tch-cpu" { FLOAT * sizes.multiplied() } else { 0 };
    let begins = [weights + moments, kept + sizes.converted() + 2 * table, kept * engine.holes[0] / 100 + packed];
    let work = match (on_device, gpu) {
        (true, _) => 3 * weights + again,
        (false, true) => 2 * table + again,
        (false, false) => (2 * table).max(if scst { again + table } else { 0 }),
    };
    let updates = [2 * weights + moments, work, kept * engine.holes[1] / 100 + packed];
    let [state_bytes, activation_bytes, holes] =
        if begins.iter().sum::<u64>() > updates.iter().sum() { begins } else { updates };
    let region = sizes.features + 6 + sizes.classes;
    let loaded = if gpu { 0 } else { batches as u64 * FLOAT * sizes.samples * sizes.regions * region };
    Memory { state_bytes, activation_bytes, process_bytes: engine.program + holes + loaded }
}

/// The letters of the head.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    samples: u64,
    regions: u64,
    text: u64,
    hidden: u64,
    inner: u64,
    heads: u64,
    blocks: u64,
    features: u64,
    classes: u64,
    vocabulary: u64,
    /// k.
    number: u64,
    checkpointing: bool,
    /// Whether the steps of `model::fused` are computed.
    fused: bool,
}

impl Sizes {
    fn new(settings: &Settings, facts: &Facts, text: usize) -> Self {
        let (model, data) = (&settings.model, &settings.data);
        let wide = |n: usize| n as u64;
        let (fp32, checkpointing) =
            (settings.train.precision == Precision::Fp32, settings.train.gradient_checkpointing);
        Self {
            samples: wide(settings.train.batch_size),
            regions: wide(data.num_regions),
            text: wide(text),
            hidden: wide(model.hidden_size),
            inner: wide(model.intermediate_size),
            heads: wide(model.num_attention_heads),
            blocks: wide(model.num_hidden_layers),
            features: wide(data.region_feature_size),
            classes: wide(data.num_region_classes),
            vocabulary: wide(facts.vocabulary),
            number: if fp32 { FLOAT } else { 2 },
            checkpointing,
            fused: fp32 && !checkpointing && gpus_of(&facts.device, 1).is_empty(),
        }
    }

    fn blocks_before_last(&self) -> u64 {
        self.blocks.saturating_sub(1)
    }

    /// Weights of the linear maps of a block.
    fn block_weights(&self) -> u64 {
        4 * self.hidden * self.hidden + 2 * self.hidden * self.inner
    }

    /// Weights of the linear maps of all blocks and of the word head.
    fn multiplied(&self) -> u64 {
        self.blocks * self.block_weights() + self.hidden * self.hidden + self.vocabulary * self.hidden
    }

    /// Bytes of the weights once more in a low type.
    fn converted(&self) -> u64 {
        if self.number == FLOAT {
            return 0;
        }
        let (hidden, features) = (self.hidden, self.features);
        let regions = features * features + features * hidden + (6 + self.classes) * hidden;
        self.number * (self.multiplied() + regions)
    }

    /// A block of `rows` that look at `places` each, whose own keys and values are as many as its rows where `own`.
    fn block(&self, rows: u64, places: u64, own: bool) -> u64 {
        let of_hidden = if own { 6 } else { 4 };
        let (of_inner, of_norms, of_scores) = match (self.fused, self.checkpointing) {
            (true, _) => (2, self.hidden * (2 * FLOAT + 2) + 2 * FLOAT, FLOAT + 1),
            (false, false) => (2, self.hidden * 6 * FLOAT, 3 * FLOAT + self.number),
            (false, true) => (1, self.hidden * 6 * FLOAT, 2 * FLOAT + self.number),
        };
        self.number * rows * (of_hidden * self.hidden + of_inner * self.inner)
            + rows * of_norms
            + self.heads * rows * places * of_scores
    }

    /// Weights of query, key and value one below the other, of a block.
    fn stacked(&self) -> u64 {
        if self.fused { FLOAT * 3 * self.hidden * self.hidden } else { 0 }
    }

    /// Bytes of a value of a dropout mask.
    fn mask(&self) -> u64 {
        if self.fused { 1 } else { FLOAT }
    }

    fn embeddings(&self, rows: u64) -> u64 {
        rows * self.hidden * if self.fused { FLOAT + self.mask() } else { 3 * FLOAT }
    }

    fn word_head(&self, places: u64) -> u64 {
        let of_hidden = if self.fused { 4 } else { 5 };
        FLOAT * places * (self.vocabulary + of_hidden * self.hidden)
    }

    /// All that is kept for the backward pass.
    fn kept(&self, settings: &Settings) -> u64 {
        let (samples, hidden, number) = (self.samples, self.hidden, self.number);
        let image = self.regions + 2;
        let region = number * (3 * self.features + 6 + self.classes + 2 * hidden) + self.mask() * 2 * hidden;
        let regions = samples * self.regions * region;
        match settings.objective.kind {
            ObjectiveKind::Scst => {
                let rows = samples * image;
                let before_text = self.blocks_before_last() * self.block(rows, image, true)
                    + number * rows * 3 * hidden
                    + self.embeddings(rows);
                let (text, places) = (2 * self.text, image + 2 * self.text);
                let keys = number * samples * places * 2 * hidden;
                let of_text = self.blocks_before_last() * (self.block(samples * text, places, false) + keys)
                    + self.block(samples * self.text, places, false)
                    + keys
                    + self.embeddings(samples * text);
                regions + before_text + of_text + self.word_head(samples * self.text)
            }
            kind => {
                let rows = samples * (image + self.text);
                let masked = if kind == ObjectiveKind::Vqa { 0 } else { settings.objective.max_pred as u64 };
                let read = if kind == ObjectiveKind::Vqa { 2 } else { masked };
                let places = image + self.text;
                regions
                    + self.embeddings(rows)
                    + self.blocks_before_last() * (self.block(rows, places, true) + self.stacked())
                    + self.block(samples * read, places, false)
                    + number * rows * 3 * hidden
                    + self.word_head(samples * masked)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OptimizerMemory;

    /// Settings and facts of `vlp bench --size base`, which has 13 word pieces and `[SEP]` in the longest text of a batch.
    fn bench(kind: ObjectiveKind, batch: usize, device: &str) -> (Settings, Facts) {
        let mut settings = Settings::default();
        settings.objective.kind = kind;
        settings.train.batch_size = batch;
        let device = device.to_owned();
        (settings, Facts { parameters: 115_939_396, vocabulary: 28_996, device, ..Facts::default() })
    }

    /// One measured peak: objective, batch, precision, checkpointing, MiB.
    type Peak = (ObjectiveKind, usize, Precision, bool, u64);

    const CE: ObjectiveKind = ObjectiveKind::Masked;
    const SCST: ObjectiveKind = ObjectiveKind::Scst;

    /// `vlp bench ce-step|scst --device tch-cpu --batch B --reps 1 [--precision TYPE] [--gradient-checkpointing]`, one process per row, LibTorch 2.9.1,
    /// glibc's allocator.
    const TCH_CPU: &[Peak] = &[
        (CE, 4, Precision::Fp32, false, 2332),
        (CE, 16, Precision::Fp32, false, 3240),
        (CE, 4, Precision::Fp32, true, 2488),
        (CE, 16, Precision::Fp32, true, 4144),
        (SCST, 4, Precision::Fp32, false, 1942),
        (SCST, 8, Precision::Fp32, false, 2283),
    ];

    /// The same with `--device flex`; in such a build LibTorch's libraries are part of the program.
    const FLEX: &[Peak] = &[
        (CE, 4, Precision::Fp32, false, 2203),
        (CE, 16, Precision::Fp32, false, 2913),
        (CE, 16, Precision::Fp32, true, 3196),
        (CE, 4, Precision::Bf16, false, 2267),
        (CE, 16, Precision::Bf16, false, 3043),
        (SCST, 4, Precision::Fp32, false, 1369),
        (SCST, 8, Precision::Fp32, false, 1779),
        (SCST, 4, Precision::Bf16, false, 1630),
    ];

    /// The same in a build without LibTorch.
    const FLEX_ALONE: &[Peak] = &[(CE, 1, Precision::Fp32, false, 1988), (CE, 4, Precision::Fp32, false, 2132)];

    /// Before `vlp bench ce-step --device flex` computes: 138 MiB with LibTorch, 31 without.
    const LIBTORCH: u64 = 107 * MIB;

    #[test]
    fn estimates_are_within_a_tenth_of_measured_peaks() {
        let mut all = 0;
        for (device, peaks, libraries) in [("tch-cpu", TCH_CPU, 0), ("flex", FLEX, LIBTORCH), ("flex", FLEX_ALONE, 0)] {
            for &(kind, batch, precision, checkpointing, measured) in peaks {
                let (mut settings, facts) = bench(kind, batch, device);
                settings.train.precision = precision;
                settings.train.gradient_checkpointing = checkpointing;
                // A step of `scst` is timed without the optimiser: no moments.
                let text = if kind == SCST { settings.data.max_text_length + 1 } else { 14 };
                let without = if kind == SCST { 2 * FLOAT * facts.parameters } else { 0 };
                let estimate = peak(&settings, &facts, text, 1).total_bytes() + libraries - without;
                let ratio = estimate as f64 / (measured * MIB) as f64;
                let what = format!("{kind:?} {batch} {precision:?} on {device}, checkpointing {checkpointing}");
                eprintln!("{what}: {} MiB for {measured}, {ratio:.3}", estimate / MIB);
                assert!((0.9..=1.1).contains(&ratio), "{what}: {} MiB for {measured}, {ratio:.3}", estimate / MIB);
                all += 1;
            }
        }
        assert!(all >= 12, "{all}");
    }

    #[test]
    fn the_batch_that_fits_is_within_nine_tenths_of_the_memory() {
        let (settings, facts) = bench(CE, 64, "tch-cuda");
        let of = |batch: usize| {
            let (settings, facts) = bench(CE, batch, "tch-cuda");
            memory(&settings, &facts).total_bytes()
        };
        assert_eq!(largest_batch(&settings, &facts, of(32) / 9 * 10 + 20), Some(32));
        assert_eq!(largest_batch(&settings, &facts, of(32) / 9 * 10 - 20), Some(31));
        assert_eq!(largest_batch(&settings, &facts, of(64) * 2), Some(64));
        assert_eq!(largest_batch(&settings, &facts, of(1)), None);
    }

    #[test]
    fn a_gpu_has_what_is_computed_there() {
        let (mut settings, facts) = bench(CE, 64, "tch-cuda");
        let all = memory(&settings, &facts);
        assert_eq!(all.process_bytes, 0);
        let weights = FLOAT * facts.parameters;
        assert_eq!(all.state_bytes, 3 * weights);
        settings.launch.world_size = 8;
        assert_eq!(memory(&settings, &facts), all);
        settings.train.optimizer_memory = OptimizerMemory::Host;
        assert_eq!(memory(&settings, &facts).state_bytes, weights);
        settings.train.optimizer_memory = OptimizerMemory::Device;
        for (precision, checkpointing) in [(Precision::Bf16, false), (Precision::Fp32, true)] {
            settings.train.precision = precision;
            settings.train.gradient_checkpointing = checkpointing;
            assert!(memory(&settings, &facts).activation_bytes < all.activation_bytes * 9 / 10);
        }
    }
}
