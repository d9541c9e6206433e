//! VQA 2.0 in pythia's layout: pickled question files (imdb), the answer vocabulary, and what the official annotations say
//! about types.
//!
//! A question is read as a caption is: [`read_images`] gives images whose `references` are their questions, so that samples,
//! batches and checks are those of captions; [`VqaData`] has the answers besides. Pickles are read as data, nothing in them
//! is executed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use crate::config::DataSettings;
use crate::formats::numpy::read_objects;
use crate::formats::pickle::{Entries, Value};
use crate::metrics::vqa::soft_targets::{AnswerVocabulary, UNKNOWN, soft_target};
use crate::metrics::vqa::{HumanAnswer, VqaEntry};

use super::error::{DataError, read_file};
use super::karpathy::{CaptionData, ImageId, ImageRecord, Sample, coco_id, read_valid};
use super::tokenizer::Tokenizer;

/// Questions of some splits: as texts for the network, with what people answered.
#[derive(Debug, Clone)]
pub struct VqaData {
    /// Images, and one sample per question.
    pub texts: Arc<CaptionData>,
    /// One per sample.
    pub questions: Vec<Question>,
    /// The classes of the answer head.
    pub answers: Arc<AnswerVocabulary>,
}

/// A question and its answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Official id.
    pub id: u64,
    /// As it was asked.
    pub text: String,
    /// What people answered; empty where that is not published (test2015).
    pub answers: Vec<String>,
    /// Class and soft score of each answer class that scores, ascending.
    pub target: Vec<(u32, f32)>,
}

/// Types of a question, from the official annotations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// How the question begins, e.g. `how many`.
    pub question_type: String,
    /// `yes/no`, `number` or `other`.
    pub answer_type: String,
    /// The people's answers with their identities.
    pub answers: Vec<HumanAnswer>,
}

impl VqaData {
    /// The questions of `splits` about valid images, grouped by image in the order in which the files first name them; at
    /// most `data.max_images` images of each split.
    pub fn load(settings: &DataSettings, splits: &[String], tokenizer: &Tokenizer) -> Result<Self, DataError> {
        let answers = Arc::new(answer_vocabulary(settings)?);
        let (mut images, mut samples, mut questions) = (Vec::new(), Vec::new(), Vec::new());
        for (record, asked) in read(settings, splits)? {
            for question in asked {
                samples.push(Sample { image: images.len(), pieces: tokenizer.encode(&question.text) });
                let target = soft_target(&question.answers, &answers)
                    .map_err(|e| DataError::answers(&settings.imdb[&record.split], question.id, &e.to_string()))?;
                questions.push(Question { target: target.scores, ..question });
            }
            images.push(record);
        }
        Ok(Self { texts: Arc::new(CaptionData { images, samples }), questions, answers })
    }

    /// Question, people's answers and types as the metrics take them, without predictions. Questions that `annotations` lack
    /// get their answers from the imdb file, and no types.
    pub fn entries(&self, annotations: &BTreeMap<u64, Annotation>) -> Vec<VqaEntry> {
        let entry = |question: &Question| {
            let plain = || {
                let answer = |(i, a): (usize, &String)| HumanAnswer { answer: a.clone(), identity: i.to_string() };
                question.answers.iter().enumerate().map(answer).collect()
            };
            let found = annotations.get(&question.id);
            VqaEntry {
                question_id: question.id,
                question_type: found.map(|a| a.question_type.clone()).unwrap_or_default(),
                answer_type: found.map(|a| a.answer_type.clone()).unwrap_or_default(),
                answers: found.map_or_else(plain, |a| a.answers.clone()),
                prediction: String::new(),
            }
        };
        self.questions.iter().map(entry).collect()
    }

    /// Soft scores `[B, A]` of these samples, row-major.
    pub fn targets(&self, samples: &[usize]) -> Vec<f32> {
        let mut out = vec![0.0; samples.len() * self.answers.len()];
        for (row, sample) in out.chunks_exact_mut(self.answers.len()).zip(samples) {
            for (class, score) in &self.questions[*sample].target {
                row[*class as usize] = *score;
            }
        }
        out
    }
}

/// The images of `splits` with their questions as references.
pub fn read_images(settings: &DataSettings, splits: &[String]) -> Result<Vec<ImageRecord>, DataError> {
    Ok(read(settings, splits)?.into_iter().map(|(record, _)| record).collect())
}

/// The questions of `splits` about valid images as they were asked and answered; targets are empty.
pub fn questions(settings: &DataSettings, splits: &[String]) -> Result<Vec<Question>, DataError> {
    Ok(read(settings, splits)?.into_iter().flat_map(|(_, asked)| asked).collect())
}

/// The answer vocabulary that `data.answers` names.
pub fn answer_vocabulary(settings: &DataSettings) -> Result<AnswerVocabulary, DataError> {
    let bytes = read_file("data.answers", "answer vocabulary", &settings.answers)?;
    let path = PathBuf::from(&settings.answers);
    let text = String::from_utf8(bytes).map_err(|e| DataError::Answers {
        path: path.clone(),
        problem: format!("byte {} is not UTF-8 text", e.utf8_error().valid_up_to()),
    })?;
    let vocabulary = AnswerVocabulary::new(text.lines())
        .map_err(|_| DataError::Answers { path: path.clone(), problem: format!("no line is `{UNKNOWN}`") })?;
    // The prediction passes over class 0, whatever it is called.
    match vocabulary.unknown() {
        0 => Ok(vocabulary),
        class => {
            let problem = format!("`{UNKNOWN}` stands on line {}, expected on line 1", class + 1);
            Err(DataError::Answers { path, problem })
        }
    }
}

/// Images with their questions, in order.
fn read(settings: &DataSettings, splits: &[String]) -> Result<Vec<(ImageRecord, Vec<Question>)>, DataError> {
    let valid = read_valid(settings)?;
    let mut found = Vec::new();
    for split in splits {
        let Some(path) = settings.imdb.get(split) else {
            return Err(DataError::NoImdb { split: split.clone(), known: settings.imdb.keys().cloned().collect() });
        };
        let before = found.len();
        let (seen, example) = read_split(settings, split, Path::new(path), &valid, &mut found)?;
        if found.len() == before {
            return Err(DataError::NoValidImage {
                annotations: path.into(),
                valid: PathBuf::from(&settings.valid_images),
                splits: vec![split.clone()],
                images: seen,
                entries: valid.len(),
                example,
            });
        }
    }
    Ok(found)
}

/// Appends the images of one file; returns how many images it names, and the name of one that is not valid.
fn read_split(
    settings: &DataSettings,
    split: &str,
    path: &Path,
    valid: &HashSet<String>,
    found: &mut Vec<(ImageRecord, Vec<Question>)>,
) -> Result<(usize, String), DataError> {
    if !path.exists() {
        return Err(DataError::Missing { key: "data.imdb", what: "question file (imdb)", path: path.to_owned() });
    }
    let file = read_objects(path)?;
    let items = file.root().items();
    if items.as_ref().is_none_or(|items| items.iter().nth(1).is_none()) {
        let entry = Entry { path, index: 1, fields: None, kind: "missing" };
        return Err(entry.unfit("", "missing".to_owned(), "the first question"));
    }
    let (mut slots, mut ids): (HashMap<String, Option<usize>>, HashSet<u64>) = Default::default();
    let (mut example, start) = (String::new(), found.len());
    // Element 0 is a header.
    for (index, value) in items.iter().flat_map(|items| items.iter()).enumerate().skip(1) {
        let entry = Entry { path, index, fields: value.dict(), kind: value.kind() };
        let image = entry.text("image_name")?;
        let slot = match slots.get(image) {
            Some(slot) => *slot,
            None => {
                let file_name = format!("{image}.jpg");
                let full = settings.max_images > 0 && found.len() - start >= settings.max_images;
                let slot = match valid.contains(&file_name) {
                    true if full => None,
                    true => {
                        let image_id = ImageId::Number(coco_id(image).ok_or_else(|| {
                            entry.unfit(
                                "image_name",
                                format!("`{image}`"),
                                "a name that ends in the number of a COCO image",
                            )
                        })?);
                        let record = ImageRecord {
                            stem: image.to_owned(),
                            file_name,
                            image_id,
                            split: split.to_owned(),
                            references: Vec::new(),
                        };
                        found.push((record, Vec::new()));
                        Some(found.len() - 1)
                    }
                    false => {
                        example = file_name;
                        None
                    }
                };
                slots.insert(image.to_owned(), slot);
                slot
            }
        };
        let question = entry.question()?;
        if !ids.insert(question.id) {
            return Err(entry.unfit(
                "question_id",
                format!("{}, which came before", question.id),
                "each question once",
            ));
        }
        if let Some((record, questions)) = slot.and_then(|slot| found.get_mut(slot)) {
            record.references.push(question.text.clone());
            questions.push(question);
        }
    }
    Ok((slots.len(), example))
}

/// One element of an imdb file.
struct Entry<'a> {
    path: &'a Path,
    index: usize,
    fields: Option<Entries<'a>>,
    /// What it is in Python's words.
    kind: &'static str,
}

impl<'a> Entry<'a> {
    fn unfit(&self, key: &str, found: String, expected: &'static str) -> DataError {
        DataError::Layout {
            path: self.path.to_owned(),
            place: if key.is_empty() { format!("`[{}]`", self.index) } else { format!("`[{}].{key}`", self.index) },
            found,
            expected,
            help: "`data.imdb` must name question files in pythia's layout (imdb_train2014.npy): a header, then one dictionary per question",
        }
    }

    fn get(&self, key: &str) -> Result<Option<Value<'a>>, DataError> {
        match self.fields {
            Some(fields) => Ok(fields.get(key)),
            None => Err(self.unfit("", self.kind.to_owned(), "a dictionary")),
        }
    }

    fn text(&self, key: &str) -> Result<&'a str, DataError> {
        let value = self.get(key)?;
        value.and_then(|v| v.text()).ok_or_else(|| self.unfit(key, kind(value.as_ref()), "a text"))
    }

    fn question(&self) -> Result<Question, DataError> {
        let id = self.get("question_id")?;
        let number = id.and_then(|v| v.int()).and_then(|id| u64::try_from(id).ok());
        let negative = id.and_then(|v| v.int()).map(|id| id.to_string());
        let found = negative.unwrap_or_else(|| kind(id.as_ref()));
        let id = number.ok_or_else(|| self.unfit("question_id", found, "a whole number from 0"))?;
        let mut answers = Vec::new();
        if let Some(value) = self.get("answers")? {
            let items = value.items().ok_or_else(|| self.unfit("answers", kind(Some(&value)), "a list of texts"))?;
            for answer in items.iter() {
                let unfit = || self.unfit("answers", format!("a list with {}", answer.kind()), "a list of texts");
                let text = answer.text().ok_or_else(unfit)?;
                answers.push(text.to_owned());
            }
        }
        Ok(Question { id, text: self.text("question_str")?.to_owned(), answers, target: Vec::new() })
    }
}

fn kind(value: Option<&Value>) -> String {
    value.map_or_else(|| "missing".to_owned(), |v| v.kind().to_owned())
}

#[derive(Deserialize)]
struct AnnotationFile {
    annotations: Vec<AnnotationEntry>,
}

#[derive(Deserialize)]
struct AnnotationEntry {
    question_id: u64,
    question_type: String,
    answer_type: String,
    answers: Vec<AnswerEntry>,
}

#[derive(Deserialize)]
struct AnswerEntry {
    answer: String,
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

/// The official annotations of a split by question; empty when `data.vqa_annotations` names none.
pub fn annotations(settings: &DataSettings, split: &str) -> Result<BTreeMap<u64, Annotation>, DataError> {
    let Some(path) = settings.vqa_annotations.get(split) else { return Ok(BTreeMap::new()) };
    let file: AnnotationFile = json("data.vqa_annotations", "VQA annotations", path)?;
    let entry = |e: AnnotationEntry| {
        let answers = e
            .answers
            .into_iter()
            .map(|a| HumanAnswer { identity: serde_json::to_string(&a.rest).unwrap_or_default(), answer: a.answer });
        let answers = answers.collect();
        (e.question_id, Annotation { question_type: e.question_type, answer_type: e.answer_type, answers })
    };
    Ok(file.annotations.into_iter().map(entry).collect())
}

#[derive(Deserialize)]
struct QuestionFile {
    questions: Vec<QuestionEntry>,
}

#[derive(Deserialize)]
struct QuestionEntry {
    question_id: u64,
}

/// The ids of the questions of each phase in `data.vqa_questions`, in the order of its file.
pub fn phases(settings: &DataSettings) -> Result<BTreeMap<String, Vec<u64>>, DataError> {
    let mut found = BTreeMap::new();
    for (phase, path) in &settings.vqa_questions {
        let file: QuestionFile = json("data.vqa_questions", "VQA questions", path)?;
        found.insert(phase.clone(), file.questions.into_iter().map(|q| q.question_id).collect());
    }
    Ok(found)
}

fn json<T: for<'de> Deserialize<'de>>(key: &'static str, what: &'static str, path: &str) -> Result<T, DataError> {
    let bytes = read_file(key, what, path)?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let (path, line, column) = (PathBuf::from(path), error.line(), error.column());
        let message = error.to_string().split(" at line ").next().unwrap_or_default().to_owned();
        match error.is_data() {
            true => DataError::Layout {
                path,
                place: format!("what ends at line {line}, column {column},"),
                found: format!("unfit ({message})"),
                expected: "the layout of the official VQA v2 files",
                help: "`data.vqa_annotations` and `data.vqa_questions` must name the official files, e.g. v2_mscoco_val2014_annotations.json",
            },
            false => DataError::Json { path, line, column, message },
        }
    })
}
