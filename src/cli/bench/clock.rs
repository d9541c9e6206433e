//! Times of repeated work, the first repetition left out.

use std::time::Instant;

use super::Part;

/// The times of one piece of work.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// What it belongs to.
    pub part: Part,
    /// The piece.
    pub work: String,
    /// Samples or images.
    pub items: usize,
    /// Samples or images per batch, where there are batches.
    pub batch: Option<usize>,
    /// Beams per image, in beam search.
    pub beams: Option<usize>,
    /// Seconds of each repetition.
    pub seconds: Vec<f64>,
    /// Floating-point operations of its matrix products; none where there are none to speak of.
    pub flops: Option<f64>,
    /// Bytes that it has to read and write, where that is what it is about.
    pub bytes: Option<f64>,
    /// What it is called in the reference's timings; several are added.
    pub reference: Vec<String>,
}

impl Row {
    /// The median; of an even number of times the mean of both in the middle.
    pub fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            even if even.is_multiple_of(2) => (sorted[middle - 1] + sorted[middle]) / 2.0,
            _ => sorted[middle],
        }
    }

    /// Least and most.
    pub fn range(&self) -> [f64; 2] {
        let sorted = self.sorted();
        [sorted.first(), sorted.last()].map(|time| time.copied().unwrap_or(f64::NAN))
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }
}

/// Takes the times of pieces of work that are repeated in the same order.
#[derive(Debug)]
pub struct Clock {
    part: Part,
    items: usize,
    pieces: Vec<(&'static str, Vec<f64>)>,
}

impl Clock {
    /// For work on this many samples or images.
    pub fn new(part: Part, items: usize) -> Self {
        Self { part, items, pieces: Vec::new() }
    }

    /// Does the work and notes how long it took.
    pub fn time<T>(&mut self, piece: &'static str, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = work();
        let seconds = started.elapsed().as_secs_f64();
        match self.pieces.iter_mut().find(|(name, _)| *name == piece) {
            Some((_, times)) => times.push(seconds),
            None => self.pieces.push((piece, vec![seconds])),
        }
        result
    }

    /// One row per piece, and one of their sum where there are several. `describe` gives operations and names in the reference.
    pub fn rows(self, describe: impl Fn(&str) -> (Option<f64>, Vec<String>)) -> Vec<Row> {
        let row = |work: &str, seconds: Vec<f64>, (flops, reference)| Row {
            part: self.part,
            work: work.to_owned(),
            items: self.items,
            batch: None,
            beams: None,
            seconds,
            flops,
            bytes: None,
            reference,
        };
        let mut rows: Vec<Row> =
            self.pieces.iter().map(|(work, times)| row(work, times[1..].to_vec(), describe(work))).collect();
        if rows.len() > 1 {
            let repetitions = rows.iter().map(|row| row.seconds.len()).min().unwrap_or(0);
            let sums = (0..repetitions).map(|i| rows.iter().map(|row| row.seconds[i]).sum()).collect();
            let flops = rows.iter().filter_map(|row| row.flops).reduce(|sum, flops| sum + flops);
            let mut reference = Vec::new();
            rows.iter().flat_map(|row| &row.reference).for_each(|key| reference.push(key.clone()));
            rows.push(row("all", sums, (flops, reference)));
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_repetition_does_not_count() {
        let mut clock = Clock::new(Part::Beam, 3);
        for _ in 0..4 {
            clock.time("a", || ());
            clock.time("b", || ());
        }
        let rows = clock.rows(|work| (Some(2.0), vec![work.to_uppercase()]));
        let works: Vec<_> = rows.iter().map(|row| (row.work.as_str(), row.seconds.len(), row.flops)).collect();
        assert_eq!(works, [("a", 3, Some(2.0)), ("b", 3, Some(2.0)), ("all", 3, Some(4.0))]);
        assert_eq!(rows[2].reference, ["A", "B"]);
    }

    #[test]
    fn medians() {
        let row = |seconds: &[f64]| Row {
            part: Part::Beam,
            work: String::new(),
            items: 1,
            batch: None,
            beams: None,
            seconds: seconds.to_vec(),
            flops: None,
            bytes: None,
            reference: vec![],
        };
        assert_eq!(row(&[3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(row(&[3.0, 1.0, 2.0, 4.0]).median(), 2.5);
        assert_eq!(row(&[3.0, 1.0, 2.0]).range(), [1.0, 3.0]);
    }
}
