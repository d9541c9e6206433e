//! `vlp caption` and `vlp answer`: a trained model on images of a data root, one by one or as JSON lines.

use std::io::{BufRead, IsTerminal, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::context::{Context, Failure, exit};
use super::model::{ModelArgs, Opened, evaluate_failure};
use crate::config::Dataset;
use crate::data::DataError;
use crate::data::karpathy::{CaptionData, ImageId, ImageRecord, Sample};
use crate::data::region_store::Table;
use crate::data::vqa_imdb::{Question, VqaData};
use crate::evaluate::{CaptionTask, EvaluateError};

/// Images read from stdin at a time.
const LINES: usize = 256;

/// Caption images of a data root.
#[derive(Debug, clap::Args)]
pub struct CaptionArgs {
    #[command(flatten)]
    /// The model.
    pub model: ModelArgs,
    /// Image, by its file name with or without ending (repeatable); without any, JSON lines `{"image": …}` come from stdin.
    #[arg(long = "images", value_name = "NAME", num_args = 1..)]
    pub images: Vec<String>,
}

/// Answer questions about images of a data root.
#[derive(Debug, clap::Args)]
pub struct AnswerArgs {
    #[command(flatten)]
    /// The model.
    pub model: ModelArgs,
    /// Image, by its file name with or without ending; without it, JSON lines `{"image": …, "question": …}` come from stdin.
    #[arg(long, value_name = "NAME", requires = "question")]
    pub image: Option<String>,
    /// The question.
    #[arg(long, value_name = "TEXT", requires = "image")]
    pub question: Option<String>,
}

/// One line in, and with its result out. Other keys pass through.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    image: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    question: Option<String>,
    #[serde(flatten)]
    rest: serde_json::Map<String, serde_json::Value>,
}

/// Runs `vlp caption`.
pub fn caption(args: &CaptionArgs, context: &Context) -> Result<u8, Failure> {
    let opened = Opened::new(&args.model, context)?;
    if opened.settings.data.dataset == Dataset::Vqa2 {
        let help = "name a captioning model, or use `vlp answer`";
        return Err(Failure::new(exit::CONFIG, format!("the model answers questions\n  help: {help}")));
    }
    let model = opened.load(&opened.best_weights()?)?;
    let write = |lines: Vec<Line>| -> Result<Vec<String>, Failure> {
        let images = lines.iter().map(|line| record(&line.image)).collect();
        let task = CaptionTask {
            data: Arc::new(CaptionData { images, samples: Vec::new() }),
            store: Arc::clone(&opened.store),
            tokenizer: &opened.tokenizer,
            data_settings: &opened.settings.data,
            settings: &opened.settings.evaluate,
            beam_size: opened.settings.evaluate.beam_size,
        };
        let captions = task.caption(&model, &opened.device).map_err(|error| failure(&opened, &lines, error))?;
        Ok(captions.into_iter().map(|c| c.caption).collect())
    };
    if args.images.is_empty() {
        return batch("caption", false, write);
    }
    let line = |image: &String| Line { image: image.clone(), question: None, rest: Default::default() };
    for (image, caption) in args.images.iter().zip(write(args.images.iter().map(line).collect())?) {
        super::run::print(&format!("{image}\t{caption}\n"))?;
    }
    Ok(exit::OK)
}

/// Runs `vlp answer`.
pub fn answer(args: &AnswerArgs, context: &Context) -> Result<u8, Failure> {
    let opened = Opened::new(&args.model, context)?;
    let Some(answers) = opened.answers.clone() else {
        let help = "name a model trained with `objective.kind = \"vqa\"`, or use `vlp caption`";
        return Err(Failure::new(exit::CONFIG, format!("the model answers no questions\n  help: {help}")));
    };
    let model = opened.load(&opened.best_weights()?)?;
    let write = |lines: Vec<Line>| -> Result<Vec<String>, Failure> {
        let mut data = VqaData {
            texts: Arc::new(CaptionData { images: Vec::new(), samples: Vec::new() }),
            questions: Vec::new(),
            answers: Arc::clone(&answers),
        };
        let (mut images, mut samples) = (Vec::new(), Vec::new());
        for (index, line) in lines.iter().enumerate() {
            let text = line.question.clone().unwrap_or_default();
            samples.push(Sample { image: index, pieces: opened.tokenizer.encode(&text) });
            images.push(record(&line.image));
            data.questions.push(Question { id: index as u64, text, answers: Vec::new(), target: Vec::new() });
        }
        data.texts = Arc::new(CaptionData { images, samples });
        let found = opened.evaluation().answers(&model, &Arc::new(data));
        let found = found.map_err(|error| failure(&opened, &lines, error))?;
        Ok(found.into_iter().map(|a| a.answer).collect())
    };
    let (Some(image), Some(question)) = (&args.image, &args.question) else { return batch("answer", true, write) };
    let line = Line { image: image.clone(), question: Some(question.clone()), rest: Default::default() };
    super::run::print(&format!("{}\n", write(vec![line])?.join("\n")))?;
    Ok(exit::OK)
}

/// Why nothing was predicted; of an image that the data root lacks, its name.
fn failure(opened: &Opened, lines: &[Line], error: EvaluateError) -> Failure {
    let mut table = Vec::new();
    let lacks = |line: &&Line| opened.store.read_table(Table::Features, &record(&line.image).stem, &mut table).is_err();
    match (&error, lines.iter().find(lacks)) {
        (EvaluateError::Data(DataError::Region { path, problem, .. }), Some(line)) => {
            let help = "name an image of the data root by its file name, e.g. COCO_val2014_000000000042";
            let report =
                format!("no features of image `{}`: `{}`: {problem}\n  help: {help}", line.image, path.display());
            Failure::new(exit::DATA, report)
        }
        _ => evaluate_failure(error),
    }
}

/// An image by name; references and split do not matter.
fn record(name: &str) -> ImageRecord {
    let stem = [".jpg", ".jpeg", ".png"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    ImageRecord {
        stem: stem.to_owned(),
        file_name: format!("{stem}.jpg"),
        image_id: ImageId::Name(stem.to_owned()),
        split: String::new(),
        references: Vec::new(),
    }
}

/// JSON lines from stdin to stdout, each with `key` added; a batch is written as soon as it is done.
fn batch(key: &str, questions: bool, write: impl Fn(Vec<Line>) -> Result<Vec<String>, Failure>) -> Result<u8, Failure> {
    let mut waiting: Vec<Line> = Vec::new();
    let mut out = std::io::stdout().lock();
    let mut flush = |waiting: &mut Vec<Line>| -> Result<(), Failure> {
        if waiting.is_empty() {
            return Ok(());
        }
        let results = write(waiting.clone())?;
        for (mut line, result) in waiting.drain(..).zip(results) {
            line.rest.insert(key.to_owned(), result.into());
            let text = serde_json::to_string(&line).map_err(|e| input_failure(0, &e.to_string(), questions))?;
            writeln!(out, "{text}").map_err(|e| output_failure(&e))?;
        }
        out.flush().map_err(|e| output_failure(&e))
    };
    if std::io::stdin().is_terminal() {
        eprintln!("note  reading JSON lines from the terminal, {}; Ctrl-D ends", form(questions));
    }
    let mut problem = None;
    for (index, text) in std::io::stdin().lock().lines().enumerate() {
        match parse(text, questions) {
            Ok(None) => continue,
            Ok(Some(line)) => waiting.push(line),
            Err(found) => {
                problem = Some(input_failure(index + 1, &found, questions));
                break;
            }
        }
        if waiting.len() == LINES {
            flush(&mut waiting)?;
        }
    }
    // What came before a bad line is done all the same.
    flush(&mut waiting)?;
    problem.map_or(Ok(exit::OK), Err)
}

/// One line of stdin; none for a blank one.
fn parse(text: std::io::Result<String>, questions: bool) -> Result<Option<Line>, String> {
    let text = text.map_err(|e| e.to_string())?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    let line: Line = serde_json::from_str(&text).map_err(|e| {
        e.to_string().replace(" at line 1 column ", " at column ").replace("struct Line at column 0", "an object")
    })?;
    if questions && line.question.is_none() {
        return Err("missing field `question`".to_owned());
    }
    Ok(Some(line))
}

fn input_failure(line: usize, problem: &str, questions: bool) -> Failure {
    Failure::new(exit::DATA, format!("line {line} of stdin: {problem}\n  help: each line must be {}", form(questions)))
}

/// What a line looks like.
fn form(questions: bool) -> &'static str {
    match questions {
        true => "{\"image\": \"COCO_val2014_000000000042\", \"question\": \"…\"}",
        false => "{\"image\": \"COCO_val2014_000000000042\"}",
    }
}

fn output_failure(error: &std::io::Error) -> Failure {
    Failure::new(exit::TRAIN, format!("cannot write to stdout: {error}\n  help: check what stdout is redirected to"))
}
