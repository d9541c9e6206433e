//! `vlp doctor`: every line that the machine does not decide, with a home folder and a PATH of the test's own.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use serde_json::{Value, json};
use tempfile::TempDir;

fn doctor(folder: &Path, variables: &[(&str, &str)], args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vlp"));
    // The dynamic linker must still find LibTorch, where the build has it.
    let libraries = std::env::var_os("LD_LIBRARY_PATH").map(|value| ("LD_LIBRARY_PATH", value));
    command.env_clear().envs(libraries).env("HOME", "home").env("PATH", "bin").envs(variables.iter().copied());
    command.current_dir(folder).arg("doctor").args(args).output().unwrap()
}

fn program(folder: &Path, name: &str, script: &str) {
    std::fs::create_dir_all(folder).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn findings(output: &Output) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn finding(findings: &[Value], item: &str) -> Value {
    findings.iter().find(|finding| finding["item"] == item).unwrap_or_else(|| panic!("no {item}")).clone()
}

#[test]
fn all_that_is_missing_has_its_command() {
    let folder = TempDir::new().unwrap();
    let found = findings(&doctor(folder.path(), &[], &["--format", "json"]));
    let items: Vec<&str> = found.iter().map(|finding| finding["item"].as_str().unwrap()).collect();
    assert_eq!(
        items,
        [
            "device flex",
            "device tch-cpu",
            "device cuda",
            "device tch-cuda",
            "processors",
            "memory",
            "NVIDIA driver",
            "GPUs",
            "NVML",
            "disk of `runs`",
            "HDF5 library",
            "Java",
            "METEOR data",
            "SPICE tool",
            "LibTorch",
            "NCCL",
            "MLflow",
            "Slurm"
        ]
    );
    assert_eq!(finding(&found, "device flex")["state"], "ok");
    assert_eq!(
        finding(&found, "Java"),
        json!({
            "item": "Java",
            "state": "missing",
            "found": "for SPICE, and for `metrics.meteor = \"jar\"`; looked for `java`",
            "missing": ["Java: `java` is not there"],
            "help": ["apt-get install default-jdk-headless; or name another with JAVA_HOME or `metrics.java`"],
        })
    );
    assert_eq!(
        finding(&found, "METEOR data"),
        json!({
            "item": "METEOR data",
            "state": "missing",
            "found": "looked in `home/.cache/vlp/meteor`",
            "missing": [
                "file `home/.cache/vlp/meteor/meteor-1.5.jar`",
                "file `home/.cache/vlp/meteor/data/paraphrase-en.gz`",
            ],
            "help": ["scripts/meteor.sh"],
        })
    );
    let spice = finding(&found, "SPICE tool");
    assert_eq!(spice["found"], "looked in `home/.cache/vlp/spice`");
    let missing = spice["missing"].as_array().unwrap();
    assert_eq!(missing.len(), 17);
    assert!(missing.contains(&json!("file `home/.cache/vlp/spice/lib/stanford-corenlp-3.6.0-models.jar`")));
    assert_eq!(spice["help"].as_array().unwrap().len(), 3);
    for (item, missing) in
        [("MLflow", "program `mlflow` in PATH, or named by VLP_MLFLOW"), ("Slurm", "program `sbatch` in PATH")]
    {
        let found = finding(&found, item);
        assert_eq!((&found["state"], &found["missing"]), (&json!("missing"), &json!([missing])));
    }
    if !cfg!(feature = "tch") {
        let help =
            "build with `cargo build --release --features tch` (README.md, \"LibTorch\"), or use `--device flex`";
        assert_eq!(
            finding(&found, "device tch-cpu"),
            json!({
                "item": "device tch-cpu",
                "state": "missing",
                "found": "this binary was built without LibTorch",
                "missing": [],
                "help": [help],
            })
        );
        assert_eq!(finding(&found, "LibTorch")["state"], "missing");
    }
}

#[test]
fn what_is_there_is_found() {
    let folder = TempDir::new().unwrap();
    let bin = folder.path().join("bin");
    program(&bin, "java", "echo 'openjdk version \"21.0.2\" 2024-01-16' >&2");
    program(&bin, "mlflow", "exit 1");
    program(&bin, "sbatch", "exit 1");
    let data = folder.path().join("meteor/data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("paraphrase-en.gz"), "").unwrap();
    std::fs::write(folder.path().join("meteor/meteor-1.5.jar"), "").unwrap();
    let torch = folder.path().join("home/.cache/vlp/libtorch-2.9.1/lib");
    std::fs::create_dir_all(&torch).unwrap();
    std::fs::write(torch.join("libtorch_cpu.so"), "").unwrap();
    let found = findings(&doctor(folder.path(), &[("VLP_METEOR_DIR", "meteor")], &["--format", "json"]));
    let ok = |item: &str, text: &str| {
        let expected = json!({ "item": item, "state": "ok", "found": text, "missing": [], "help": [] });
        assert_eq!(finding(&found, item), expected);
    };
    ok("Java", "21 (`java`)");
    ok("METEOR data", "in `meteor`");
    ok("MLflow", "`bin/mlflow`");
    ok("Slurm", "`bin/sbatch`");
    let missing = finding(&found, "SPICE tool")["missing"].as_array().unwrap().clone();
    assert_eq!(missing.last().unwrap(), &json!("a Java compiler: `javac` is not there"));
    if !cfg!(feature = "tch") {
        assert_eq!(
            finding(&found, "LibTorch"),
            json!({
                "item": "LibTorch",
                "state": "unused",
                "found": "in `home/.cache/vlp/libtorch-2.9.1`; this build was made without",
                "missing": [],
                "help": ["eval \"$(scripts/libtorch.sh)\" && cargo build --release --features tch"],
            })
        );
    }
}

#[test]
fn the_table_ends_with_what_is_missing() {
    let folder = TempDir::new().unwrap();
    let output = doctor(folder.path(), &[], &[]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("| Item            | State   | Found "), "{text}");
    let meteor = "\nMETEOR data\n  missing: file `home/.cache/vlp/meteor/meteor-1.5.jar`\n  missing: file \
                  `home/.cache/vlp/meteor/data/paraphrase-en.gz`\n  help: scripts/meteor.sh\n\nSPICE tool\n";
    assert!(text.contains(meteor), "{text}");
    let end = "\nSlurm\n  missing: program `sbatch` in PATH\n  help: log in to a node of the cluster; for a trial on one \
               machine, apt-get install slurm-wlm\n";
    assert!(text.ends_with(end), "{text}");
}

/// The folders of an experiment's own options; a wrong file is a mistake of configuration.
#[test]
fn the_options_of_an_experiment() {
    let folder = TempDir::new().unwrap();
    let data = ["annotations", "valid_images", "region_prefix", "boxes", "vocabulary"];
    let data: String = data.iter().map(|key| format!("{key} = \"x\"\n")).collect();
    let metrics = "meteor_folder = \"m\"\nspice_folder = \"${PARTS}/s\"\njava = \"j/java\"\n";
    let text =
        format!("[experiment]\nname = \"e\"\n[data]\n{data}[metrics]\n{metrics}[output]\nruns = \"elsewhere\"\n");
    std::fs::write(folder.path().join("e.toml"), text).unwrap();
    let found = findings(&doctor(folder.path(), &[("PARTS", "p")], &["e.toml", "--format", "json"]));
    assert_eq!(finding(&found, "METEOR data")["found"], "looked in `m`");
    assert_eq!(finding(&found, "SPICE tool")["found"], "looked in `p/s`");
    assert_eq!(finding(&found, "Java")["missing"], json!(["Java: `j/java` is not there"]));
    assert_eq!(finding(&found, "disk of `elsewhere`")["state"], "ok");
    let output = doctor(folder.path(), &[], &["e.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("environment variable `PARTS` is not set"));
}
