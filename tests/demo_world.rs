//! The demo world: its texts are true, its regions can be learnt from, its files have the original layout.

#[path = "demo_world/folder.rs"]
mod folder;
#[path = "demo_world/layout.rs"]
mod layout;
#[path = "demo_world/reading.rs"]
mod reading;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;

use vlp::data::demo_world::{
    AnswerType, CANVAS, COLORS, Family, KINDS, PEOPLE, PLACES, Picture, Relation, Scene, Shows, Size, World,
    WorldOptions, answer_vocabulary, vocabulary,
};

const SMALL: WorldOptions = WorldOptions { seed: 7, full_size: false };
const FULL: WorldOptions = WorldOptions { seed: 7, full_size: true };

fn all(world: &World) -> impl Iterator<Item = &Picture> {
    world.coco.iter().chain(&world.test2015).chain(&world.cc).chain(&world.flickr)
}

fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = walkdir::WalkDir::new(root).into_iter().map(|e| e.unwrap()).filter(|e| e.file_type().is_file());
    entries
        .map(|e| (e.path().strip_prefix(root).unwrap().to_string_lossy().into_owned(), fs::read(e.path()).unwrap()))
        .collect()
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn captions_are_true_and_different() {
    let world = World::plan(SMALL);
    let mut relations = HashMap::new();
    for picture in all(&world) {
        let expected = match picture.stem.as_str() {
            stem if stem.starts_with("COCO_test2015") => 0,
            stem if stem.starts_with("0") => 1,
            _ => 5,
        };
        assert_eq!(picture.captions.len(), expected, "{}", picture.stem);
        assert_eq!(picture.captions.iter().collect::<HashSet<_>>().len(), expected, "{:?}", picture.captions);
        for caption in &picture.captions {
            let claims = reading::read(caption).unwrap_or_else(|error| panic!("{error} in: {caption}"));
            let wrong = reading::contradictions(&claims, &picture.scene);
            assert_eq!(wrong, Vec::<String>::new(), "{caption}: {:?}", picture.scene);
            let words: Vec<String> = caption.split(' ').map(str::to_lowercase).collect();
            let misfits = |pair: &&[String]| {
                let vowel = pair[1].starts_with(['a', 'e', 'i', 'o', 'u']);
                (pair[0] == "a" && vowel) || (pair[0] == "an" && !vowel)
            };
            assert_eq!(words.windows(2).find(misfits), None, "{caption}");
            *relations.entry(claims.relation).or_insert(0) += 1;
        }
    }
    assert!(Relation::ALL.iter().all(|r| relations[&Some(*r)] > 200), "{relations:?}");
}

#[test]
fn the_reader_of_captions_notices_lies() {
    let world = World::plan(FULL);
    let scene = world.coco[0].scene;
    let claims = reading::read(world.coco[0].captions.iter().max_by_key(|c| c.len()).unwrap()).unwrap();
    assert_eq!(reading::contradictions(&claims, &scene), Vec::<String>::new());
    let flip = |edit: &dyn Fn(&mut Scene)| {
        let mut other = scene;
        edit(&mut other);
        reading::contradictions(&claims, &other).len()
    };
    assert!(flip(&|s| s.subject.color = (s.subject.color + 1) % COLORS.len()) > 0);
    assert!(flip(&|s| s.subject.count = s.subject.count % 3 + 1) > 0);
    assert!(flip(&|s| s.place = (s.place + 1) % PLACES.len()) > 0);
    assert!(flip(&|s| s.relation = if s.relation == Relation::On { Relation::Behind } else { Relation::On }) > 0);
    assert!(flip(&|s| s.object.kind = (s.object.kind + 1) % KINDS.len()) > 0);
}

#[test]
fn no_scene_occurs_twice() {
    for seed in [7, 8] {
        let world = World::plan(WorldOptions { seed, ..SMALL });
        let keys: HashSet<_> = all(&world).map(|p| p.scene.key()).collect();
        assert_eq!(keys.len(), 1000 + 100 + 1200 + 200);
    }
    let scene = World::plan(FULL).coco[0].scene;
    let turned =
        Scene { subject: scene.object, relation: scene.relation.inverse(), object: scene.subject, place: scene.place };
    assert_eq!(scene.key(), turned.key());
}

#[test]
fn the_vocabulary_holds_every_word() {
    let vocabulary = vocabulary();
    let known: HashSet<&str> = vocabulary.iter().map(String::as_str).collect();
    assert_eq!(known.len(), vocabulary.len(), "no token twice");
    assert_eq!(vocabulary[0], "[PAD]");
    assert_eq!(vocabulary[99..104], ["[unused99]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]);
    for seed in [7, 8] {
        let world = World::plan(WorldOptions { seed, ..SMALL });
        for picture in all(&world) {
            let questions = world.questions(picture);
            let texts = picture.captions.iter().chain(questions.iter().map(|q| &q.text));
            for text in texts {
                let pieces: Vec<&str> =
                    text.split_inclusive('?').flat_map(|t| t.trim_end_matches('?').split(' ')).collect();
                assert!(pieces.len() <= 20, "{text}");
                let unknown = pieces.iter().filter(|w| !w.is_empty()).find(|w| !known.contains(*w));
                assert_eq!(unknown, None, "{text}");
            }
        }
    }
}

#[test]
fn features_tell_objects_and_colors_apart() {
    let world = World::plan(SMALL);
    let prototypes = world.prototypes();
    let size = world.sizes.geometry.feature_size;
    let nearest = |feature: &[f32], table: &[Vec<f32>]| {
        let dot = |p: &Vec<f32>| -> f32 { p.iter().zip(feature).map(|(a, b)| a * b).sum() };
        (0..table.len()).max_by(|a, b| dot(&table[*a]).total_cmp(&dot(&table[*b])))
    };
    let (mut seen, mut right_kind, mut right_color, mut right_class) = (0, 0, 0, 0);
    for picture in world.coco.iter().filter(|p| p.split == "test") {
        let regions = world.regions(picture, &prototypes);
        for (row, shows) in regions.shows.iter().enumerate() {
            let group = match shows {
                Shows::Subject(_) => picture.scene.subject,
                Shows::Object(_) => picture.scene.object,
                _ => continue,
            };
            let feature = &regions.features[row * size..(row + 1) * size];
            let classes = world.sizes.geometry.classes;
            let scores = &regions.class_scores[row * classes..(row + 1) * classes];
            let best = (0..classes).max_by(|a, b| scores[*a].total_cmp(&scores[*b]));
            seen += 1;
            right_kind += usize::from(nearest(feature, &prototypes.kinds) == Some(group.kind));
            right_color += usize::from(nearest(feature, &prototypes.colors) == Some(group.color));
            right_class += usize::from(best == Some(group.kind + 1));
        }
    }
    assert_eq!(seen, 100 * 12);
    for right in [right_kind, right_color, right_class] {
        assert!(right * 100 > seen * 95, "{right_kind}, {right_color}, {right_class} of {seen}");
    }
}

#[test]
fn boxes_follow_relation_count_and_size() {
    let world = World::plan(SMALL);
    let prototypes = world.prototypes();
    let mut widths: BTreeMap<(Relation, Size), Vec<f32>> = BTreeMap::new();
    for picture in &world.coco {
        let regions = world.regions(picture, &prototypes);
        let scene = &picture.scene;
        let of = |wanted: &dyn Fn(Shows) -> bool| -> Vec<[f32; 4]> {
            let rows = regions.shows.iter().zip(regions.boxes.chunks(6)).filter(|(shows, _)| wanted(**shows));
            rows.map(|(_, b)| [b[0], b[1], b[2], b[3]]).collect()
        };
        for b in of(&|_| true) {
            assert!(0.0 <= b[0] && b[0] < b[2] && b[2] <= CANVAS[0], "{b:?}");
            assert!(0.0 <= b[1] && b[1] < b[3] && b[3] <= CANVAS[1], "{b:?}");
        }
        let instances: HashSet<usize> =
            regions.shows.iter().filter_map(|s| if let Shows::Subject(i) = s { Some(*i) } else { None }).collect();
        assert_eq!(instances.len(), scene.subject.count);
        let (subject, object) = (of(&|s| matches!(s, Shows::Subject(_))), of(&|s| matches!(s, Shows::Object(_))));
        let mean =
            |boxes: &[[f32; 4]], f: &dyn Fn(&[f32; 4]) -> f32| boxes.iter().map(f).sum::<f32>() / boxes.len() as f32;
        let (x, bottom) = (|b: &[f32; 4]| (b[0] + b[2]) / 2.0, |b: &[f32; 4]| b[3]);
        let (dx, dy) = (mean(&subject, &x) - mean(&object, &x), mean(&subject, &bottom) - mean(&object, &bottom));
        let holds = match scene.relation {
            Relation::LeftOf => dx < -300.0,
            Relation::RightOf => dx > 300.0,
            Relation::NextTo => (100.0..300.0).contains(&dx.abs()) && dy.abs() < 30.0,
            Relation::Behind => dx.abs() < 100.0 && (-160.0..-80.0).contains(&dy),
            Relation::InFrontOf => dx.abs() < 100.0 && (80.0..160.0).contains(&dy),
            Relation::On => dx.abs() < 60.0 && dy < -80.0,
            Relation::Under => dx.abs() < 60.0 && dy > 80.0,
        };
        assert!(holds, "{scene:?}: {dx} {dy}");
        let width = mean(&subject, &|b| b[2] - b[0]);
        widths.entry((scene.relation, scene.subject.size)).or_default().push(width);
    }
    for relation in Relation::ALL {
        let range =
            |size: Size| widths[&(relation, size)].iter().fold((f32::MAX, 0f32), |(a, b), w| (a.min(*w), b.max(*w)));
        let [small, medium, large] = Size::ALL.map(range);
        assert!(small.1 < medium.0 && medium.1 < large.0, "{relation:?}: {small:?} {medium:?} {large:?}");
    }
}

#[test]
fn questions_are_true_and_balanced() {
    let world = World::plan(SMALL);
    let vocabulary = answer_vocabulary();
    assert_eq!(vocabulary[0], "<unk>");
    let mut counts: BTreeMap<AnswerType, BTreeMap<String, usize>> = BTreeMap::new();
    for picture in &world.coco {
        for q in world.questions(picture) {
            let scene = &picture.scene;
            assert!(vocabulary.contains(&q.answer), "{q:?}");
            assert_eq!((q.answers.len(), q.confidences.len()), (PEOPLE, PEOPLE));
            assert!(q.answers.iter().filter(|a| **a == q.answer).count() >= 6, "{q:?}");
            assert!(q.text.to_lowercase().starts_with(&q.question_type) && q.text.ends_with('?'), "{q:?}");
            *counts.entry(q.answer_type).or_default().entry(q.answer.clone()).or_insert(0) += 1;
            let rest = q.text[q.question_type.len() + 1..q.text.len() - 1].to_string();
            let asked = scene.groups().into_iter().find(|g| rest.split(' ').next() == Some(g.noun()));
            let yes = |truth: bool| if truth { "yes" } else { "no" }.to_string();
            let expected = match q.question_type.as_str() {
                "is there a" | "is there an" => yes(scene.groups().iter().any(|g| g.kind().singular == rest)),
                "was this" => yes(rest == format!("taken {}", scene.place().phrase)),
                "how many" => {
                    let noun = rest.split(' ').next().unwrap();
                    let group = scene.groups().into_iter().find(|g| g.kind().plural == noun);
                    group.map_or(0, |g| g.count).to_string()
                }
                "what color is the" | "what color are the" => COLORS[asked.unwrap().color].to_string(),
                "where is the" | "where are the" => scene.place().name.to_string(),
                "what is" => {
                    let [subject, object] = scene.groups().map(|g| g.noun());
                    let of = |relation: Relation, noun: &str| format!("{} the {noun}", relation.phrases()[0]);
                    let by_question =
                        [(of(scene.relation, object), subject), (of(scene.relation.inverse(), subject), object)];
                    by_question.iter().find(|(question, _)| *question == rest).unwrap().1.to_string()
                }
                "is the" | "are the" => {
                    let group = asked.unwrap();
                    let said = rest.strip_prefix(group.noun()).unwrap().trim();
                    let colored = COLORS.contains(&said.trim_start_matches("in "));
                    let dressed = if group.kind().family == Family::Person { "in " } else { "" };
                    let relation = format!("{} the {}", scene.relation.phrases()[0], scene.object.noun());
                    yes(if colored { said == format!("{dressed}{}", COLORS[group.color]) } else { said == relation })
                }
                other => panic!("question type {other}"),
            };
            assert_eq!(q.answer, expected, "{}: {scene:?}", q.text);
        }
    }
    for (answer_type, largest_percent) in [(AnswerType::YesNo, 55), (AnswerType::Number, 35), (AnswerType::Other, 12)] {
        let answers = &counts[&answer_type];
        assert_eq!(answers.values().sum::<usize>(), 4000);
        assert!(answers.values().all(|n| *n <= 40 * largest_percent), "{answers:?}");
    }
}
