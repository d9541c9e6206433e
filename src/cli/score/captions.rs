//! `vlp score captions`: COCO results and annotations in, caption scores out.
//!
//! As the COCO tools do, it scores the images that have a prediction, in the order of the annotations' `images`.

use std::collections::HashMap;
use std::path::Path;

use super::super::context::{Failure, exit};
use super::super::places::scorers;
use super::super::run::print;
use super::entries::{Document, FileError, Layout, quoted, some};
use super::{CaptionArgs, FormatArg, MetricArg, output};
use crate::config::{Metric, MetricsSettings};
use crate::data::karpathy::ImageId;
use crate::evaluate::{CaptionReport, Column};
use crate::metrics::CaptionEntry;

const RESULTS: Layout = Layout {
    name: "a COCO results file",
    key: "",
    optional: false,
    help: "it must be a list of `{\"image_id\": 42, \"caption\": \"a dog\"}`, one for each image",
};
const IMAGES: Layout = Layout {
    name: "a COCO annotations file",
    key: "images",
    optional: true,
    help: "`images`, where given, must be a list of `{\"id\": 42}`, each image once; `annotations` must be there",
};
const ANNOTATIONS: Layout = Layout {
    name: "a COCO annotations file",
    key: "annotations",
    optional: false,
    help: "`annotations` must be a list of `{\"id\": 1, \"image_id\": 42, \"caption\": \"A dog.\"}`, each id once",
};

/// Runs the command.
pub fn execute(args: &CaptionArgs) -> Result<u8, Failure> {
    let predictions = predictions(&Document::read(&args.predictions, "--predictions")?)?;
    let references = references(&Document::read(&args.references, "--references")?)?;
    let (ids, entries) = matched(args, predictions, references)?;
    let settings = MetricsSettings { meteor: args.meteor.into(), ..MetricsSettings::default() };
    let report = scorers(&settings).score(&entries, &wanted(args)).map_err(|error| Failure::new(exit::DATA, error))?;
    let scores = Scores { ids, report };
    print(&match args.output.format {
        FormatArg::Table => scores.table(args.output.per_image),
        FormatArg::Json => scores.json(args.output.per_image),
        FormatArg::Csv => scores.csv(args.output.per_image),
    })?;
    for reason in scores.report.not_available.values() {
        eprintln!("warning: {reason}");
    }
    if !args.metrics.is_empty() && !scores.report.not_available.is_empty() {
        let names: Vec<_> = scores.report.not_available.keys().map(|name| format!("`{name}`")).collect();
        let help = "see the warning above, or leave it out of `--metrics`";
        return Err(Failure::new(exit::DATA, format!("{} has no score\n  help: {help}", names.join(" and "))));
    }
    Ok(exit::OK)
}

/// Place in the file and caption, by image.
type Predictions = HashMap<ImageId, (usize, String)>;

fn predictions(file: &Document) -> Result<Predictions, FileError> {
    let (mut seen, mut predictions) = (HashMap::new(), HashMap::new());
    file.each(&RESULTS, |entry| {
        let (id, caption) = (entry.id("image_id"), entry.text("caption"));
        let Some(id) = id else { return };
        if entry.once("image_id", id.clone(), &mut seen).is_some() {
            predictions.extend(caption.map(|caption| (id, (entry.index, caption))));
        }
    })?;
    if predictions.is_empty() {
        let problem = "it is an empty list".to_owned();
        return Err(FileError::Layout { path: file.path().to_owned(), layout: &RESULTS, problem });
    }
    Ok(predictions)
}

/// Captions of each image, in the order in which the images are scored.
struct References {
    order: Vec<ImageId>,
    captions: HashMap<ImageId, Vec<String>>,
}

fn references(file: &Document) -> Result<References, FileError> {
    let (mut seen, mut order) = (HashMap::new(), Vec::new());
    file.each(&IMAGES, |entry| {
        if let Some(id) = entry.id("id")
            && entry.once("id", id.clone(), &mut seen).is_some()
        {
            order.push(id);
        }
    })?;
    let (listed, mut unlisted) = (!order.is_empty(), Vec::new());
    let (mut seen_annotations, mut captions) = (HashMap::new(), HashMap::<ImageId, Vec<String>>::new());
    file.each(&ANNOTATIONS, |entry| {
        if entry.has("id")
            && let Some(id) = entry.number("id")
        {
            entry.once("id", id, &mut seen_annotations);
        }
        let (image, caption) = (entry.id("image_id"), entry.text("caption"));
        let (Some(image), Some(caption)) = (image, caption) else { return };
        if !seen.contains_key(&image) {
            seen.insert(image.clone(), entry.index);
            unlisted.push(quoted(&image));
            order.push(image.clone());
        }
        captions.entry(image).or_default().push(caption);
    })?;
    if listed && !unlisted.is_empty() {
        let (count, name) = (unlisted.len(), file.path().display());
        let images = if count == 1 { "image" } else { "images" };
        let ids = some(&unlisted);
        eprintln!(
            "warning: `{name}` has captions of {count} {images} that its `images` do not list; they are used: {ids}"
        );
    }
    Ok(References { order, captions })
}

/// What people wrote about each image of a COCO annotations file, in its order; images without captions left out.
pub fn human_captions(path: &Path, flag: &'static str) -> Result<Vec<Vec<String>>, FileError> {
    let References { order, mut captions } = references(&Document::read(path, flag)?)?;
    Ok(order.iter().filter_map(|id| captions.remove(id)).collect())
}

/// The images that are scored; those that cannot be are an error, those that nobody predicted a warning.
fn matched(
    args: &CaptionArgs,
    mut predictions: Predictions,
    mut references: References,
) -> Result<(Vec<ImageId>, Vec<CaptionEntry>), FileError> {
    let (mut ids, mut entries, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    let (total, images) = (predictions.len(), references.order.len());
    for id in references.order {
        match (references.captions.remove(&id), predictions.contains_key(&id)) {
            (_, false) => missing.push(quoted(&id)),
            (None, true) => {} // left among the predictions
            (Some(references), true) => {
                let candidate = predictions.remove(&id).map(|(_, caption)| caption).unwrap_or_default();
                entries.push(CaptionEntry { id: id.to_string(), candidate, references });
                ids.push(id);
            }
        }
    }
    if !predictions.is_empty() {
        let mut unknown: Vec<_> = predictions.into_iter().map(|(id, (index, _))| (index, id)).collect();
        unknown.sort();
        let problem = format!(
            "{} of {total} predictions in `{}` are for images without a caption in `{}`",
            unknown.len(),
            args.predictions.display(),
            args.references.display()
        );
        let ids = unknown.iter().map(|(index, id)| format!("{} (entry {index})", quoted(id))).collect();
        let help = "give the annotations of the split that was predicted; 3 and \"3\" are different ids";
        return Err(FileError::Ids { problem, ids, help });
    }
    if !missing.is_empty() {
        eprintln!(
            "warning: {} of {images} images in `{}` have no prediction and are not scored: {}",
            missing.len(),
            args.references.display(),
            some(&missing)
        );
    }
    Ok((ids, entries))
}

/// The scores that `--metrics` names.
fn wanted(args: &CaptionArgs) -> Vec<Metric> {
    let bleu = [Metric::Bleu1, Metric::Bleu2, Metric::Bleu3, Metric::Bleu4];
    let named = |metric: &Metric| {
        args.metrics.iter().any(|arg| match arg {
            MetricArg::Bleu => bleu.contains(metric),
            MetricArg::Bleu1 => *metric == Metric::Bleu1,
            MetricArg::Bleu2 => *metric == Metric::Bleu2,
            MetricArg::Bleu3 => *metric == Metric::Bleu3,
            MetricArg::Bleu4 => *metric == Metric::Bleu4,
            MetricArg::Meteor => *metric == Metric::Meteor,
            MetricArg::RougeL => *metric == Metric::RougeL,
            MetricArg::Cider => *metric == Metric::Cider,
            MetricArg::Spice => *metric == Metric::Spice,
        })
    };
    Metric::ALL.into_iter().filter(|metric| args.metrics.is_empty() || named(metric)).collect()
}

struct Scores {
    ids: Vec<ImageId>,
    report: CaptionReport,
}

impl Scores {
    /// A score for people: four decimals, a dash where it is undefined.
    fn shown(&self, column: &Column, value: Option<f64>) -> String {
        match value {
            Some(value) => format!("{value:.4}"),
            None if self.report.not_available.contains_key(column.name.as_str()) => "not available".to_owned(),
            None => "-".to_owned(),
        }
    }

    fn table(&self, per_image: bool) -> String {
        let images = self.ids.len();
        let header = ["Metric".to_owned(), format!("{images} image{}", if images == 1 { "" } else { "s" })];
        let corpus = self.report.columns.iter().map(|c| vec![c.name.clone(), self.shown(c, c.corpus)]);
        let mut text = output::table(&header, &corpus.collect::<Vec<_>>(), 1);
        if per_image {
            let columns: Vec<&Column> = self.report.columns.iter().filter(|c| !c.per_image.is_empty()).collect();
            let header: Vec<String> =
                std::iter::once("Image".to_owned()).chain(columns.iter().map(|c| c.name.clone())).collect();
            let row = |(at, id): (usize, &ImageId)| {
                let cells = columns.iter().map(|c| self.shown(c, c.per_image[at]));
                std::iter::once(id.to_string()).chain(cells).collect()
            };
            let rows: Vec<Vec<String>> = self.ids.iter().enumerate().map(row).collect();
            text = format!("{text}\n{}", output::table(&header, &rows, 1));
        }
        text
    }

    /// One row for the whole set, its id empty, then one for each image; undefined and unavailable cells are empty.
    fn csv(&self, per_image: bool) -> String {
        let header: Vec<&str> =
            std::iter::once("image_id").chain(self.report.columns.iter().map(|c| c.name.as_str())).collect();
        let cell = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
        let mut rows: Vec<Vec<String>> =
            vec![std::iter::once(String::new()).chain(self.report.columns.iter().map(|c| cell(c.corpus))).collect()];
        if per_image {
            rows.extend(self.ids.iter().enumerate().map(|(at, id)| {
                let cells = self.report.columns.iter().map(|c| cell(c.per_image.get(at).copied().flatten()));
                std::iter::once(id.to_string()).chain(cells).collect()
            }));
        }
        output::csv(&header, &rows)
    }

    fn json(&self, per_image: bool) -> String {
        format!("{:#}\n", self.report.json(self.ids.len(), if per_image { &self.ids } else { &[] }))
    }
}
