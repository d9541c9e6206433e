//! Reads captions back, word by word, without the grammar that wrote them: what does a caption claim?

use vlp::data::demo_world::{COLORS, KINDS, PLACES, Relation, Scene, Size};

/// A mention of a group: "two small red dogs", "a man in blue".
#[derive(Debug, Clone, PartialEq)]
pub struct Mention {
    pub kind: usize,
    pub noun: String,
    pub count: Option<usize>,
    pub color: Option<usize>,
    pub size: Option<Size>,
}

/// All that a caption claims.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims {
    pub mentions: Vec<Mention>,
    pub relation: Option<Relation>,
    pub place: Option<usize>,
}

/// Phrases of the templates that claim nothing.
const FRAMES: [&str; 16] = [
    "a picture of ",
    "a photo of ",
    "a view of ",
    "stock photo : ",
    "image result for ",
    "free download : ",
    "hd wallpaper : ",
    "photo of ",
    " - stock photo",
    " , royalty free image",
    " | photo gallery",
    " - image 3 of 12",
    " , a beautiful picture",
    "there is ",
    "there are ",
    " .",
];

/// Between the groups: words that claim nothing. Number agreement of the verb is checked by the caller.
const VERBS: [&str; 9] = ["is", "are", "standing", "parked", "lying", "seen", "can", "be", ","];

/// What `caption` claims; an error names the first thing that is not understood.
pub fn read(caption: &str) -> Result<Claims, String> {
    let mut text = caption.to_lowercase();
    let mut place = None;
    for (p, known) in PLACES.iter().enumerate() {
        if text.contains(known.phrase) {
            place = Some(p);
            text = text.replace(known.phrase, "");
        }
    }
    for frame in FRAMES {
        text = text.replace(frame, " ");
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let mut mentions: Vec<Mention> = Vec::new();
    let (mut pending, mut between): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut i = 0;
    while i < words.len() {
        let word = words[i];
        i += 1;
        let Some(kind) = KINDS.iter().position(|k| k.singular == word || k.plural == word) else {
            if is_modifier(word) {
                pending.push(word);
            } else if pending.is_empty() {
                between.push(word);
            } else {
                return Err(format!("`{word}` after `{}`", pending.join(" ")));
            }
            continue;
        };
        if mentions.is_empty() && between.iter().any(|w| !VERBS.contains(w)) {
            return Err(format!("`{}` before the first noun", between.join(" ")));
        }
        let mut mention = Mention { kind, noun: word.into(), count: None, color: None, size: None };
        for modifier in pending.drain(..) {
            match modifier {
                "a" | "an" => mention.count = Some(1),
                "two" => mention.count = Some(2),
                "three" => mention.count = Some(3),
                "small" | "short" => mention.size = Some(Size::Small),
                "big" | "large" | "tall" => mention.size = Some(Size::Large),
                color => mention.color = COLORS.iter().position(|c| *c == color),
            }
        }
        // "a man in blue"
        if words.get(i) == Some(&"in") && words.get(i + 1).is_some_and(|w| COLORS.contains(w)) {
            mention.color = COLORS.iter().position(|c| *c == words[i + 1]);
            i += 2;
        }
        mentions.push(mention);
    }
    let said: Vec<&str> = between.into_iter().filter(|w| !VERBS.contains(w)).collect();
    let said = said.join(" ");
    let relation = Relation::ALL.into_iter().find(|r| r.phrases().contains(&said.as_str()));
    match (mentions.len(), relation, said.as_str()) {
        (2, Some(_), _) | (2, None, "and" | "with") | (1, None, "") => Ok(Claims { mentions, relation, place }),
        _ => Err(format!("`{said}` between {} groups", mentions.len())),
    }
}

fn is_modifier(word: &str) -> bool {
    ["a", "an", "two", "three", "small", "short", "big", "large", "tall"].contains(&word) || COLORS.contains(&word)
}

/// What of `claims` is wrong about `scene`, or not English.
pub fn contradictions(claims: &Claims, scene: &Scene) -> Vec<String> {
    let mut out = Vec::new();
    let mut wrong = |what: String| out.push(what);
    for mention in &claims.mentions {
        let Some(group) = scene.groups().into_iter().find(|g| g.kind == mention.kind) else {
            wrong(format!("no {}", mention.noun));
            continue;
        };
        let kind = &KINDS[mention.kind];
        if mention.noun != if group.count == 1 { kind.singular } else { kind.plural } {
            wrong(format!("number of {}", mention.noun));
        }
        if mention.count.is_some_and(|n| n != group.count) {
            wrong(format!("count of {}", mention.noun));
        }
        if mention.color.is_some_and(|c| c != group.color) {
            wrong(format!("color of {}", mention.noun));
        }
        if mention.size.is_some_and(|s| s != group.size) {
            wrong(format!("size of {}", mention.noun));
        }
    }
    if let (Some(relation), [first, _]) = (claims.relation, claims.mentions.as_slice()) {
        let expected = if first.kind == scene.subject.kind { scene.relation } else { scene.relation.inverse() };
        if relation != expected {
            wrong(format!("relation {relation:?}"));
        }
    }
    if claims.place.is_some_and(|p| p != scene.place) {
        wrong("place".into());
    }
    out
}
