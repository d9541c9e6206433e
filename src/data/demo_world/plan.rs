//! The images of a demo world: ids, splits, scenes, captions, questions. All of it follows from the seed; no files.

use std::collections::HashSet;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::grammar;
use super::questions::{self, Question, ROUNDS};
use super::render::{self, Geometry, Prototypes, Regions};
use super::scene::{Collection, Scene, SceneKey};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WorldOptions {
    /// Decides everything that is random.
    pub seed: u64,
    /// The paper's 100 regions × 2048 numbers and 1601 classes, with few images, instead of a toy geometry.
    pub full_size: bool,
}

/// How many images of each set, and the geometry of their regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Sizes of the detector's output.
    pub geometry: Geometry,
    /// Images of the COCO-like set (train 70 %, restval, val, test 10 % each).
    pub coco: usize,
    /// Images that only have questions without answers.
    pub test2015: usize,
    /// Images of the CC-like set (one in twelve is val).
    pub cc: usize,
    /// Images of the Flickr-like set (train 80 %, val, test 10 % each).
    pub flickr: usize,
}

impl WorldOptions {
    /// The sizes that go with these options.
    pub fn sizes(&self) -> Sizes {
        if self.full_size {
            let geometry = Geometry { regions: 100, feature_size: 2048, classes: 1601 };
            Sizes { geometry, coco: 60, test2015: 6, cc: 60, flickr: 20 }
        } else {
            let geometry = Geometry { regions: 16, feature_size: 128, classes: 33 };
            Sizes { geometry, coco: 1000, test2015: 100, cc: 1200, flickr: 200 }
        }
    }
}

/// One image.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// File name without `.jpg`; the name of its region tables.
    pub stem: String,
    /// `cocoid` (COCO), `imgid` (CC), the number in the stem (Flickr30k).
    pub image_id: u64,
    /// `train`, `restval`, `val`, `test` or, without captions, `test2015`.
    pub split: &'static str,
    /// What it shows.
    pub scene: Scene,
    /// Five captions, one in the CC-like set, none in `test2015`.
    pub captions: Vec<String>,
    stream: u64,
}

/// All images of a demo world.
#[derive(Debug, Clone, PartialEq)]
pub struct World {
    /// What was asked for.
    pub options: WorldOptions,
    /// Its sizes.
    pub sizes: Sizes,
    /// The COCO-like set.
    pub coco: Vec<Picture>,
    /// COCO-like images for unanswered questions.
    pub test2015: Vec<Picture>,
    /// The CC-like set.
    pub cc: Vec<Picture>,
    /// The Flickr-like set.
    pub flickr: Vec<Picture>,
}

/// Images that share their last three digits (and so their files) are this many ids apart: 24 different endings.
const ENDINGS: u64 = 24;

/// Random streams of one image, so that no draw depends on another image.
const RENDER_STREAM: u64 = 1 << 48;
const QUESTION_STREAM: u64 = 2 << 48;

impl World {
    /// Draws the world. No two images of it show scenes with the same key.
    pub fn plan(options: WorldOptions) -> World {
        let sizes = options.sizes();
        let mut seen = HashSet::new();
        let mut draw = |collection: Collection, section: u64, i: usize, captions: usize| {
            let stream = (section << 32) + i as u64;
            let mut rng = rng(options.seed, stream);
            let scene = new_scene(collection, &mut seen, &mut rng);
            let captions = grammar::captions(&scene, collection, captions, &mut rng);
            Picture { stem: String::new(), image_id: 0, split: "", scene, captions, stream }
        };
        let coco = (0..sizes.coco)
            .map(|i| {
                let split = ["train", "train", "train", "train", "train", "train", "train", "restval", "val", "test"];
                let (split, image_id) = (split[i % 10], spread_id(i, 100));
                let folder = if split == "train" { "train2014" } else { "val2014" };
                let stem = format!("COCO_{folder}_{image_id:012}");
                Picture { stem, image_id, split, ..draw(Collection::Coco, 1, i, 5) }
            })
            .collect();
        let test2015 = (0..sizes.test2015)
            .map(|i| {
                let image_id = spread_id(i, 500);
                let stem = format!("COCO_test2015_{image_id:012}");
                Picture { stem, image_id, split: "test2015", ..draw(Collection::Coco, 2, i, 0) }
            })
            .collect();
        let cc = (0..sizes.cc)
            .map(|i| {
                let image_id = spread_id(i, 0);
                let split = if i % 12 == 11 { "val" } else { "train" };
                Picture { stem: format!("{image_id:08}"), image_id, split, ..draw(Collection::Cc, 3, i, 1) }
            })
            .collect();
        let flickr = (0..sizes.flickr)
            .map(|i| {
                let image_id = 1_000_092_795 + 7_919 * i as u64;
                let split = ["train", "train", "train", "train", "train", "train", "train", "train", "val", "test"];
                let split = split[i % 10];
                Picture { stem: image_id.to_string(), image_id, split, ..draw(Collection::Flickr, 4, i, 5) }
            })
            .collect();
        World { options, sizes, coco, test2015, cc, flickr }
    }

    /// The prototypes that all images of this world share.
    pub fn prototypes(&self) -> Prototypes {
        Prototypes::new(self.options.seed, self.sizes.geometry.feature_size)
    }

    /// The regions of one of this world's images.
    pub fn regions(&self, picture: &Picture, prototypes: &Prototypes) -> Regions {
        let mut rng = rng(self.options.seed, RENDER_STREAM + picture.stream);
        render::render(&picture.scene, self.sizes.geometry, prototypes, &mut rng)
    }

    /// The questions about one of this world's images: [`ROUNDS`] times one of each type, no text twice.
    pub fn questions(&self, picture: &Picture) -> Vec<Question> {
        let mut rng = rng(self.options.seed, QUESTION_STREAM + picture.stream);
        let mut asked: Vec<Question> = Vec::with_capacity(3 * ROUNDS);
        for slot in 0..3 * ROUNDS {
            let mut draw = || questions::questions(&picture.scene, &mut rng).into_iter().nth(slot % 3);
            let mut question = draw();
            // A scene has at least six questions of each type, so a new one is soon found.
            for _ in 0..100 {
                if question.as_ref().is_none_or(|q| asked.iter().all(|other| other.text != q.text)) {
                    break;
                }
                question = draw();
            }
            asked.extend(question);
        }
        asked
    }
}

/// Words that captions, questions and answers can hold, longer than one character, sorted; the same for all seeds.
///
/// Found by writing texts for a fixed sample of scenes, large enough to meet every word many times.
pub fn words() -> Vec<String> {
    let mut words: HashSet<String> = HashSet::new();
    let mut add = |text: &str| {
        let parts = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| w.len() > 1);
        words.extend(parts.map(str::to_string));
    };
    for (section, collection) in [Collection::Coco, Collection::Cc, Collection::Flickr].into_iter().enumerate() {
        let mut rng = rng(0, (section as u64 + 8) << 32);
        for _ in 0..2000 {
            let scene = Scene::sample(collection, &mut rng);
            grammar::captions(&scene, collection, 5, &mut rng).iter().for_each(|c| add(c));
            for question in questions::questions(&scene, &mut rng) {
                add(&question.text);
                question.answers.iter().for_each(|a| add(a));
            }
        }
    }
    questions::answer_vocabulary().iter().filter(|a| !a.starts_with('<')).for_each(|a| add(a));
    let mut words: Vec<String> = words.into_iter().collect();
    words.sort_unstable();
    words
}

fn rng(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

fn new_scene(collection: Collection, seen: &mut HashSet<SceneKey>, rng: &mut ChaCha8Rng) -> Scene {
    loop {
        let scene = Scene::sample(collection, rng);
        if seen.insert(scene.key()) {
            return scene;
        }
    }
}

/// Increasing ids whose last three digits take few values: 42, 79, 116, …
fn spread_id(i: usize, thousands: u64) -> u64 {
    let i = i as u64;
    1000 * (thousands + i / ENDINGS) + 42 + 37 * (i % ENDINGS)
}
