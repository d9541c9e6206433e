//! Times of the caption metrics: 5,000 images of five references each, as COCO's validation and test splits have them.
//!
//! The captions are those of a COCO annotations file, gone round again until there are enough, or of scenes of the demo world (which
//! have fewer different words than people's). As candidate, each image has a caption of another one. METEOR is timed where
//! its data are installed.

use std::path::Path;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::super::context::{Failure, exit};
use super::super::places::scorers;
use super::super::score::human_captions;
use super::Part;
use super::clock::{Clock, Row};
use super::world::Size;
use crate::config::MetricsSettings;
use crate::data::demo_world::{self, Collection, Scene};
use crate::metrics::{CaptionEntry, score_tokenized, tokenize_captions};

/// References of an image of the demo world.
const REFERENCES: usize = 5;

/// Scores the captions.
pub fn metrics(size: Size, file: Option<&Path>, repetitions: usize) -> Result<Vec<Row>, Failure> {
    let count = match size {
        Size::Base => 5000,
        Size::Tiny => 50,
    };
    let captions = match file {
        Some(path) => human_captions(path, "--captions")?,
        None => of_the_demo_world(count),
    };
    if captions.is_empty() {
        let help = "name a COCO annotations file, such as captions_val2014.json";
        let path = file.unwrap_or(Path::new("")).display();
        return Err(Failure::new(exit::DATA, format!("`{path}` has no captions\n  help: {help}")));
    }
    let images = corpus(&captions, count);
    let references: usize = images.iter().map(|image| image.references.len()).sum();
    let (mut clock, mut tokenized) = (Clock::new(Part::Metrics, count), Vec::new());
    for _ in 0..=repetitions {
        tokenized = clock.time("tokenizer", || tokenize_captions(&images));
        let scores = clock.time("BLEU, ROUGE-L, CIDEr", || score_tokenized(&tokenized));
        std::hint::black_box(scores).map_err(|error| Failure::new(exit::DATA, error))?;
    }
    let name = |work: &str| vec![format!("caption metrics, {count} images, {references} references: {work}")];
    let mut rows = clock.rows(|work| (None, name(work)));

    match scorers(&MetricsSettings::default()).native_meteor() {
        Ok(meteor) => {
            let pairs: Vec<(&str, Vec<&str>)> = tokenized
                .iter()
                .map(|image| (image.candidate.as_str(), image.references.iter().map(String::as_str).collect()))
                .collect();
            let mut clock = Clock::new(Part::Metrics, count);
            for _ in 0..=repetitions {
                std::hint::black_box(clock.time("METEOR of tokens", || meteor.score(&pairs)));
            }
            rows.extend(clock.rows(|work| (None, name(work))));
        }
        Err(reason) => eprintln!("not timed: {reason}"),
    }
    Ok(rows)
}

/// Captions of as many scenes, the same each time.
fn of_the_demo_world(scenes: usize) -> Vec<Vec<String>> {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut captions = || {
        let scene = Scene::sample(Collection::Coco, &mut rng);
        demo_world::captions(&scene, Collection::Coco, REFERENCES, &mut rng)
    };
    (0..scenes).map(|_| captions()).collect()
}

/// `count` images: the captions of one after the other, and in round r the first caption of the image r + 1 places on as candidate.
fn corpus(captions: &[Vec<String>], count: usize) -> Vec<CaptionEntry> {
    let image = |at: usize| {
        let (round, own) = (at / captions.len(), at % captions.len());
        CaptionEntry {
            id: at.to_string(),
            candidate: captions[(own + round + 1) % captions.len()][0].clone(),
            references: captions[own].clone(),
        }
    };
    (0..count).map(image).collect()
}

#[cfg(test)]
mod tests {
    use super::{corpus, of_the_demo_world};

    #[test]
    fn rounds_have_other_candidates() {
        let captions = vec![vec!["a".to_owned(), "b".into()], vec!["c".into()]];
        let found: Vec<_> = corpus(&captions, 4).into_iter().map(|i| (i.candidate, i.references.len())).collect();
        assert_eq!(found, [("c".to_owned(), 2), ("a".into(), 1), ("a".into(), 2), ("c".into(), 1)]);
    }

    #[test]
    fn scenes_have_five_captions() {
        let captions = of_the_demo_world(20);
        assert!(captions.iter().all(|captions| captions.len() == 5));
        assert_eq!(captions, of_the_demo_world(20));
    }
}
