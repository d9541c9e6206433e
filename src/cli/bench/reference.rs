//! Timings of the PyTorch reference: the file that its `bench_oracle.py --json` writes, a name and a number per measurement.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::context::{Failure, exit};

/// Numbers by name: seconds, or MiB.
#[derive(Debug, Clone, PartialEq)]
pub struct Reference(BTreeMap<String, f64>);

impl Reference {
    /// Reads the file.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let help = "name a file that `bench_oracle.py --json FILE` wrote";
        let failure = |what: String| {
            Failure::new(exit::CONFIG, format!("cannot read timings from `{}`: {what}\n  help: {help}", path.display()))
        };
        let text = std::fs::read_to_string(path).map_err(|error| failure(error.to_string()))?;
        serde_json::from_str(&text).map(Self).map_err(|error| failure(error.to_string()))
    }

    /// The sum of these; none when one is not there, or none is asked for.
    pub fn sum(&self, names: &[String]) -> Option<f64> {
        let found: Option<Vec<f64>> = names.iter().map(|name| self.0.get(name).copied()).collect();
        found.filter(|found| !found.is_empty()).map(|found| found.iter().sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_need_all_of_their_parts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reference.json");
        std::fs::write(&path, "{\"a: x\": 1.5, \"a: y\": 2}").unwrap();
        let found = Reference::read(&path).unwrap();
        let sum = |names: &[&str]| found.sum(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!((sum(&["a: x", "a: y"]), sum(&["a: x", "b"]), sum(&[])), (Some(3.5), None, None));
    }

    #[test]
    fn another_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reference.json");
        std::fs::write(&path, "[]").unwrap();
        let Failure { code, report } = Reference::read(&path).unwrap_err();
        assert_eq!(code, exit::CONFIG);
        let expected = format!(
            "error: cannot read timings from `{}`: invalid type: sequence, expected a map at line 1 column 0\n  help: name a file \
             that `bench_oracle.py --json FILE` wrote",
            path.display()
        );
        assert_eq!(report, expected);
    }
}
