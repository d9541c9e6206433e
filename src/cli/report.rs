//! `vlp report`: one HTML file about one run or several, or about a sweep; and the report that `vlp run` leaves with each finished run.
//!
//! What people said about the images is read here and handed to `results`; where the annotations cannot be read, the report
//! is written without, and says why.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::context::{Context, Failure, exit};
use super::logs::find;
use super::run::{print, track_failure};
use super::sweep;
use crate::config::{Dataset, OutputSettings, Settings};
use crate::data::DataError;
use crate::data::karpathy::read_images;
use crate::data::vqa_imdb;
use crate::results::report::{self, Reference, References, Reported};
use crate::track::{Condition, RunDir, RunRecord, write_atomic};

/// Name of the report in a run folder.
const FILE: &str = "report.html";

/// Write a report: curves, scores, samples, lineage, settings, in one HTML file.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Run folders, experiments (their newest run), or `<experiment>/<run id>` below `runs`; several are laid over each other;
    /// or one sweep, by its file, folder or name.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// File to write; `report.html` in the run folder when not given, which is needed for several runs.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs the command; prints the path of the report.
pub fn execute(args: &Args, context: &Context) -> Result<u8, Failure> {
    if let [one] = args.runs.as_slice()
        && let Some(file) = sweep::find(one)
    {
        print(&format!("{}\n", sweep::report(&file, args.out.as_deref(), context)?.display()))?;
        return Ok(exit::OK);
    }
    let folder = OutputSettings::default().runs;
    let runs = args.runs.iter().map(|named| find(named, Path::new(&folder))).collect::<Result<Vec<_>, _>>()?;
    let out = match (&args.out, runs.as_slice()) {
        (Some(out), _) => out.clone(),
        (None, [one]) => report_file(one),
        (None, several) => {
            let help = "add `--out FILE`, e.g. `--out report.html`";
            let report = format!("a report on {} runs belongs to none of their folders\n  help: {help}", several.len());
            return Err(Failure::new(exit::CONFIG, report));
        }
    };
    let reported = runs.iter().map(Reported::read).collect::<Result<Vec<_>, _>>().map_err(track_failure)?;
    write(&reported, &out, &mut Collected::default())?;
    print(&format!("{}\n", out.display()))?;
    Ok(exit::OK)
}

/// Where the report of one run belongs.
pub fn report_file(run: &RunDir) -> PathBuf {
    run.path().join(FILE)
}

/// Writes the report of one run into its folder.
pub fn write_own(run: &RunDir, collected: &mut Collected) -> Result<Reported, Failure> {
    let reported = Reported::read(run).map_err(track_failure)?;
    write(std::slice::from_ref(&reported), &report_file(run), collected)?;
    Ok(reported)
}

/// After a run: its report, or a warning why there is none.
pub fn after_run(run: &RunDir) {
    if let Err(failure) = write_own(run, &mut Collected::default()) {
        let reason = failure.report.trim_end();
        let reason = reason.strip_prefix("error: ").unwrap_or(reason);
        eprintln!("warning: no report of {}: {reason}", run.path().display());
    }
}

fn write(reported: &[Reported], out: &Path, collected: &mut Collected) -> Result<(), Failure> {
    let references: Vec<References> = reported.iter().map(|one| collected.of(one.record())).collect();
    let others = others(reported)?;
    let text = report::report(reported, &references, &others).map_err(track_failure)?;
    write_atomic(out, text.as_bytes()).map_err(track_failure)
}

/// Finished runs beside those of the report, where rows of it compare with them.
fn others(reported: &[Reported]) -> Result<Vec<RunRecord>, Failure> {
    let mut found = Vec::new();
    let mut seen: Vec<PathBuf> = reported.iter().map(|one| one.record().run.path().to_path_buf()).collect();
    for one in reported.iter().filter(|one| !one.record().lock.settings.paper.is_empty()) {
        let Some(runs) = one.record().run.path().parent().and_then(Path::parent) else { continue };
        for run in RunDir::all(runs).map_err(track_failure)? {
            if seen.contains(&run.path().to_path_buf()) {
                continue;
            }
            seen.push(run.path().to_path_buf());
            found.extend(RunRecord::read(&run).ok().filter(|record| record.condition == Condition::Finished));
        }
    }
    Ok(found)
}

/// References that were read already: several runs share annotations.
#[derive(Debug, Default)]
pub struct Collected(BTreeMap<String, References>);

impl Collected {
    /// What people said about the images of the split whose predictions a report shows.
    fn of(&mut self, record: &RunRecord) -> References {
        let Some(source) = report::source(record) else { return Err("nothing was predicted yet".into()) };
        let settings = &record.lock.settings;
        let data = &settings.data;
        let key = format!("{} {} {:?} {}", data.annotations, data.valid_images, data.imdb, source.split);
        let found = self.0.entry(key).or_insert_with(|| {
            read(settings, &source.split)
                .map_err(|error| error.to_string().lines().next().unwrap_or_default().to_string())
        });
        found.clone()
    }
}

fn read(settings: &Settings, split: &str) -> Result<BTreeMap<String, Reference>, DataError> {
    let splits = [split.to_string()];
    if settings.data.dataset == Dataset::Vqa2 {
        let one = |question: vqa_imdb::Question| {
            let reference = Reference { question: Some(question.text), texts: question.answers };
            (question.id.to_string(), reference)
        };
        return Ok(vqa_imdb::questions(&settings.data, &splits)?.into_iter().map(one).collect());
    }
    let images = read_images(&settings.data, &splits)?;
    let one = |image: crate::data::karpathy::ImageRecord| {
        (image.image_id.to_string(), Reference { question: None, texts: image.references })
    };
    Ok(images.into_iter().map(one).collect())
}
