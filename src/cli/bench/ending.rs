//! A model of random weights whose captions end.
//!
//! Random weights hardly ever choose `[SEP]`. Here one number of the hidden states, the clock, comes from the position embedding
//! alone, and grows with each word: no block writes to it, and the normalisations keep its sign, as its distance from another number
//! that nothing writes to. Once it is above 0 the word head makes `[SEP]` certain. All products are those of any
//! model of this size.

use burn::module::Module;
use burn::tensor::{Device, TensorData};

use super::world::World;
use crate::model::Vlp;

/// Words of a caption before `[SEP]`: most of COCO's have 9 to 13.
pub const CAPTION: usize = 11;

/// Places of the clock in hidden states, and of a number that stays 0 but for the normalisations.
const CLOCK: usize = 0;
const NOTHING: usize = 1;

/// What the clock gains with each word.
const TICK: f32 = 0.1;

/// What the word head makes of the clock: enough to outweigh all other numbers as soon as it is above 0.
const GAIN: f32 = 1000.0;

/// Score of `[SEP]` then, and its negative before; those of all other words of random weights are near 0.
const END: f32 = 30.0;

/// A model in evaluation form whose captions have [`CAPTION`] words.
pub fn ending(world: &World, device: &Device) -> Vlp {
    let (start, hidden) = (world.layout.text_start(), world.settings.model.hidden_size);
    let change = |name: &str, rows: &mut [&mut [f32]]| {
        let both = [CLOCK, NOTHING];
        match name {
            "bert.embeddings.word_embeddings.weight" | "bert.embeddings.token_type_embeddings.weight" => {
                rows.iter_mut().for_each(|row| both.iter().for_each(|column| row[*column] = 0.0));
                if name.contains("word") {
                    rows[world.layout.sep as usize][CLOCK] = 2.0 * END / (hidden as f32).sqrt();
                }
            }
            "bert.embeddings.position_embeddings.weight" => {
                for (position, row) in rows.iter_mut().enumerate() {
                    let word = position as f32 - start as f32;
                    (row[CLOCK], row[NOTHING]) = (TICK * (word - CAPTION as f32 + 0.5), 0.0);
                }
            }
            "cls.predictions.bias" => rows[0][world.layout.sep as usize] = -END,
            "cls.predictions.transform.dense.weight" => {
                rows[CLOCK].fill(0.0);
                (rows[CLOCK][CLOCK], rows[CLOCK][NOTHING]) = (GAIN, -GAIN);
            }
            _ if name.ends_with("output.dense.weight") => both.iter().for_each(|row| rows[*row].fill(0.0)),
            _ => return false,
        }
        true
    };
    world.model(device).valid().replace(&mut |name, shape, current| {
        let changes = name.contains("embeddings.") && shape.len() == 2 || name.ends_with("dense.weight");
        if !changes && name != "cls.predictions.bias" {
            return None;
        }
        let mut values: Vec<f32> = current().try_into_vec().ok()?;
        let mut rows: Vec<&mut [f32]> = values.chunks_exact_mut(shape.last().copied().unwrap_or(1)).collect();
        change(name, &mut rows).then(|| TensorData::new(values, shape.to_vec()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::world::Size;
    use crate::decode::{BeamSettings, Stepper, beam_search, greedy};

    #[test]
    fn captions_end_after_eleven_words() {
        let (world, device) = (World::new(Size::Tiny).unwrap(), Device::flex());
        let (model, batch) = (ending(&world, &device), world.batch(20, 0));
        let stepper = || {
            let [features, positions] = world.regions(&batch, &device);
            Stepper::new(&model, world.prompt(), features, positions)
        };
        let end = world.layout.sep;
        let ends = |caption: &[u32]| caption.len() == CAPTION + 1 && caption.last() == Some(&end);
        assert!(greedy(stepper(), 20, end).iter().all(|caption| ends(caption)));
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
        assert!(found.iter().all(|result| ends(&result.words) && result.frames.len() == CAPTION + 1));
    }
}
