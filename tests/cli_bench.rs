//! `vlp bench` at its smallest size: which rows, columns and keys it prints. No time is asserted.

use assert_cmd::Command;
use serde_json::Value;

fn bench(args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_vlp")).arg("bench").args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const NETWORK: [&str; 4] = ["ce-step", "greedy", "beam", "scst"];

#[test]
fn the_network_as_json() {
    let mut args = vec!["--size", "tiny", "--reps", "2", "--device", "flex", "--batch", "3", "--json"];
    args.extend(NETWORK);
    let output = bench(&args);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let progress: String = NETWORK.iter().map(|part| format!("{part}: 2 repetitions\n")).collect();
    assert_eq!(text(&output.stderr), progress);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&found["device"], &found["size"]), (&"flex".into(), &"tiny".into()));
    for positive in ["threads", "matrix_gflops", "copy_gb_per_s"] {
        assert!(found[positive].as_f64().unwrap() > 0.0, "{positive} in {found:#}");
    }
    let rows = found["times"].as_array().unwrap();
    let works: Vec<[&str; 2]> = rows.iter().map(|row| ["part", "work"].map(|key| row[key].as_str().unwrap())).collect();
    let expected = [
        ["ce-step", "forward"],
        ["ce-step", "backward"],
        ["ce-step", "optimiser"],
        ["ce-step", "all"],
        ["greedy", "decoding"],
        ["beam", "decoding"],
        ["scst", "loss"],
        ["scst", "backward"],
        ["scst", "all"],
    ];
    assert_eq!(works, expected);
    for row in rows {
        let seconds = |name: &str| row["seconds"][name].as_f64().unwrap();
        assert_eq!(row["items"], 3);
        assert_eq!(row["seconds"]["all"].as_array().map(Vec::len), Some(2));
        assert!(
            0.0 < seconds("least") && seconds("least") <= seconds("median") && seconds("median") <= seconds("most")
        );
        assert_eq!(row["items_per_s"].as_f64(), Some(3.0 / seconds("median")));
        assert_eq!(row["flops"].is_null(), row["work"] == "optimiser");
        assert!(row["reference_s"].is_null() && row["times_as_fast"].is_null());
    }
    let memory = found["memory"].as_array().unwrap();
    assert_eq!(memory.iter().map(|part| part["part"].as_str().unwrap()).collect::<Vec<_>>(), NETWORK);
    assert!(memory.iter().all(|part| part["peak_mib"].as_u64().is_some_and(|mib| mib > 0)));
}

#[test]
fn files_are_written_read_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_vlp"));
    command.env("TMPDIR", folder.path()).args(["bench", "loader", "--size", "tiny", "--reps", "3", "--json"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = found["times"].as_array().unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!([&rows[0]["part"], &rows[0]["work"]], ["loader", "batches"]);
    assert_eq!(rows[0]["items"], 1000);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn tables_and_their_columns() {
    let output = bench(&["greedy", "--size", "tiny", "--reps", "1", "--device", "flex", "--quiet"]);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    let tables = text(&output.stdout);
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let first_cells: Vec<String> =
        tables.lines().map(|line| cells(line)[0].clone()).filter(|c| !c.starts_with('-')).collect();
    let expected = [
        "Machine",
        "Device",
        "Threads",
        "Matrix products, GFLOP/s",
        "Copies, GB/s",
        "",
        "Part",
        "greedy",
        "",
        "Part",
        "greedy",
    ];
    assert_eq!(first_cells, expected, "{tables}");
    let header = tables.lines().find(|line| line.contains("Median s")).map(cells).unwrap();
    let columns = ["Part", "Work", "Median s", "Least", "Most", "Per second", "GFLOP", "Of matrix rate"];
    assert_eq!(header, columns);
}

#[test]
fn a_reference_is_for_its_own_sizes() {
    let output = bench(&["--size", "tiny", "--reference", "timings.json"]);
    assert_eq!(output.status.code(), Some(2));
    let expected = "error: a reference has sizes of its own: base\n  help: leave out `--size`, or `--reference`\n";
    assert_eq!(text(&output.stderr), expected);
    let output = bench(&["--reference", "no/timings.json"]);
    assert_eq!(output.status.code(), Some(2));
    let expected = "error: cannot read timings from `no/timings.json`: No such file or directory (os error 2)\n  help: name a file \
                    that `bench_oracle.py --json FILE` wrote\n";
    assert_eq!(text(&output.stderr), expected);
}
