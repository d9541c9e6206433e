//! Questions about a scene in the manner of VQA v2: one of each answer type, ten answers each.
//!
//! At least six of the ten people give the right answer; the others err, as people do.
//! Answers are balanced: no word is a good guess without looking. Nothing here knows about files.

use rand_chacha::ChaCha8Rng;

use super::scene::{COLORS, Family, Group, KINDS, PLACES, Relation, Scene, below};

/// People asked per question.
pub const PEOPLE: usize = 10;

/// Questions of each type about an image.
pub const ROUNDS: usize = 4;

/// Answer types of VQA v2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AnswerType {
    /// "yes/no"
    YesNo,
    /// "number"
    Number,
    /// "other"
    Other,
}

impl AnswerType {
    /// As the official annotations name it.
    pub fn name(self) -> &'static str {
        match self {
            AnswerType::YesNo => "yes/no",
            AnswerType::Number => "number",
            AnswerType::Other => "other",
        }
    }
}

/// A question and what ten people said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// "What color is the dog?"
    pub text: String,
    /// Opening words, as the official annotations group questions: "what color is the".
    pub question_type: String,
    /// Type of the right answer.
    pub answer_type: AnswerType,
    /// The right answer, also the commonest.
    pub answer: String,
    /// What each person said.
    pub answers: Vec<String>,
    /// How sure each person was: "yes", "maybe", "no".
    pub confidences: Vec<&'static str>,
}

/// Three questions about `scene`: yes/no, number, other.
pub fn questions(scene: &Scene, rng: &mut ChaCha8Rng) -> [Question; 3] {
    let forms = [
        (AnswerType::YesNo, yes_no(scene, rng)),
        (AnswerType::Number, number(scene, rng)),
        (AnswerType::Other, other(scene, rng)),
    ];
    forms.map(|(answer_type, form)| {
        let (answers, confidences) = ask(&form.answer, answer_type, rng);
        Question {
            text: form.text,
            question_type: form.question_type,
            answer_type,
            answer: form.answer,
            answers,
            confidences,
        }
    })
}

/// Every answer a question can have, `<unk>` first; the same for all seeds.
pub fn answer_vocabulary() -> Vec<String> {
    let mut words: Vec<&str> = vec!["<unk>", "yes", "no", "0", "1", "2", "3", "4"];
    words.extend(COLORS);
    words.extend(PLACES.iter().map(|p| p.name));
    for kind in &KINDS {
        words.push(kind.singular);
        if kind.plural != kind.singular {
            words.push(kind.plural);
        }
    }
    words.into_iter().map(str::to_string).collect()
}

struct Form {
    text: String,
    question_type: String,
    answer: String,
}

fn form(question_type: &str, rest: &str, answer: &str) -> Form {
    let mut chars = question_type.chars();
    let opening: String = chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default();
    Form { text: format!("{opening} {rest}?"), question_type: question_type.into(), answer: answer.into() }
}

fn yes_no(scene: &Scene, rng: &mut ChaCha8Rng) -> Form {
    let yes = below(rng, 2) == 0;
    let answer = if yes { "yes" } else { "no" };
    let group = scene.groups()[below(rng, 2)];
    let verb = if group.count == 1 { "is the" } else { "are the" };
    match below(rng, 4) {
        0 => {
            let kind = if yes { group.kind } else { absent_kind(scene, rng) };
            let noun = KINDS[kind].singular;
            if noun.starts_with(['a', 'e', 'i', 'o', 'u']) {
                form("is there an", noun, answer)
            } else {
                form("is there a", noun, answer)
            }
        }
        1 => {
            let color = COLORS[if yes { group.color } else { other_than(group.color, COLORS.len(), rng) }];
            let dressed = if group.kind().family == Family::Person { "in " } else { "" };
            form(verb, &format!("{} {dressed}{color}", group.noun()), answer)
        }
        2 => {
            let verb = if scene.subject.count == 1 { "is the" } else { "are the" };
            let relation = match (yes, scene.relation) {
                (true, relation) => relation,
                (false, Relation::NextTo) => Relation::Under,
                (false, relation) => relation.inverse(),
            };
            let (subject, object) = (scene.subject.noun(), scene.object.noun());
            form(verb, &format!("{subject} {} the {object}", relation.phrases()[0]), answer)
        }
        _ => {
            let place = if yes { scene.place } else { other_than(scene.place, PLACES.len(), rng) };
            form("was this", &format!("taken {}", PLACES[place].phrase), answer)
        }
    }
}

fn number(scene: &Scene, rng: &mut ChaCha8Rng) -> Form {
    let (more, fewer) = match scene.subject.count >= scene.object.count {
        true => (&scene.subject, &scene.object),
        false => (&scene.object, &scene.subject),
    };
    let (noun, count) = match below(rng, 8) {
        0 => (KINDS[absent_kind(scene, rng)].plural, 0),
        1 | 2 => (fewer.kind().plural, fewer.count),
        _ => (more.kind().plural, more.count),
    };
    let ending = if below(rng, 2) == 0 { "are there" } else { "are in the picture" };
    form("how many", &format!("{noun} {ending}"), &count.to_string())
}

fn other(scene: &Scene, rng: &mut ChaCha8Rng) -> Form {
    let group: &Group = scene.groups()[below(rng, 2)];
    let plural = group.count > 1;
    let noun = group.noun();
    match below(rng, 3) {
        0 => {
            let dressed = if group.kind().family == Family::Person { " wearing" } else { "" };
            let opening = if plural { "what color are the" } else { "what color is the" };
            form(opening, &format!("{noun}{dressed}"), COLORS[group.color])
        }
        1 => form(if plural { "where are the" } else { "where is the" }, noun, scene.place().name),
        _ => {
            let (relation, landmark, answer) = if below(rng, 2) == 0 {
                (scene.relation, &scene.object, &scene.subject)
            } else {
                (scene.relation.inverse(), &scene.subject, &scene.object)
            };
            form("what is", &format!("{} the {}", relation.phrases()[0], landmark.noun()), answer.noun())
        }
    }
}

fn absent_kind(scene: &Scene, rng: &mut ChaCha8Rng) -> usize {
    let present = scene.groups().map(|g| g.kind);
    let absent: Vec<usize> = (0..KINDS.len()).filter(|k| !present.contains(k)).collect();
    absent[below(rng, absent.len())]
}

fn other_than(index: usize, count: usize, rng: &mut ChaCha8Rng) -> usize {
    (index + 1 + below(rng, count - 1)) % count
}

/// What ten people say when `answer` is right: 5 % err, four of them at most.
fn ask(answer: &str, answer_type: AnswerType, rng: &mut ChaCha8Rng) -> (Vec<String>, Vec<&'static str>) {
    let mut errors = 0;
    (0..PEOPLE)
        .map(|_| {
            if errors < 4 && below(rng, 100) < 5 {
                errors += 1;
                (mistake(answer, answer_type, rng), if below(rng, 3) == 0 { "no" } else { "maybe" })
            } else {
                (answer.to_string(), if below(rng, 8) == 0 { "maybe" } else { "yes" })
            }
        })
        .unzip()
}

fn mistake(answer: &str, answer_type: AnswerType, rng: &mut ChaCha8Rng) -> String {
    if below(rng, 8) == 0 {
        return "not sure".into();
    }
    let index_in = |words: &[&str]| words.iter().position(|w| *w == answer);
    let places = PLACES.each_ref().map(|p| p.name);
    match answer_type {
        AnswerType::YesNo => if answer == "yes" { "no" } else { "yes" }.into(),
        AnswerType::Number => match answer.parse::<usize>() {
            Ok(n) if n > 0 && below(rng, 2) == 0 => (n - 1).to_string(),
            Ok(n) => (n + 1).to_string(),
            Err(_) => "not sure".into(),
        },
        AnswerType::Other => {
            if let Some(i) = index_in(&COLORS) {
                COLORS[other_than(i, COLORS.len(), rng)].into()
            } else if let Some(i) = index_in(&places) {
                places[other_than(i, places.len(), rng)].into()
            } else {
                let i = KINDS.iter().position(|k| k.singular == answer || k.plural == answer).unwrap_or(0);
                let kind = &KINDS[other_than(i, KINDS.len(), rng)];
                if answer == KINDS[i].singular { kind.singular } else { kind.plural }.into()
            }
        }
    }
}
