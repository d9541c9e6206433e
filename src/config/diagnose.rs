//! What is wrong with a configuration, and how it is shown: the message, the line of source, a label, a help line.
//!
//! Nothing is checked here. Output does not depend on the terminal: always 100 columns, colour only when asked for.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, SourceCode,
    SourceSpan, SpanContents, ThemeCharacters, ThemeStyles,
};

use super::tree::Source;

/// Columns of the rendered report.
const WIDTH: usize = 100;

/// Whether a problem stops the experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The experiment cannot run.
    Error,
    /// Legal, but probably not meant.
    Warning,
}

/// One thing that is wrong (or suspicious) with a configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong, naming the key, the value found and what was expected.
    pub message: String,
    /// What to do about it.
    pub help: String,
    pub(crate) place: Place,
}

/// Where a problem was written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Place {
    /// In a file; the first label is the one the file position is taken from.
    Text { source: Arc<Source>, labels: Vec<(Range<usize>, String)> },
    /// On no line of a file: in a flag, an environment variable, or a file as a whole. Both texts may be empty.
    Outside { origin: String, note: String },
}

impl Problem {
    pub(crate) fn error(place: Place, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { severity: Severity::Error, message: message.into(), help: help.into(), place }
    }

    /// Line of the primary label, from 1, if the problem is in a file.
    pub fn line(&self) -> Option<usize> {
        match &self.place {
            Place::Text { source, labels } => labels.first().map(|(span, _)| source.line(span.start)),
            Place::Outside { .. } => None,
        }
    }
}

/// All problems of a configuration: errors, then warnings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// The problems with their source lines, a blank line between two of them; ends with a line feed.
    pub fn render(&self, color: bool) -> String {
        self.0.iter().map(|problem| render(problem, color)).collect::<Vec<_>>().join("\n")
    }

    /// Sorted: errors before warnings, then by file in the order in which files first appear, then by place in the file.
    pub(crate) fn in_order(mut self) -> Self {
        let mut files: Vec<Arc<Source>> = Vec::new();
        for problem in &self.0 {
            if let Place::Text { source, .. } = &problem.place
                && !files.contains(source)
            {
                files.push(source.clone());
            }
        }
        self.0.sort_by_key(|problem| {
            let place = match &problem.place {
                Place::Text { source, labels } => {
                    (files.iter().position(|file| file == source), labels.first().map(|(span, _)| span.start))
                }
                Place::Outside { .. } => (Some(usize::MAX), None),
            };
            (problem.severity == Severity::Warning, place)
        });
        self
    }

    /// The number of errors and warnings in words: `2 errors, 1 warning`.
    pub fn summary(&self) -> String {
        let count = |n: usize, noun: &str| (n > 0).then(|| format!("{n} {noun}{}", if n == 1 { "" } else { "s" }));
        let parts = [count(self.errors(), "error"), count(self.0.len() - self.errors(), "warning")];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    /// Number of problems that are errors.
    pub fn errors(&self) -> usize {
        self.0.iter().filter(|p| p.severity == Severity::Error).count()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Problems {}

/// The candidate that `word` was probably meant to be.
pub(crate) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let allowed = 1 + word.chars().count() / 4;
    let rank = |candidate: &&'a str| {
        let distance = strsim::damerau_levenshtein(&word, &candidate.to_lowercase());
        let part =
            word.len() >= 4 && (candidate.contains(&word) || (candidate.len() >= 4 && word.contains(*candidate)));
        (distance <= allowed || part).then_some(distance)
    };
    candidates.into_iter().filter_map(|c| rank(&c).map(|r| (r, c))).min_by_key(|(r, _)| *r).map(|(_, c)| c)
}

fn render(problem: &Problem, color: bool) -> String {
    let styles = if color { ThemeStyles::ansi() } else { ThemeStyles::none() };
    let characters =
        ThemeCharacters { error: "error:".into(), warning: "warning:".into(), ..ThemeCharacters::unicode() };
    let handler = GraphicalReportHandler::new_themed(GraphicalTheme { characters, styles })
        .with_width(WIDTH)
        .with_context_lines(1)
        .with_break_words(false)
        .without_syntax_highlighting();
    let mut out = String::new();
    if handler.render_report(&mut out, &View::new(problem)).is_err() {
        return format!("{}\n", problem.message);
    }
    let lines = out.trim_start_matches([' ', '\n']).lines().map(|line| format!("{}\n", line.trim_end()));
    lines.collect()
}

/// A problem in the form that miette draws.
#[derive(Debug)]
struct View<'a> {
    problem: &'a Problem,
    source: Option<Lines<'a>>,
    cause: Option<Cause>,
}

impl<'a> View<'a> {
    fn new(problem: &'a Problem) -> Self {
        let (source, cause) = match &problem.place {
            Place::Text { source, .. } => (Some(Lines(source)), None),
            Place::Outside { origin, note } => {
                let parts: Vec<&str> = [origin.as_str(), note.as_str()].into_iter().filter(|s| !s.is_empty()).collect();
                (None, (!parts.is_empty()).then(|| Cause(parts.join(": "))))
            }
        };
        Self { problem, source, cause }
    }
}

/// Shows the whole lines of a span and no others, however much context is asked for.
#[derive(Debug)]
struct Lines<'a>(&'a Source);

impl SourceCode for Lines<'_> {
    fn read_span<'b>(
        &'b self,
        span: &SourceSpan,
        context_before: usize,
        _context_after: usize,
    ) -> Result<Box<dyn SpanContents<'b> + 'b>, MietteError> {
        let text = self.0.text.as_str();
        let (from, to) = (span.offset(), span.offset().saturating_add(span.len()));
        let (Some(before), Some(after)) = (text.get(..from), text.get(to..)) else {
            return Err(MietteError::OutOfBounds);
        };
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        let line_end = to + after.find('\n').map_or(after.len(), |i| i + 1);
        // Without context miette asks for the position alone.
        let (start, end) = if context_before == 0 { (from, to) } else { (line_start, line_end) };
        let column = before[line_start..].chars().count();
        let data = &text[start..end];
        Ok(Box::new(MietteSpanContents::new_named(
            self.0.name.clone(),
            data.as_bytes(),
            (start, end - start).into(),
            before.matches('\n').count(),
            if start == line_start { 0 } else { column },
            data.lines().count(),
        )))
    }
}

/// The line under the message of a problem that is in no file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Cause(String);

impl fmt::Display for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem.message)
    }
}

impl std::error::Error for View<'_> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_ref().map(|cause| cause as &(dyn std::error::Error + 'static))
    }
}

impl Diagnostic for View<'_> {
    fn severity(&self) -> Option<miette::Severity> {
        Some(match self.problem.severity {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
        })
    }

    fn help<'b>(&'b self) -> Option<Box<dyn fmt::Display + 'b>> {
        (!self.problem.help.is_empty()).then(|| Box::new(&self.problem.help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.source.as_ref().map(|source| source as &dyn miette::SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let Place::Text { labels, .. } = &self.problem.place else { return None };
        Some(Box::new(labels.iter().enumerate().map(|(i, (span, text))| {
            let text = (!text.is_empty()).then(|| text.clone());
            if i == 0 {
                LabeledSpan::new_primary_with_span(text, span.clone())
            } else {
                LabeledSpan::new_with_span(text, span.clone())
            }
        })))
    }
}
