//! What a simulated detector sees of a scene: region features, class scores and boxes.
//!
//! Prototypes: every kind, colour, size, count, place and relation has a fixed random vector; a region's feature is
//! the ReLU of a weighted sum of those of what it shows, plus noise. Boxes follow the relation and the sizes, so that
//! counts and relations can be read off the positions as well. Nothing here writes files.

use rand::RngCore;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::scene::{COLORS, Group, KINDS, PLACES, Relation, Scene, Size, below};

/// Width and height of an image, in pixels.
pub const CANVAS: [f32; 2] = [640.0, 480.0];

/// Sizes of a simulated detector's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Regions per image.
    pub regions: usize,
    /// Numbers per region feature.
    pub feature_size: usize,
    /// Detector classes: 0 background, then the kinds, then the places, the rest unused.
    pub classes: usize,
}

/// What a region shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// One object of the subject group, counted from the left.
    Subject(usize),
    /// One object of the object group, counted from the left.
    Object(usize),
    /// Both groups.
    Both,
    /// The place.
    Place,
}

/// The regions of one image; rows are regions in random order.
#[derive(Debug, Clone, PartialEq)]
pub struct Regions {
    /// `[regions, feature_size]`
    pub features: Vec<f32>,
    /// `[regions, classes]`, each row sums to 1.
    pub class_scores: Vec<f32>,
    /// `[regions, 6]`: x1 y1 x2 y2 in pixels, class, confidence.
    pub boxes: Vec<f32>,
    /// What each region shows.
    pub shows: Vec<Shows>,
}

// Weights of the prototypes in a feature, and the standard deviation of the noise on each number.
const COLOR: f32 = 1.2;
const SIZE: f32 = 0.6;
const COUNT: f32 = 0.6;
const PLACE: f32 = 0.3;
const RELATION: f32 = 1.5;
const NOISE: f32 = 0.2;

/// A prototype and its weight in a feature.
type Part<'a> = (f32, &'a [f32]);

/// Fixed random vectors, nearly standard normal, one per word of the world.
#[derive(Debug, Clone)]
pub struct Prototypes {
    /// `[KINDS][feature_size]`
    pub kinds: Vec<Vec<f32>>,
    /// `[COLORS][feature_size]`
    pub colors: Vec<Vec<f32>>,
    sizes: Vec<Vec<f32>>,
    counts: Vec<Vec<f32>>,
    places: Vec<Vec<f32>>,
    relations: Vec<Vec<f32>>,
}

impl Prototypes {
    /// Depends on `seed` and `feature_size` alone.
    pub fn new(seed: u64, feature_size: usize) -> Self {
        let table = |stream: u64, rows: usize| -> Vec<Vec<f32>> {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(stream);
            (0..rows).map(|_| (0..feature_size).map(|_| normal(&mut rng)).collect()).collect()
        };
        Self {
            kinds: table(1, KINDS.len()),
            colors: table(2, COLORS.len()),
            sizes: table(3, Size::ALL.len()),
            counts: table(4, 3),
            places: table(5, PLACES.len()),
            relations: table(6, Relation::ALL.len()),
        }
    }

    /// What a region of one object of `group` shows.
    fn group(&self, group: &Group, place: usize) -> Vec<Part<'_>> {
        vec![
            (1.0, &self.kinds[group.kind]),
            (COLOR, &self.colors[group.color]),
            (SIZE, &self.sizes[group.size as usize]),
            (COUNT, &self.counts[group.count - 1]),
            (PLACE, &self.places[place]),
        ]
    }
}

/// Renders the regions of `scene`.
pub fn render(scene: &Scene, geometry: Geometry, prototypes: &Prototypes, rng: &mut ChaCha8Rng) -> Regions {
    let layout = layout(scene, rng);
    let mut shows = allot(scene, geometry.regions);
    shows.shuffle(rng);
    let full_view = shows.iter().position(|s| *s == Shows::Place);
    let mut out = Regions {
        features: Vec::with_capacity(geometry.regions * geometry.feature_size),
        class_scores: Vec::with_capacity(geometry.regions * geometry.classes),
        boxes: Vec::with_capacity(geometry.regions * 6),
        shows,
    };
    for (row, &shown) in out.shows.iter().enumerate() {
        let parts: Vec<Part<'_>> = match shown {
            Shows::Subject(_) => prototypes.group(&scene.subject, scene.place),
            Shows::Object(_) => prototypes.group(&scene.object, scene.place),
            Shows::Both => vec![
                (0.5, &prototypes.kinds[scene.subject.kind]),
                (0.5, &prototypes.kinds[scene.object.kind]),
                (RELATION, &prototypes.relations[scene.relation as usize]),
                (PLACE, &prototypes.places[scene.place]),
            ],
            Shows::Place => vec![(1.0, &prototypes.places[scene.place])],
        };
        let area = match shown {
            Shows::Subject(i) => jitter(layout.subject[i], rng),
            Shows::Object(i) => jitter(layout.object[i], rng),
            Shows::Both => hull(&layout, rng),
            Shows::Place if Some(row) == full_view => [0.0, 0.0, CANVAS[0], CANVAS[1]],
            Shows::Place => backdrop(rng),
        };
        let (class, confidence) = match shown {
            Shows::Subject(_) => (scene.subject.kind + 1, uniform(rng, 0.8, 1.0)),
            Shows::Object(_) => (scene.object.kind + 1, uniform(rng, 0.6, 0.8)),
            Shows::Both => (scene.subject.kind + 1, uniform(rng, 0.4, 0.6)),
            Shows::Place => (KINDS.len() + 1 + scene.place, uniform(rng, 0.2, 0.4)),
        };
        for d in 0..geometry.feature_size {
            let sum: f32 = parts.iter().map(|(weight, prototype)| weight * prototype[d]).sum();
            out.features.push((sum + NOISE * normal(rng)).max(0.0));
        }
        push_class_scores(&mut out.class_scores, class, geometry.classes, rng);
        out.boxes.extend(area);
        out.boxes.extend([class as f32, confidence]);
    }
    out
}

/// Shares of the regions: 7/16 subject, 5/16 object, at least one of both, the rest place.
fn allot(scene: &Scene, regions: usize) -> Vec<Shows> {
    let (subject, object, both) = (regions * 7 / 16, regions * 5 / 16, (regions / 16).max(1));
    let mut shows: Vec<Shows> = (0..subject).map(|i| Shows::Subject(i % scene.subject.count)).collect();
    shows.extend((0..object).map(|i| Shows::Object(i % scene.object.count)));
    shows.extend(std::iter::repeat_n(Shows::Both, both));
    shows.resize(regions, Shows::Place);
    shows
}

/// Boxes of the objects of both groups, x1 y1 x2 y2 in pixels.
struct Layout {
    subject: Vec<[f32; 4]>,
    object: Vec<[f32; 4]>,
}

fn layout(scene: &Scene, rng: &mut ChaCha8Rng) -> Layout {
    let left_first = below(rng, 2) == 0;
    // Zones x1 y1 x2 y2 of the two groups.
    let (subject, object) = match scene.relation {
        Relation::LeftOf => ([20.0, 190.0, 220.0, 440.0], [420.0, 190.0, 620.0, 440.0]),
        Relation::RightOf => ([420.0, 190.0, 620.0, 440.0], [20.0, 190.0, 220.0, 440.0]),
        Relation::NextTo if left_first => ([130.0, 190.0, 315.0, 440.0], [325.0, 190.0, 510.0, 440.0]),
        Relation::NextTo => ([325.0, 190.0, 510.0, 440.0], [130.0, 190.0, 315.0, 440.0]),
        Relation::Behind => ([160.0, 110.0, 480.0, 330.0], [160.0, 220.0, 480.0, 450.0]),
        Relation::InFrontOf => ([160.0, 220.0, 480.0, 450.0], [160.0, 110.0, 480.0, 330.0]),
        Relation::On => ([200.0, 30.0, 440.0, 240.0], [200.0, 245.0, 440.0, 460.0]),
        Relation::Under => ([200.0, 245.0, 440.0, 460.0], [200.0, 30.0, 440.0, 240.0]),
    };
    // The upper of two touching groups stands on its floor, the lower one hangs from its ceiling.
    let (subject_top, object_top) = (scene.relation == Relation::Under, scene.relation == Relation::On);
    let shift = uniform(rng, -15.0, 15.0);
    Layout {
        subject: place_group(&scene.subject, subject, subject_top, shift),
        object: place_group(&scene.object, object, object_top, shift),
    }
}

fn place_group(group: &Group, zone: [f32; 4], at_top: bool, shift: f32) -> Vec<[f32; 4]> {
    let scale = match group.size {
        Size::Small => 0.5,
        Size::Medium => 0.75,
        Size::Large => 1.0,
    };
    // A third of the zone's width per object, whatever the count: the width tells the size.
    let (width, height) = ((zone[2] - zone[0]) / 3.0 * scale * 0.95, (zone[3] - zone[1]) * scale);
    (0..group.count)
        .map(|i| {
            let centre = zone[0] + (zone[2] - zone[0]) * (i as f32 + 0.5) / group.count as f32 + shift;
            let (y1, y2) = if at_top { (zone[1], zone[1] + height) } else { (zone[3] - height, zone[3]) };
            [centre - width / 2.0, y1, centre + width / 2.0, y2]
        })
        .collect()
}

/// Moves each edge by up to 5 % of the box.
fn jitter(area: [f32; 4], rng: &mut ChaCha8Rng) -> [f32; 4] {
    let (width, height) = (area[2] - area[0], area[3] - area[1]);
    let spans = [width, height, width, height];
    let mut out = area;
    for ((edge, span), limit) in out.iter_mut().zip(spans).zip([CANVAS[0], CANVAS[1], CANVAS[0], CANVAS[1]]) {
        *edge = (*edge + span * uniform(rng, -0.05, 0.05)).clamp(0.0, limit);
    }
    out
}

fn hull(layout: &Layout, rng: &mut ChaCha8Rng) -> [f32; 4] {
    let mut out = layout.subject[0];
    for area in layout.subject.iter().chain(&layout.object) {
        out = [out[0].min(area[0]), out[1].min(area[1]), out[2].max(area[2]), out[3].max(area[3])];
    }
    jitter(out, rng)
}

/// A large box somewhere.
fn backdrop(rng: &mut ChaCha8Rng) -> [f32; 4] {
    let (x, y) = (uniform(rng, 0.0, 240.0), uniform(rng, 0.0, 180.0));
    [x, y, x + uniform(rng, 200.0, 400.0), y + uniform(rng, 150.0, 300.0)]
}

/// A softmax whose largest entry is `class` nearly always.
fn push_class_scores(out: &mut Vec<f32>, class: usize, classes: usize, rng: &mut ChaCha8Rng) {
    let peak = (classes as f32).ln() + uniform(rng, 0.5, 2.5);
    let start = out.len();
    out.extend((0..classes).map(|c| (0.5 * normal(rng) + if c == class { peak } else { 0.0 }).exp()));
    let sum: f32 = out[start..].iter().sum();
    out[start..].iter_mut().for_each(|p| *p /= sum);
}

fn uniform(rng: &mut ChaCha8Rng, low: f32, high: f32) -> f32 {
    low + (high - low) * ((rng.next_u32() >> 8) as f32 / (1u32 << 24) as f32)
}

/// Nearly standard normal: the sum of four uniform numbers, scaled; the same on every platform.
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let bits = rng.next_u64();
    let sum: u32 = (0..4).map(|i| u32::from((bits >> (16 * i)) as u16)).sum();
    // Mean 4 · 32767.5, standard deviation 65536 / sqrt(3).
    (sum as f32 - 131_070.0) * (1.732_050_8 / 65_536.0)
}
