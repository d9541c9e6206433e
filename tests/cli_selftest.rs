//! `vlp selftest`: the table, the exit code and the messages of the real binary, on every engine of the build.
//!
//! That a difference fails, and how it is told, is tested where the verdict is made (`src/cli/selftest.rs`).

use std::process::{Command, Output};

fn selftest(args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_vlp"));
    command.current_dir(folder.path()).env_remove("RUST_LOG").arg("selftest").args(args);
    let output = command.output().unwrap();
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "nothing is written");
    output
}

fn passes(device: &str) {
    let output = selftest(&["--device", device]);
    let (table, notes) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{notes}\n{table}");
    let rows: Vec<Vec<&str>> =
        table.lines().map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect();
    assert_eq!(rows[0], ["Check", "Numbers", "Largest difference", "Tolerance", "Verdict"]);
    assert!(rows[1].iter().all(|cell| cell.chars().all(|c| "-:".contains(c))), "{table}");
    for row in &rows[2..] {
        let number = |column: usize| row[column].parse::<f64>().unwrap();
        assert_eq!((row.len(), row[4]), (5, "equal"), "{row:?}");
        assert!(number(1) >= 1.0 && number(2) <= number(3), "{row:?}");
    }
    let names: Vec<&str> = rows[2..].iter().map(|row| row[0]).collect();
    for expected in [
        "checkpoint: parameters",
        "mixed: hidden states and logits",
        "s2s: loss",
        "s2s_regions: gradient norms",
        "vqa: answers",
        "scst: gradients",
        "optimiser: parameters",
        "greedy: words",
        "beam 5, no 2-gram twice: scores",
    ] {
        assert!(names.contains(&expected), "no row `{expected}`:\n{table}");
    }
    assert!(notes.starts_with(&format!("`{device}` computes what the reference does (")), "{notes}");
    assert_eq!(notes.lines().count(), 1, "{notes}");
}

#[test]
fn the_engine_flex_computes_what_the_reference_does() {
    passes("flex");
}

#[cfg(feature = "tch")]
#[test]
fn the_engine_tch_cpu_computes_what_the_reference_does() {
    passes("tch-cpu");
}

#[test]
fn quiet_leaves_the_table_only() {
    let output = selftest(&["--quiet"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout.starts_with(b"| Check "));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn a_device_that_is_not_there_is_a_mistake_of_the_command_line() {
    let output = selftest(&["--device", "gpu"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "error: device `gpu` is not available: there is no device of this name\n  help: use auto, flex, \
         tch-cpu, tch-cuda or cuda; the last two also with the number of a GPU, as in tch-cuda:1\n"
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
}
