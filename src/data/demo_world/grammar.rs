//! Captions: true sentences about a scene, in the wording of each collection.
//!
//! Every template states only what the scene holds; leaving out a colour, a size, a count or the place is allowed,
//! saying another one is not. Nothing here draws scenes or knows about features.

use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::scene::{Collection, Family, Group, Relation, Scene, below};

/// "one", "two", "three" are said as "a"/"an", "two", "three".
const COUNTS: [&str; 4] = ["no", "a", "two", "three"];

/// `count` different captions of `scene`.
pub fn captions(scene: &Scene, collection: Collection, count: usize, rng: &mut ChaCha8Rng) -> Vec<String> {
    let templates: &[Template] = match collection {
        Collection::Coco => &COCO,
        Collection::Cc => &CC,
        Collection::Flickr => &FLICKR,
    };
    let mut order: Vec<usize> = (0..templates.len()).collect();
    order.shuffle(rng);
    let mut out: Vec<String> = Vec::with_capacity(count);
    for template in order.iter().cycle().take(64 * templates.len()).map(|&i| templates[i]) {
        if out.len() == count {
            break;
        }
        let caption = template(scene, &mut Words { rng });
        if !out.contains(&caption) {
            out.push(caption);
        }
    }
    out
}

/// Lower-case words of a text, punctuation left out.
pub fn tokens(text: &str) -> Vec<String> {
    let letters = |c: char| !c.is_ascii_alphanumeric();
    text.split(letters).filter(|w| !w.is_empty()).map(str::to_lowercase).collect()
}

type Template = fn(&Scene, &mut Words) -> String;

// Names: S subject, O object, R relation, P place.
const COCO: [Template; 8] = [
    // a red dog next to two blue cars on the beach .
    |s, w| format!("{} {} {} {} .", w.full(&s.subject), w.relation(s.relation), w.full(&s.object), s.place().phrase),
    // a dog is standing next to two blue cars .
    |s, w| {
        let (subject, object) = (w.bare(&s.subject), w.colored(&s.object));
        format!("{subject} {} {} {object} .", standing(&s.subject), w.relation(s.relation))
    },
    // there is a red dog next to two cars on the beach .
    |s, w| {
        let (subject, object) = (w.colored(&s.subject), w.bare(&s.object));
        format!("there {} {subject} {} {object} {} .", is(&s.subject), w.relation(s.relation), s.place().phrase)
    },
    // a red dog and two blue cars on the beach .
    |s, w| format!("{} and {} {} .", w.colored(&s.subject), w.colored(&s.object), s.place().phrase),
    // a picture of a dog next to two cars on the beach .
    |s, w| {
        let opening = w.one_of(&["a picture of", "a photo of", "a view of"]);
        let (subject, object) = (w.colored(&s.subject), w.colored(&s.object));
        format!("{opening} {subject} {} {object} .", w.relation(s.relation))
    },
    // a red dog is next to two cars on the beach .
    |s, w| {
        let (subject, object) = (w.colored(&s.subject), w.colored(&s.object));
        format!("{subject} {} {} {object} {} .", is(&s.subject), w.relation(s.relation), s.place().phrase)
    },
    // on the beach there is a red dog next to two cars .
    |s, w| {
        let (subject, object) = (w.colored(&s.subject), w.bare(&s.object));
        format!("{} there {} {subject} {} {object} .", s.place().phrase, is(&s.subject), w.relation(s.relation))
    },
    // two blue cars next to a red dog on the beach .
    |s, w| {
        let (first, relation, second) = turned(s);
        format!("{} {} {} {} .", w.colored(first), w.relation(relation), w.colored(second), s.place().phrase)
    },
];

const CC: [Template; 9] = [
    |s, w| format!("{} {} {}", w.headline(&s.subject), w.relation(s.relation), w.headline(&s.object)),
    |s, w| format!("{} and {} {}", w.headline(&s.subject), w.headline(&s.object), s.place().phrase),
    |s, w| {
        let opening = w.one_of(&["stock photo :", "image result for", "free download :", "hd wallpaper :", "photo of"]);
        let (subject, object) = (w.colored(&s.subject), w.bare(&s.object));
        format!("{opening} {subject} {} {object} {}", w.relation(s.relation), s.place().phrase)
    },
    |s, w| format!("{} {} {}", w.full(&s.subject), w.relation(s.relation), w.colored(&s.object)),
    |s, w| {
        let closing = w.one_of(&["- stock photo", ", royalty free image", "| photo gallery", "- image 3 of 12"]);
        format!("{} {} {} {closing}", w.colored(&s.subject), w.relation(s.relation), w.headline(&s.object))
    },
    |s, w| {
        let (subject, object) = (w.colored(&s.subject), w.colored(&s.object));
        format!("{subject} {} {object} {}", w.relation(s.relation), s.place().phrase)
    },
    |s, w| {
        let (subject, object) = (w.colored(&s.subject), w.bare(&s.object));
        format!("{subject} seen {} {} {object}", s.place().phrase, w.relation(s.relation))
    },
    |s, w| {
        let (first, relation, second) = turned(s);
        format!("{} {} {} , a beautiful picture", w.headline(first), w.relation(relation), w.colored(second))
    },
    |s, w| format!("{} {}", w.full(&s.subject), s.place().phrase),
];

const FLICKR: [Template; 7] = [
    |s, w| {
        let (subject, object) = (w.full(&s.subject), w.colored(&s.object));
        sentence(&format!("{subject} {} {} {object} .", standing(&s.subject), w.relation(s.relation)))
    },
    |s, w| {
        let (subject, object) = (w.colored(&s.subject), w.bare(&s.object));
        let place = s.place().phrase;
        sentence(&format!("{subject} {} {} {object} {place} .", standing(&s.subject), w.relation(s.relation)))
    },
    |s, w| {
        let place = s.place().phrase;
        let (subject, object) = (w.colored(&s.subject), w.colored(&s.object));
        sentence(&format!("{place} , {subject} can be seen {} {object} .", w.relation(s.relation)))
    },
    |s, w| sentence(&format!("{} {} {} .", w.full(&s.subject), w.relation(s.relation), w.full(&s.object))),
    |s, w| {
        let (subject, object) = (w.full(&s.subject), w.colored(&s.object));
        sentence(&format!("{subject} with {object} {} .", s.place().phrase))
    },
    |s, w| {
        let (first, relation, second) = turned(s);
        let (first_text, second_text) = (w.colored(first), w.colored(second));
        sentence(&format!("{first_text} {} {} {second_text} .", is(first), w.relation(relation)))
    },
    |s, w| sentence(&format!("{} {} {} .", w.full(&s.subject), standing(&s.subject), s.place().phrase)),
];

/// The scene told from the object's side, where that reads well ("a chair under a dog" does not).
fn turned(scene: &Scene) -> (&Group, Relation, &Group) {
    match scene.relation {
        Relation::On | Relation::Under => (&scene.subject, scene.relation, &scene.object),
        relation => (&scene.object, relation.inverse(), &scene.subject),
    }
}

fn is(group: &Group) -> &'static str {
    if group.count == 1 { "is" } else { "are" }
}

fn standing(group: &Group) -> String {
    let verb = match group.kind().family {
        Family::Animal | Family::Person => "standing",
        Family::Vehicle => "parked",
        Family::Thing => "lying",
    };
    format!("{} {verb}", is(group))
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// Chooses among equivalent words.
struct Words<'a> {
    rng: &'a mut ChaCha8Rng,
}

impl Words<'_> {
    fn one_of(&mut self, choices: &[&'static str]) -> &'static str {
        choices[below(self.rng, choices.len())]
    }

    /// The commonest phrase three times in four.
    fn relation(&mut self, relation: Relation) -> &'static str {
        let phrases = relation.phrases();
        if below(self.rng, 4) < 3 { phrases[0] } else { self.one_of(phrases) }
    }

    /// "a big red dog"
    fn full(&mut self, group: &Group) -> String {
        let sizes = group.size.words(group.kind().family);
        let size = if sizes.is_empty() { None } else { Some(self.one_of(sizes)) };
        noun_phrase(group, true, size, true)
    }

    /// "a red dog"
    fn colored(&mut self, group: &Group) -> String {
        noun_phrase(group, true, None, true)
    }

    /// "a dog"
    fn bare(&mut self, group: &Group) -> String {
        noun_phrase(group, true, None, false)
    }

    /// "red dog", "two red dogs", "red dogs"
    fn headline(&mut self, group: &Group) -> String {
        let counted = group.count > 1 && below(self.rng, 2) == 0;
        noun_phrase(group, counted, None, true)
    }
}

fn noun_phrase(group: &Group, counted: bool, size: Option<&str>, color: bool) -> String {
    let person = group.kind().family == Family::Person;
    let mut words: Vec<&str> = size.into_iter().collect();
    if color && !person {
        words.push(super::scene::COLORS[group.color]);
    }
    words.push(group.noun());
    if counted {
        let count = match (group.count, words[0].as_bytes().first()) {
            (1, Some(b'a' | b'e' | b'i' | b'o' | b'u')) => "an",
            (count, _) => COUNTS[count.min(3)],
        };
        words.insert(0, count);
    }
    if color && person {
        words.extend(["in", super::scene::COLORS[group.color]]);
    }
    words.join(" ")
}
