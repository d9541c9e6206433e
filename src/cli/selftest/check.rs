//! One row of the self-test: how far numbers are from the reference's, in units of what is allowed.

/// What a number may differ by.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    /// Always.
    pub absolute: f64,
    /// In addition, times the reference's number.
    pub relative: f64,
}

/// Nothing but the reference's number.
pub const EXACT: Tolerance = Tolerance { absolute: 0.0, relative: 0.0 };

/// So much, whatever the number.
pub const fn within(absolute: f64) -> Tolerance {
    Tolerance { absolute, relative: 0.0 }
}

/// This share of the number.
pub const fn share(relative: f64) -> Tolerance {
    Tolerance { absolute: 0.0, relative }
}

/// A row: numbers compared, and the one that is worst in units of its tolerance.
#[derive(Debug, Clone)]
pub struct Check {
    /// What is checked.
    pub name: String,
    /// Numbers compared.
    pub compared: usize,
    worst: Option<Place>,
}

/// Where two numbers were compared.
#[derive(Debug, Clone)]
struct Place {
    at: String,
    ours: f64,
    golden: f64,
    allowed: f64,
}

impl Place {
    fn off(&self) -> f64 {
        if self.ours == self.golden { 0.0 } else { (self.ours - self.golden).abs() }
    }

    /// Distance in units of what is allowed; infinite where nothing is allowed, and for what is no number.
    fn ratio(&self) -> f64 {
        let off = self.off();
        let ratio = if off == 0.0 { 0.0 } else { off / self.allowed };
        if ratio.is_nan() { f64::INFINITY } else { ratio }
    }
}

impl Check {
    /// Nothing compared yet; a row in which nothing is ever compared does not pass.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), compared: 0, worst: None }
    }

    /// Compares a number; `at` names it.
    pub fn number(&mut self, at: impl FnOnce() -> String, ours: f64, golden: f64, tolerance: Tolerance) {
        let allowed = tolerance.absolute + tolerance.relative * golden.abs();
        let mut place = Place { at: String::new(), ours, golden, allowed };
        self.compared += 1;
        if self.worst.as_ref().is_none_or(|worst| place.ratio() > worst.ratio()) {
            place.at = at();
            self.worst = Some(place);
        }
    }

    /// Compares numbers one by one; another count of them counts as infinitely far.
    pub fn numbers(&mut self, at: &str, ours: &[f32], golden: &[f64], tolerance: Tolerance) {
        if ours.len() != golden.len() {
            self.number(|| format!("length of {at}"), ours.len() as f64, golden.len() as f64, EXACT);
        }
        for (i, (ours, golden)) in ours.iter().zip(golden).enumerate() {
            self.number(|| format!("{at}[{i}]"), f64::from(*ours), *golden, tolerance);
        }
    }

    /// Compares token ids one by one.
    pub fn words(&mut self, at: &str, ours: &[u32], golden: &[u32]) {
        let ours: Vec<f32> = ours.iter().map(|w| *w as f32).collect();
        let golden: Vec<f64> = golden.iter().map(|w| f64::from(*w)).collect();
        self.numbers(at, &ours, &golden, EXACT);
    }

    /// Whether every number is within its tolerance.
    pub fn passed(&self) -> bool {
        self.worst.as_ref().is_some_and(|worst| worst.ratio() <= 1.0)
    }

    /// The cells of the row: name, count, largest difference, tolerance there, verdict.
    pub fn cells(&self) -> Vec<String> {
        let short = |value: f64| if value == 0.0 { "0".to_owned() } else { format!("{value:.1e}") };
        let place = |of: fn(&Place) -> f64| self.worst.as_ref().map_or_else(|| "-".to_owned(), |w| short(of(w)));
        let verdict = if self.passed() { "equal" } else { "DIFFERS" };
        let (off, allowed) = (place(Place::off), place(|w| w.allowed));
        vec![self.name.clone(), self.compared.to_string(), off, allowed, verdict.to_owned()]
    }

    /// What is wrong, in a sentence; none where nothing is.
    pub fn complaint(&self) -> Option<String> {
        if self.passed() {
            return None;
        }
        Some(match &self.worst {
            None => format!("{}: nothing was compared", self.name),
            Some(Place { at, ours, golden, .. }) => format!("{}: {at} is {ours} instead of {golden}", self.name),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_place_in_units_of_its_tolerance_is_shown() {
        let mut check = Check::new("x");
        check.numbers("a", &[1.0, 100.5], &[1.25, 100.0], Tolerance { absolute: 0.5, relative: 0.01 });
        assert_eq!(check.cells(), ["x", "2", "2.5e-1", "5.1e-1", "equal"]);
        check.number(|| "b".into(), 3.0, 3.5, share(0.1));
        assert_eq!(check.cells(), ["x", "3", "5.0e-1", "3.5e-1", "DIFFERS"]);
        assert_eq!(check.complaint().unwrap(), "x: b is 3 instead of 3.5");
    }

    #[test]
    fn what_is_no_number_or_missing_or_not_compared_differs() {
        for ours in [f32::NAN, f32::INFINITY] {
            let mut check = Check::new("x");
            check.numbers("a", &[ours], &[1.0], within(1e9));
            assert!(!check.passed(), "{ours}");
        }
        let mut check = Check::new("x");
        check.words("ids", &[1, 2], &[1, 2, 3]);
        assert_eq!(check.complaint().unwrap(), "x: length of ids is 2 instead of 3");
        assert_eq!(Check::new("x").complaint().unwrap(), "x: nothing was compared");
        let mut check = Check::new("x");
        check.words("ids", &[1, 2], &[1, 2]);
        assert_eq!(check.cells(), ["x", "2", "0", "0", "equal"]);
    }
}
