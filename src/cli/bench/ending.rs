//! A model of random weights whose captions end, each after as many words as its image says.
//!
//! Random weights hardly ever choose `[SEP]`. Here one number of the hidden states, the clock, is written by nothing but these:
//! the position embedding, from which it grows with each word; the first block, whose first head looks at everything alike and
//! takes away what the regions of the image hold in another number, the plan; the normalisations, which keep its sign. Once the
//! clock is above 0 the word head makes `[SEP]` certain. All products are those of any model of this size.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData};

use super::world::World;
use crate::data::batch::Batch;
use crate::decode::cache::SEGMENTS;
use crate::model::layers::Pass;
use crate::model::{Vlp, host_values};

/// Places of clock and plan in hidden states, and of a number that nothing writes to. The normalisations take the same mean from all
/// three, so clock and plan are read as their distance from the last.
const CLOCK: usize = 0;
const PLAN: usize = 1;
const NOTHING: usize = 2;

/// Words after which the clock would be 0 without a plan: fewer than any caption has.
const START: f32 = 8.0;

/// What the clock gains with each word, in standard deviations of a hidden state.
const TICK: f32 = 0.5;

/// What the word head makes of the clock: enough to outweigh all other numbers as soon as it is above 0.
const GAIN: f32 = 1000.0;

/// Score of `[SEP]` then; all other words of random weights stay far below.
const END: f32 = 30.0;

/// A model in evaluation form, and `batch` with numbers in its regions' positions with which this model's captions of it have as many words as
/// those of the batch. At most `words` are written.
pub fn ending(world: &World, mut batch: Batch, words: usize, device: &Device) -> (Vlp, Batch) {
    let (layout, settings) = (&world.layout, &world.settings.model);
    let (hidden, heads) = (settings.hidden_size, settings.num_attention_heads);
    let start = layout.text_start();
    // About as many as there are positions for each region, so that clock and plan are of one size.
    let share = (start + words) as f32 / layout.num_regions as f32;
    let deviation = 3f32.sqrt() * settings.initializer_range as f32; // three tables are added
    let change = |name: &str, rows: &mut [&mut [f32]]| {
        let clear_row = |rows: &mut [&mut [f32]], row: usize| rows[row].fill(0.0);
        let clear_columns = |rows: &mut [&mut [f32]]| rows.iter_mut().for_each(|row| row[CLOCK..=NOTHING].fill(0.0));
        match name {
            "bert.embeddings.word_embeddings.weight" => {
                clear_columns(rows);
                rows[layout.sep as usize][CLOCK] = END / (hidden as f32).sqrt();
            }
            "bert.embeddings.position_embeddings.weight" => {
                clear_columns(rows);
                (0..words).for_each(|word| rows[start + word][CLOCK] = TICK * deviation * (word as f32 - START));
            }
            "bert.embeddings.token_type_embeddings.weight" => clear_columns(rows),
            "vis_embed.2.weight" | "vis_embed.2.bias" => {
                [CLOCK, PLAN, NOTHING].iter().for_each(|row| clear_row(rows, *row))
            }
            "vis_pe_embed.0.weight" | "vis_pe_embed.0.bias" => {
                [CLOCK, PLAN, NOTHING].iter().for_each(|row| clear_row(rows, *row));
                if name.ends_with("weight") {
                    rows.iter_mut().for_each(|row| row[0] = 0.0);
                    rows[PLAN][0] = 1.0;
                }
            }
            "bert.encoder.layer.0.attention.self.query.weight" => {
                (0..hidden / heads).for_each(|row| clear_row(rows, row));
            }
            "bert.encoder.layer.0.attention.self.value.weight" => {
                clear_row(rows, 0);
                (rows[0][PLAN], rows[0][NOTHING]) = (share, -share);
            }
            "bert.encoder.layer.0.attention.output.dense.weight" => {
                [CLOCK, NOTHING].iter().for_each(|row| clear_row(rows, *row));
                rows[CLOCK][0] = -1.0;
            }
            "cls.predictions.transform.dense.weight" => {
                clear_row(rows, CLOCK);
                (rows[CLOCK][CLOCK], rows[CLOCK][NOTHING]) = (GAIN, -GAIN);
            }
            _ if name.ends_with("output.dense.weight") => [CLOCK, NOTHING].iter().for_each(|row| clear_row(rows, *row)),
            _ => return false,
        }
        true
    };
    let model = world.model(device).valid().replace(&mut |name, shape, current| {
        let wanted =
            name.contains("embed") || name.contains("layer.0.attention.self") || name.ends_with("dense.weight");
        let mut values: Vec<f32> = if wanted { current().try_into_vec().ok()? } else { return None };
        let width = shape.get(1).copied().unwrap_or(1);
        let mut rows: Vec<&mut [f32]> = values.chunks_exact_mut(width).collect();
        change(name, &mut rows).then(|| TensorData::new(values, shape.to_vec()))
    });
    plan(world, &model, &mut batch, words, share, device);
    (model, batch)
}

/// Sets the first number of each region's position so that the clock passes 0 at the end of the batch's captions.
fn plan(world: &World, model: &Vlp, batch: &mut Batch, words: usize, share: f32, device: &Device) {
    let per_region = batch.positions.len() / (batch.size * batch.num_regions);
    batch.positions.chunks_exact_mut(per_region).for_each(|region| region[0] = 0.0);
    let clocks = clocks(world, model, words, device);
    // Before any word a place sees the image and itself.
    let seen = |word: usize| (world.layout.text_start() + word + 1) as f64;
    let [features, positions] = world.regions(batch, device);
    let regions = model.regions(features, positions, Pass::Evaluate);
    let segment = int(&[SEGMENTS.0], device);
    let segment = model.bert.embeddings.token_type_embeddings.val().select(0, segment); // [1, H]
    let states = host_values(regions.words + regions.places + segment.unsqueeze_dim::<3>(0)); // [B, R, H]
    let hidden = states.len() / (batch.size * batch.num_regions);
    let eps = model.bert.embeddings.layer_norm.eps;
    for (image, states) in states.chunks_exact(batch.num_regions * hidden).enumerate() {
        let length = batch.text_lengths[image] - 1;
        let needed = |word: usize| clocks[word] * seen(word) / f64::from(share);
        let target = (needed(length - 1) + needed(length)) / 2.0;
        let sums: Vec<[f64; 2]> = states
            .chunks_exact(hidden)
            .map(|state| [1, 2].map(|power| state.iter().map(|x| f64::from(*x).powi(power)).sum()))
            .collect();
        // Sum over the regions of the plan as the normalisation gives it.
        let found = |plan: f64| -> f64 {
            let normalised = |[sum, squares]: &[f64; 2]| {
                let mean = (sum + plan) / hidden as f64;
                let variance = (squares + plan * plan) / hidden as f64 - mean * mean;
                plan / (variance + eps).sqrt()
            };
            sums.iter().map(normalised).sum()
        };
        let (mut low, mut high) = (0.0, 100.0);
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if found(middle) < target { low = middle } else { high = middle }
        }
        let of_image = batch.positions.chunks_exact_mut(per_region * batch.num_regions).nth(image);
        of_image
            .into_iter()
            .flat_map(|image| image.chunks_exact_mut(per_region))
            .for_each(|region| region[0] = low as f32);
    }
}

/// The clock at the `[MASK]` behind 0, 1, … words, before the first block.
fn clocks(world: &World, model: &Vlp, words: usize, device: &Device) -> Vec<f64> {
    let places: Vec<i64> = (0..words).map(|word| (world.layout.text_start() + word) as i64).collect();
    let all = |id: i64| int(&vec![id; words], device);
    let states = model.bert.embeddings.tokens(all(i64::from(world.layout.mask)), int(&places, device), all(SEGMENTS.1));
    let hidden = states.dims()[1];
    host_values(states).chunks_exact(hidden).map(|state| f64::from(state[CLOCK] - state[NOTHING])).collect()
}

fn int(values: &[i64], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::from(values), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::world::Size;
    use crate::decode::{BeamSettings, Stepper, beam_search, greedy};

    #[test]
    fn captions_end_where_they_are_planned() {
        let (world, device) = (World::new(Size::Tiny).unwrap(), Device::flex());
        let (model, batch) = ending(&world, world.batch(20, 0), 20, &device);
        let stepper = || {
            let [features, positions] = world.regions(&batch, &device);
            Stepper::new(&model, world.prompt(), features, positions)
        };
        let lengths = |captions: Vec<Vec<u32>>| captions.iter().map(Vec::len).collect::<Vec<_>>();
        let end = world.layout.sep;
        assert_eq!(lengths(greedy(stepper(), 20, end)), batch.text_lengths);
        let settings = BeamSettings {
            beam_size: 3,
            max_length: 20,
            min_length: 0,
            length_penalty: 0.0,
            no_repeat_ngram: 0,
            ignored: Vec::new(),
            end,
        };
        let found = beam_search(stepper(), &settings);
        assert!(
            found.iter().all(|result| result.words.last() == Some(&end) && result.frames.len() == result.words.len())
        );
        assert_eq!(lengths(found.into_iter().map(|result| result.words).collect()), batch.text_lengths);
        let different: std::collections::BTreeSet<_> = batch.text_lengths.iter().collect();
        assert_eq!(different.into_iter().copied().collect::<Vec<_>>(), [10, 11, 12, 13, 14]);
    }
}
