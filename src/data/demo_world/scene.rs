//! Scenes: what an image of the demo world shows, and how scenes are drawn.
//!
//! A scene holds two groups of equal objects, one spatial relation between them and one place. Words, pixels and
//! questions are derived from it elsewhere (`grammar`, `render`, `questions`); nothing here knows about files.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

/// What a kind of object is; decides its verbs and how its colour and size are said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Stands; its colour is that of the fur.
    Animal,
    /// Stands; its colour is that of the clothes ("a man in red"), its size is short or tall.
    Person,
    /// Is parked.
    Vehicle,
    /// Lies.
    Thing,
}

/// A kind of object.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// "bus"
    pub singular: &'static str,
    /// "buses"
    pub plural: &'static str,
    /// What it is.
    pub family: Family,
    /// Others may be on it.
    pub carries: bool,
    /// Others may be under it.
    pub shelters: bool,
    /// It may be on or under others.
    pub light: bool,
}

const fn kind(
    singular: &'static str,
    plural: &'static str,
    family: Family,
    carries: bool,
    shelters: bool,
    light: bool,
) -> Kind {
    Kind { singular, plural, family, carries, shelters, light }
}

/// All kinds; a detector's class of kind `k` is `k + 1` (0 is background).
pub const KINDS: [Kind; 24] = [
    kind("dog", "dogs", Family::Animal, false, false, true),
    kind("cat", "cats", Family::Animal, false, false, true),
    kind("bird", "birds", Family::Animal, false, false, true),
    kind("sheep", "sheep", Family::Animal, false, false, true),
    kind("cow", "cows", Family::Animal, false, false, false),
    kind("horse", "horses", Family::Animal, true, false, false),
    kind("elephant", "elephants", Family::Animal, true, false, false),
    kind("bear", "bears", Family::Animal, false, false, false),
    kind("man", "men", Family::Person, false, false, true),
    kind("woman", "women", Family::Person, false, false, true),
    kind("boy", "boys", Family::Person, false, false, true),
    kind("girl", "girls", Family::Person, false, false, true),
    kind("car", "cars", Family::Vehicle, true, false, false),
    kind("bus", "buses", Family::Vehicle, true, false, false),
    kind("truck", "trucks", Family::Vehicle, true, true, false),
    kind("bicycle", "bicycles", Family::Vehicle, false, false, false),
    kind("train", "trains", Family::Vehicle, false, false, false),
    kind("boat", "boats", Family::Vehicle, true, true, false),
    kind("ball", "balls", Family::Thing, false, false, true),
    kind("chair", "chairs", Family::Thing, true, true, true),
    kind("bench", "benches", Family::Thing, true, true, false),
    kind("umbrella", "umbrellas", Family::Thing, false, true, true),
    kind("box", "boxes", Family::Thing, true, false, true),
    kind("kite", "kites", Family::Thing, false, true, true),
];

/// All colours.
pub const COLORS: [&str; 8] = ["red", "blue", "green", "yellow", "black", "white", "brown", "orange"];

/// A place: its name and how it is said after an object.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    /// "field"
    pub name: &'static str,
    /// "in a field"
    pub phrase: &'static str,
}

/// All places; a detector's class of place `p` is `KINDS.len() + 1 + p`.
pub const PLACES: [Place; 8] = [
    Place { name: "beach", phrase: "on the beach" },
    Place { name: "street", phrase: "on the street" },
    Place { name: "park", phrase: "in the park" },
    Place { name: "field", phrase: "in a field" },
    Place { name: "snow", phrase: "in the snow" },
    Place { name: "forest", phrase: "in the forest" },
    Place { name: "garden", phrase: "in a garden" },
    Place { name: "desert", phrase: "in the desert" },
];

/// Size of the objects of a group; a medium size is not said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Size {
    /// "small", of people "short".
    Small,
    /// Not said.
    Medium,
    /// "big" or "large", of people "tall".
    Large,
}

impl Size {
    /// All sizes.
    pub const ALL: [Size; 3] = [Size::Small, Size::Medium, Size::Large];

    /// The words for this size of a member of `family`.
    pub fn words(self, family: Family) -> &'static [&'static str] {
        match (self, family) {
            (Size::Medium, _) => &[],
            (Size::Small, Family::Person) => &["short"],
            (Size::Large, Family::Person) => &["tall"],
            (Size::Small, _) => &["small"],
            (Size::Large, _) => &["big", "large"],
        }
    }
}

/// Where the subject is, seen from the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Relation {
    /// Well to the left.
    LeftOf,
    /// Well to the right.
    RightOf,
    /// Close, on either side.
    NextTo,
    /// Higher up in the image, partly hidden.
    Behind,
    /// Lower down in the image, partly hiding the object.
    InFrontOf,
    /// Directly above.
    On,
    /// Directly below.
    Under,
}

impl Relation {
    /// All relations.
    pub const ALL: [Relation; 7] = [
        Relation::LeftOf,
        Relation::RightOf,
        Relation::NextTo,
        Relation::Behind,
        Relation::InFrontOf,
        Relation::On,
        Relation::Under,
    ];

    /// How the relation is said, the commonest phrase first.
    pub fn phrases(self) -> &'static [&'static str] {
        match self {
            Relation::LeftOf => &["to the left of", "left of"],
            Relation::RightOf => &["to the right of", "right of"],
            Relation::NextTo => &["next to", "beside", "near"],
            Relation::Behind => &["behind"],
            Relation::InFrontOf => &["in front of"],
            Relation::On => &["on", "on top of"],
            Relation::Under => &["under", "below"],
        }
    }

    /// The relation of the object to the subject.
    pub fn inverse(self) -> Relation {
        match self {
            Relation::LeftOf => Relation::RightOf,
            Relation::RightOf => Relation::LeftOf,
            Relation::NextTo => Relation::NextTo,
            Relation::Behind => Relation::InFrontOf,
            Relation::InFrontOf => Relation::Behind,
            Relation::On => Relation::Under,
            Relation::Under => Relation::On,
        }
    }
}

/// Equal objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group {
    /// Index in [`KINDS`].
    pub kind: usize,
    /// Index in [`COLORS`].
    pub color: usize,
    /// Size of each of them.
    pub size: Size,
    /// How many, 1 to 3.
    pub count: usize,
}

impl Group {
    /// The kind of the objects.
    pub fn kind(&self) -> &'static Kind {
        &KINDS[self.kind]
    }

    /// "dog" or "dogs", as the count asks.
    pub fn noun(&self) -> &'static str {
        if self.count == 1 { self.kind().singular } else { self.kind().plural }
    }
}

/// What an image shows: `subject` is `relation` `object`, in `place`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scene {
    /// The more conspicuous group.
    pub subject: Group,
    /// Where the subject is, seen from the object.
    pub relation: Relation,
    /// The other group, of another kind.
    pub object: Group,
    /// Index in [`PLACES`].
    pub place: usize,
}

/// Identity of a scene: two scenes with equal keys look and read alike.
pub type SceneKey = ((usize, usize, usize), Relation, (usize, usize, usize), usize);

impl Scene {
    /// Kinds, colours, counts, relation and place; sizes do not count, and neither does which group is named first.
    pub fn key(&self) -> SceneKey {
        let side = |g: &Group| (g.kind, g.color, g.count);
        let forward = (side(&self.subject), self.relation, side(&self.object), self.place);
        let backward = (side(&self.object), self.relation.inverse(), side(&self.subject), self.place);
        forward.min(backward)
    }

    /// The place.
    pub fn place(&self) -> &'static Place {
        &PLACES[self.place]
    }

    /// Both groups, the subject first.
    pub fn groups(&self) -> [&Group; 2] {
        [&self.subject, &self.object]
    }

    /// Draws a scene as it is common in `collection`.
    pub fn sample(collection: Collection, rng: &mut ChaCha8Rng) -> Scene {
        let relation = Relation::ALL[below(rng, Relation::ALL.len())];
        let close = matches!(relation, Relation::On | Relation::Under);
        let object_fits = |kind: &Kind| match relation {
            Relation::On => kind.carries,
            Relation::Under => kind.shelters,
            _ => true,
        };
        let object_kind = draw_kind(rng, object_fits);
        let people_only = collection == Collection::Flickr && below(rng, 10) < 6;
        let subject_kind = draw_kind(rng, |kind| {
            kind != &KINDS[object_kind] && (!close || kind.light) && (!people_only || kind.family == Family::Person)
        });
        let subject = group(rng, subject_kind, 3);
        let object = group(rng, object_kind, if close { 1 } else { 2 });
        Scene { subject, relation, object, place: collection.draw_place(rng) }
    }
}

/// Which set of the demo world an image belongs to; they differ in places, objects and wording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Collection {
    /// Web pictures with one alternative text each.
    Cc,
    /// Everyday scenes with five captions each.
    Coco,
    /// Mostly people, with five captions each.
    Flickr,
}

impl Collection {
    fn draw_place(self, rng: &mut ChaCha8Rng) -> usize {
        // Shares of PLACES, in order.
        let weights: [usize; 8] = match self {
            Collection::Cc => [1, 1, 1, 1, 1, 1, 2, 2],
            Collection::Coco => [3, 3, 3, 3, 3, 3, 1, 1],
            Collection::Flickr => [1, 2, 2, 1, 1, 1, 2, 1],
        };
        let mut left = below(rng, weights.iter().sum());
        for (place, weight) in weights.into_iter().enumerate() {
            if left < weight {
                return place;
            }
            left -= weight;
        }
        0
    }
}

fn draw_kind(rng: &mut ChaCha8Rng, fits: impl Fn(&Kind) -> bool) -> usize {
    let kinds: Vec<usize> = (0..KINDS.len()).filter(|&k| fits(&KINDS[k])).collect();
    kinds.choose(rng).copied().unwrap_or(0)
}

fn group(rng: &mut ChaCha8Rng, kind: usize, most: usize) -> Group {
    Group {
        kind,
        color: below(rng, COLORS.len()),
        size: Size::ALL[below(rng, Size::ALL.len())],
        count: 1 + below(rng, most),
    }
}

/// A uniform number below `n` (n ≥ 1), the same on every platform.
pub(super) fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    rng.random_range(0..n as u32) as usize
}
