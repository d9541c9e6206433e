//! Progress of the training, on stderr: one line that is redrawn on a terminal, a plain line every 30 s elsewhere.
//!
//! It formats and paces; rates are measured by the training loop, and the journal is written there too.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Time between two plain lines.
const PLAIN_INTERVAL: Duration = Duration::from_secs(30);

/// Share of time spent waiting for data above which the user is warned.
const DATA_WAIT_LIMIT: f64 = 0.2;

/// Steps of an epoch before that share means anything: the first batch is always waited for.
const SETTLED_STEPS: usize = 20;

/// What the training loop knows after a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProgressPoint {
    /// Epoch, counted from 1.
    pub epoch: usize,
    /// Step within the epoch, counted from 1.
    pub step: usize,
    /// Training loss.
    pub loss: f64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Samples per second over all processes.
    pub samples_per_s: f64,
    /// Share of the time that training waited for data, 0 to 1.
    pub data_wait: f64,
}

/// Progress of one training.
#[derive(Debug)]
pub struct Progress {
    pacer: Pacer,
    bar: Option<ProgressBar>,
    quiet: bool,
    started: Instant,
}

impl Progress {
    /// `terminal`: stderr is one; `quiet`: warnings only; `label` stands before each line and may be empty.
    pub fn new(terminal: bool, quiet: bool, label: &str, epochs: usize, steps_per_epoch: usize) -> Self {
        let bar = (terminal && !quiet).then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { pacer: Pacer::new(label, epochs, steps_per_epoch), bar, quiet, started: Instant::now() }
    }

    /// Shows a step. The warnings it printed (loss not finite, data-wait above 20 %; each once per epoch) are returned
    /// for the journal.
    pub fn update(&mut self, point: ProgressPoint) -> Vec<String> {
        let seen = self.pacer.observe(&point, self.started.elapsed());
        for warning in &seen.warnings {
            self.print(&format!("warning: {warning}"));
        }
        match &self.bar {
            Some(bar) => {
                bar.set_message(seen.line);
                bar.tick();
            }
            None if seen.due && !self.quiet => eprintln!("{}", seen.line),
            None => {}
        }
        seen.warnings
    }

    /// Prints a line of its own, e.g. the score of an epoch, without disturbing the progress line.
    pub fn note(&self, text: &str) {
        if !self.quiet {
            self.print(text);
        }
    }

    /// Ends the progress line; the last state stays visible.
    pub fn finish(&mut self) {
        let rest = self.pacer.pending.take();
        match &self.bar {
            Some(bar) => bar.abandon(),
            None if !self.quiet => rest.iter().for_each(|line| eprintln!("{line}")),
            None => {}
        }
    }

    fn print(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }
}

/// Decides what to show and when.
#[derive(Debug)]
struct Pacer {
    label: String,
    epochs: usize,
    steps_per_epoch: usize,
    first: Option<(usize, Duration)>,
    last_plain: Option<Duration>,
    pending: Option<String>,
    warned_loss: Option<usize>,
    warned_wait: Option<usize>,
}

struct Seen {
    line: String,
    due: bool,
    warnings: Vec<String>,
}

impl Pacer {
    fn new(label: &str, epochs: usize, steps_per_epoch: usize) -> Self {
        Self {
            label: label.into(),
            epochs,
            steps_per_epoch,
            first: None,
            last_plain: None,
            pending: None,
            warned_loss: None,
            warned_wait: None,
        }
    }

    /// `elapsed`: time since the progress began.
    fn observe(&mut self, point: &ProgressPoint, elapsed: Duration) -> Seen {
        let done = point.epoch.saturating_sub(1) * self.steps_per_epoch + point.step;
        let total = self.epochs * self.steps_per_epoch;
        let (first, since) = *self.first.get_or_insert((done, elapsed));
        let remaining = (done > first)
            .then(|| elapsed.saturating_sub(since).mul_f64(total.saturating_sub(done) as f64 / (done - first) as f64));
        let text = line_text(point, self.epochs, self.steps_per_epoch, remaining);
        let line = if self.label.is_empty() { text } else { format!("{}  {text}", self.label) };
        let due = self.last_plain.is_none_or(|last| elapsed.saturating_sub(last) >= PLAIN_INTERVAL);
        if due {
            self.last_plain = Some(elapsed);
        }
        self.pending = (!due).then(|| line.clone());
        Seen { line, due, warnings: self.warnings(point) }
    }

    fn warnings(&mut self, point: &ProgressPoint) -> Vec<String> {
        let place = format!("epoch {}, step {}", point.epoch, point.step);
        let mut warnings = Vec::new();
        if !point.loss.is_finite() && self.warned_loss.replace(point.epoch) != Some(point.epoch) {
            warnings.push(format!("the loss is {} at {place}", point.loss));
        }
        let settled = point.step >= SETTLED_STEPS;
        if settled && point.data_wait > DATA_WAIT_LIMIT && self.warned_wait.replace(point.epoch) != Some(point.epoch) {
            let share = percent(point.data_wait);
            warnings.push(format!("training waited for data {share} of the time at {place}; raise data.workers"));
        }
        warnings
    }
}

/// `epoch 7/30  step 410/1107  loss 2.31  lr 2.7e-5  812 samples/s  data-wait 4 %  ETA 4h52`; `remaining` is unknown at
/// the first step.
pub fn line_text(point: &ProgressPoint, epochs: usize, steps: usize, remaining: Option<Duration>) -> String {
    format!(
        "epoch {}/{epochs}  step {}/{steps}  loss {}  lr {}  {} samples/s  data-wait {}  ETA {}",
        point.epoch,
        point.step,
        significant(point.loss),
        if point.lr == 0.0 { "0".into() } else { format!("{:.1e}", point.lr) },
        if point.samples_per_s < 9.95 {
            format!("{:.1}", point.samples_per_s)
        } else {
            format!("{:.0}", point.samples_per_s)
        },
        percent(point.data_wait),
        remaining.map_or_else(|| "-".into(), duration_text),
    )
}

/// A duration at the precision one reads it: `45s`, `3m07`, `4h52`, `2d04h`.
pub fn duration_text(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// Two decimals from 1 on, three significant digits below.
fn significant(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() || size >= 1.0 {
        format!("{value:.2}")
    } else if size >= 1e-3 {
        let decimals = (2.0 - size.log10().floor()) as usize;
        format!("{value:.decimals$}")
    } else if size == 0.0 {
        "0".into()
    } else {
        format!("{value:.2e}")
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// `1,234,567`.
pub fn grouped(number: impl std::fmt::Display) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const POINT: ProgressPoint =
        ProgressPoint { epoch: 7, step: 410, loss: 2.3149, lr: 2.7e-5, samples_per_s: 812.4, data_wait: 0.041 };

    #[test]
    fn the_line_reads_as_documented() {
        assert_eq!(
            line_text(&POINT, 30, 1107, Some(Duration::from_secs(4 * 3600 + 52 * 60 + 59))),
            "epoch 7/30  step 410/1107  loss 2.31  lr 2.7e-5  812 samples/s  data-wait 4 %  ETA 4h52"
        );
        let slow = ProgressPoint { lr: 0.0, samples_per_s: 2.66, loss: f64::NAN, data_wait: 0.0, ..POINT };
        assert_eq!(
            line_text(&slow, 30, 1107, None),
            "epoch 7/30  step 410/1107  loss NaN  lr 0  2.7 samples/s  data-wait 0 %  ETA -"
        );
    }

    #[test]
    fn durations() {
        let text = |seconds| duration_text(Duration::from_secs(seconds));
        assert_eq!(
            [
                text(0),
                text(59),
                text(60),
                text(187),
                text(3_599),
                text(3_600),
                text(86_399),
                text(86_400),
                text(187_200)
            ],
            ["0s", "59s", "1m00", "3m07", "59m59", "1h00", "23h59", "1d00h", "2d04h"]
        );
    }

    #[test]
    fn losses_keep_their_digits() {
        let texts = [12.3456, 1.0, 0.98765, 0.0213, 0.00123, 0.000_012_34, 0.0, -0.5, f64::INFINITY].map(significant);
        assert_eq!(texts, ["12.35", "1.00", "0.988", "0.0213", "0.00123", "1.23e-5", "0", "-0.500", "inf"]);
    }

    #[test]
    fn the_remaining_time_comes_from_the_steps_of_this_attempt() {
        let mut pacer = Pacer::new("coco_ce", 2, 100);
        let at = |step| ProgressPoint { epoch: 2, step, ..POINT };
        let first = pacer.observe(&at(20), Duration::from_secs(5));
        assert!(first.line.starts_with("coco_ce  epoch 2/2  step 20/100") && first.line.ends_with("ETA -"));
        let later = pacer.observe(&at(60), Duration::from_secs(45));
        assert!(later.line.ends_with("ETA 40s"), "{}", later.line);
    }

    #[test]
    fn plain_lines_come_every_thirty_seconds() {
        let mut pacer = Pacer::new("", 30, 1107);
        let due: Vec<bool> =
            [0, 10, 29, 30, 31, 59, 60].map(|s| pacer.observe(&POINT, Duration::from_secs(s)).due).to_vec();
        assert_eq!(due, [true, false, false, true, false, false, true]);
        assert_eq!(pacer.pending, None);
        pacer.observe(&POINT, Duration::from_secs(61));
        assert!(pacer.pending.is_some());
    }

    #[test]
    fn warnings_come_once_per_epoch() {
        let mut pacer = Pacer::new("", 30, 1107);
        let mut warn = |epoch, loss, data_wait| {
            pacer.observe(&ProgressPoint { epoch, loss, data_wait, ..POINT }, Duration::ZERO).warnings
        };
        assert_eq!(warn(1, 2.0, 0.2), Vec::<String>::new());
        assert_eq!(
            warn(1, f64::NAN, 0.31),
            [
                "the loss is NaN at epoch 1, step 410",
                "training waited for data 31 % of the time at epoch 1, step 410; raise data.workers"
            ]
        );
        assert_eq!(warn(1, f64::NAN, 0.5), Vec::<String>::new());
        assert_eq!(warn(2, f64::INFINITY, 0.0), ["the loss is inf at epoch 2, step 410"]);
    }
}
