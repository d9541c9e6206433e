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
    assert_eq!((&found["precision"], &found["gradient_checkpointing"]), (&"fp32".into(), &false.into()));
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

/// Each image takes as many steps as its caption has words, the end included: 10 to 14, not 20.
#[test]
fn captions_that_end_take_fewer_steps() {
    let flops = |more: &[&str]| {
        let args = ["greedy", "beam", "--size", "tiny", "--reps", "1", "--device", "flex", "--batch", "8", "--json"];
        let output = bench(&[&args[..], more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let rows = found["times"].as_array().unwrap().iter();
        rows.map(|row| (row["work"].as_str().unwrap().to_owned(), row["flops"].as_f64().unwrap())).collect::<Vec<_>>()
    };
    let (full, ending) = (flops(&[]), flops(&["--ending"]));
    let works = |rows: &[(String, f64)]| rows.iter().map(|row| row.0.clone()).collect::<Vec<_>>();
    assert_eq!((works(&full), works(&ending)), (vec!["decoding".into(); 2], vec!["captions that end".into(); 2]));
    let shares: Vec<f64> = full.iter().zip(&ending).map(|(full, ending)| ending.1 / full.1).collect();
    // 12 of 20 steps, and the image.
    assert!(shares.iter().all(|share| (0.55..0.75).contains(share)), "{shares:?}");
}

#[test]
fn training_steps_in_low_precision() {
    for precision in ["bf16", "fp16"] {
        let args = ["ce-step", "scst", "--size", "tiny", "--reps", "1", "--device", "flex", "--batch", "2", "--quiet"];
        let output = bench(&[&args[..], &["--precision", precision, "--gradient-checkpointing"]].concat());
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
        let tables = text(&output.stdout);
        let row = tables.lines().find(|line| line.starts_with("| Training steps")).unwrap();
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells, ["Training steps", &format!("{precision}, gradient checkpointing")]);
        assert_eq!(tables.lines().filter(|line| line.starts_with("| scst")).count(), 4, "{tables}");
    }
    let output = bench(&["ce-step", "--precision", "fp8"]);
    assert_eq!(output.status.code(), Some(2));
    let expected = "error: invalid value 'fp8' for '--precision <TYPE>': unknown variant `fp8`, expected one of `fp32`, `bf16`, `fp16`\n";
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with(expected), "{stderr}");
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
    let works: Vec<_> = rows.iter().map(|row| row["work"].as_str().unwrap()).collect();
    assert_eq!(works, ["batches", "by 1 thread", "by 2 threads"]);
    for row in rows {
        assert_eq!((&row["part"], &row["items"], &row["batch"]), (&"loader".into(), &1000.into(), &16.into()));
        // 5 regions: 16 + 7 halves and 6 singles are read, 16 + 6 + 7 singles written.
        let bytes = 1000.0 * 5.0 * (2.0 * 23.0 + 24.0 + 4.0 * 29.0);
        let (median, rate) = (row["seconds"]["median"].as_f64().unwrap(), found["copy_gb_per_s"].as_f64().unwrap());
        assert_eq!(row["of_copy_rate"].as_f64(), Some(bytes / median / 1e9 / rate));
    }
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
        "Training steps",
        "Matrix products, GFLOP/s",
        "Copies, GB/s",
        "Copies by one thread, GB/s",
        "",
        "Part",
        "greedy",
        "",
        "Part",
        "greedy",
    ];
    assert_eq!(first_cells, expected, "{tables}");
    let header = tables.lines().find(|line| line.contains("Median s")).map(cells).unwrap();
    let columns =
        ["Part", "Work", "Batch", "Median s", "Least", "Most", "Per second", "GFLOP", "Of matrix rate", "Of copy rate"];
    assert_eq!(header, columns);
}

#[test]
fn sizes_in_turn_show_growth() {
    let args = ["beam", "ce-step", "--size", "tiny", "--reps", "1", "--device", "flex", "--quiet", "--json"];
    let output = bench(&[&args[..], &["--batch", "2,4", "--beams", "1,3"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let sizes = |list: &str, keep: &dyn Fn(&Value) -> bool| -> Vec<(String, Value, Value)> {
        let rows = found[list].as_array().unwrap().iter().filter(|row| keep(row));
        rows.map(|row| (row["part"].as_str().unwrap().into(), row["batch"].clone(), row["beams"].clone())).collect()
    };
    let row = |part: &str, batch: u64, beams: Option<u64>| (part.to_owned(), Value::from(batch), Value::from(beams));
    let beam = |batch| [1, 3].map(|beams| row("beam", batch, Some(beams)));
    let expected =
        [beam(2).to_vec(), beam(4).to_vec(), vec![row("ce-step", 2, None), row("ce-step", 4, None)]].concat();
    assert_eq!(sizes("times", &|row| ["decoding", "all"].contains(&row["work"].as_str().unwrap())), expected);
    assert_eq!(sizes("memory", &|_| true), expected);
    for memory in found["memory"].as_array().unwrap() {
        let mib = |key: &str| memory[key].as_u64().unwrap();
        assert!(0 < mib("start_mib") && mib("start_mib") <= mib("peak_mib"), "{memory}");
    }
}

/// Without METEOR's data, and with a reference that has the times of these captions.
#[test]
fn metrics_of_given_captions() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    };
    let annotation = |id: u64, image: u64, caption: &str| {
        format!("{{\"id\": {id}, \"image_id\": {image}, \"caption\": \"{caption}\"}}")
    };
    let annotations = [annotation(1, 7, "A dog."), annotation(2, 7, "A big dog."), annotation(3, 9, "Two cats.")];
    let captions = file("captions.json", &format!("{{\"annotations\": [{}]}}", annotations.join(", ")));
    let name = "caption metrics, 5000 images, 7500 references: ";
    let both = format!("{{\"{name}tokenizer\": 1000, \"{name}BLEU, ROUGE-L, CIDEr\": 2000}}");
    let reference = file("reference.json", &both);
    let run = |captions: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vlp"));
        command.env("VLP_METEOR_DIR", folder.path()).args(["bench", "metrics", "--captions", captions]);
        command.args(["--reference", &reference, "--reps", "1", "--json"]).output().unwrap()
    };
    let output = run(&captions);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("metrics: 1 repetitions\nnot timed: METEOR is not available: "), "{stderr}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows: Vec<_> =
        found["times"].as_array().unwrap().iter().map(|row| (&row["work"], &row["reference_s"])).collect();
    let works = ["tokenizer", "BLEU, ROUGE-L, CIDEr", "all"].map(Value::from);
    let seconds = [1000.0, 2000.0, 3000.0].map(Value::from);
    assert_eq!(rows, works.iter().zip(&seconds).collect::<Vec<_>>());

    let empty = file("empty.json", "{\"annotations\": []}");
    let output = run(&empty);
    assert_eq!(output.status.code(), Some(3));
    let help = "name a COCO annotations file, such as captions_val2014.json";
    let expected = format!("metrics: 1 repetitions\nerror: `{empty}` has no captions\n  help: {help}\n");
    assert_eq!(text(&output.stderr), expected);
}

#[test]
fn an_index_is_written_searched_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_vlp"));
    command.env("TMPDIR", folder.path()).args(["bench", "index", "--size", "tiny", "--reps", "1", "--json"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows: Vec<_> =
        found["times"].as_array().unwrap().iter().map(|row| (&row["work"], row["items"].as_u64())).collect();
    let works = ["boxes", "features and class scores", "annotations"].map(Value::from);
    assert_eq!(rows, [(&works[0], Some(3000)), (&works[1], Some(12)), (&works[2], Some(3000))]);
    let memory: Vec<_> = found["memory"].as_array().unwrap().iter().map(|row| &row["work"]).collect();
    assert_eq!(memory, works.iter().collect::<Vec<_>>());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
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
