//! Rules that neither the compiler nor clippy knows: who may import whom, size of files, headers, and what
//! ARCHITECTURE.md and the experiment files must say. Reads the sources as text; runs nothing.
//!
//! Each rule is a function from text to complaints, tried on bad samples in `samples.rs`.

#[path = "tidy/samples.rs"]
mod samples;
#[path = "tidy/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use source::{Source, find_word};

/// Who may import whom: a folder of `src/`, then every other folder it may name. ARCHITECTURE.md shows the same lines.
const ARROWS: &[(&str, &[&str])] = &[
    ("config", &[]),
    ("metrics", &[]),
    ("formats", &[]),
    ("distributed", &[]),
    ("track", &["config"]),
    ("data", &["config", "formats", "metrics"]),
    ("model", &["config", "formats"]),
    ("decode", &["model"]),
    ("train", &["config", "data", "model", "decode", "metrics", "distributed", "track"]),
    ("evaluate", &["config", "data", "model", "decode", "metrics", "track"]),
    ("launch", &["config", "track"]),
    ("pipeline", &["config", "launch", "track"]),
    ("sweep", &["config", "pipeline", "track"]),
    ("results", &["config", "track"]),
];

/// The folder that may import everything, and that nothing imports.
const TOP: &str = "cli";

/// Files outside `distributed/` that may name LibTorch: fast paths with a portable twin.
const LIBTORCH_FAST_PATHS: &[&str] =
    &["src/model/packed.rs", "src/model/fused/libtorch.rs", "src/model/attention/libtorch.rs", "src/model/transfer.rs"];

const MAX_LINES: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below `folder` with the given extension, as (path relative to the project with `/`, text), sorted.
fn files(folder: &str, extension: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in walkdir::WalkDir::new(root().join(folder)).sort_by_file_name() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) if error.depth() == 0 => break, // no such folder
            Err(error) => panic!("cannot read {folder}: {error}"),
        };
        if entry.file_type().is_file() && entry.path().extension().is_some_and(|e| e == extension) {
            let text = fs::read_to_string(entry.path()).unwrap_or_else(|e| panic!("{}: {e}", entry.path().display()));
            found.push((relative(entry.path()), text));
        }
    }
    found
}

fn relative(path: &Path) -> String {
    let path = path.strip_prefix(root()).expect("inside the project");
    path.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
}

fn sources(folders: &[&str]) -> Vec<Source> {
    let found: Vec<Source> =
        folders.iter().flat_map(|f| files(f, "rs")).map(|(path, text)| Source::new(&path, &text)).collect();
    assert!(!found.is_empty(), "no sources in {folders:?}: the rule would pass on nothing");
    found
}

/// Fails with all complaints at once.
fn must_be_empty(rule: &str, complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{rule}\n\n{}\n", complaints.join("\n"));
}

/// The folder of `src/` that a file belongs to; none for `src/lib.rs` and `src/main.rs`.
fn module_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("src/")?;
    inside.split_once('/').map(|(module, _)| module)
}

fn check_arrows(source: &Source) -> Vec<String> {
    let Some(from) = module_of(&source.path) else { return Vec::new() };
    let allowed = ARROWS.iter().find(|(module, _)| *module == from).map(|(_, to)| *to);
    if allowed.is_none() && from != TOP {
        return vec![format!(
            "{}: `{from}` is not in ARROWS; say there and in ARCHITECTURE.md what it may import",
            source.path
        )];
    }
    let mut complaints = Vec::new();
    for (line, to) in source.crate_imports() {
        let known = to == TOP || ARROWS.iter().any(|(module, _)| *module == to);
        if to == from {
            continue;
        } else if !known {
            complaints.push(format!(
                "{}:{line}: `crate::{to}` is not a folder of src/; import an item from the module that defines it",
                source.path
            ));
        } else if from != TOP && !allowed.is_some_and(|a| a.contains(&to.as_str())) {
            let to_whom = match allowed.unwrap_or_default() {
                [] => "nothing".to_string(),
                some => some.join(", "),
            };
            complaints.push(format!(
                "{}:{line}: `{from}` imports `{to}`, but may import {to_whom}; move the item to where both may reach it, \
                 or pass the value in from `cli`",
                source.path
            ));
        }
    }
    complaints
}

fn check_length(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    if lines <= MAX_LINES {
        return Vec::new();
    }
    vec![format!("{}: {lines} lines, at most {MAX_LINES}; split it where its second idea begins", source.path)]
}

fn check_header(source: &Source) -> Vec<String> {
    let first = source.text.lines().find(|l| !l.trim().is_empty()).unwrap_or_default();
    if first.starts_with("//! ") {
        return Vec::new();
    }
    vec![format!(
        "{}: starts without a `//!` line; say what the file is for and what it deliberately does not do",
        source.path
    )]
}

fn check_unfinished(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    for name in ["todo", "unimplemented", "dbg"] {
        for at in find_word(&source.code, name).into_iter().filter(|at| source.code[at + name.len()..].starts_with('!'))
        {
            complaints.push(format!(
                "{}:{}: `{name}!`; finish it, or return a typed error",
                source.path,
                source.line(at)
            ));
        }
    }
    for at in find_word(&source.comments, "FIXME") {
        complaints.push(format!(
            "{}:{}: FIXME; mend it, or state the limit in plain words",
            source.path,
            source.line(at)
        ));
    }
    complaints
}

fn check_glob_exports(source: &Source) -> Vec<String> {
    let complain = |line| {
        format!("{}:{line}: glob re-export; name the items, so that a reader can find where they live", source.path)
    };
    source.uses().into_iter().filter(|u| u.public && u.path.contains('*')).map(|u| complain(u.line)).collect()
}

fn check_environment(source: &Source) -> Vec<String> {
    if matches!(module_of(&source.path), None | Some(TOP | "launch")) {
        return Vec::new();
    }
    let std = |name: &str| ["var", "vars", "var_os", "vars_os", "set_var", "remove_var", "as", "*"].contains(&name);
    let figment = |name: &str| ["prefixed", "raw", "var", "as"].contains(&name);
    let in_std = source.paths_through("env").into_iter().filter(|(_, name)| std(name)).map(|found| ("env", found));
    let in_figment =
        source.paths_through("Env").into_iter().filter(|(_, name)| figment(name)).map(|found| ("Env", found));
    let complain = |(module, (line, name))| {
        let path = &source.path;
        format!(
            "{path}:{line}: `{module}::{name}`; only cli/ and launch/ touch the environment: take the value as a parameter"
        )
    };
    in_std.chain(in_figment).map(complain).collect()
}

/// The metrics are a library that others can take without a tensor library.
fn check_metrics(source: &Source) -> Vec<String> {
    if module_of(&source.path) != Some("metrics") {
        return Vec::new();
    }
    let named = find_word(&source.code, "burn").into_iter();
    named.map(|at| format!("{}:{}: names `burn`; take and give plain slices", source.path, source.line(at))).collect()
}

fn check_libtorch(source: &Source) -> Vec<String> {
    if module_of(&source.path) == Some("distributed") || LIBTORCH_FAST_PATHS.contains(&source.path.as_str()) {
        return Vec::new();
    }
    let named = |name| find_word(&source.code, name).into_iter().map(move |at| (at, name));
    let paths = named("tch").filter(|(at, _)| source.code[at + "tch".len()..].starts_with("::"));
    named("burn_tch")
        .chain(paths)
        .map(|(at, name)| {
            format!(
                "{}:{}: names `{name}`; choose LibTorch at run time through burn's `Device`, or list a fast path in \
                 LIBTORCH_FAST_PATHS",
                source.path,
                source.line(at)
            )
        })
        .collect()
}

/// Printing results and exiting belong to `cli` (and `main.rs`).
fn check_output(source: &Source) -> Vec<String> {
    if matches!(module_of(&source.path), None | Some(TOP)) {
        return Vec::new();
    }
    let macros = ["println", "print"].into_iter().flat_map(|name| {
        let calls = find_word(&source.code, name).into_iter();
        calls
            .filter(move |at| source.code[at + name.len()..].starts_with('!'))
            .map(move |at| (source.line(at), format!("{name}!")))
    });
    let exits = source.paths_through("process").into_iter().filter(|(_, name)| name == "exit" || name == "abort");
    let complain = |(line, what)| {
        format!(
            "{}:{line}: `{what}`; only cli/ prints results or exits: return the value, or log with `tracing`",
            source.path
        )
    };
    macros.chain(exits.map(|(line, name)| (line, format!("process::{name}")))).map(complain).collect()
}

/// `folders`: all folders below `src/`, relative to it; `exists`: whether a path relative to the project exists.
fn check_map(map: &str, folders: &[String], exists: impl Fn(&str) -> bool) -> Vec<String> {
    let mut complaints = Vec::new();
    for folder in folders {
        let name = folder.rsplit('/').next().unwrap_or(folder);
        if !map.contains(&format!("{name}/")) {
            complaints.push(format!("ARCHITECTURE.md does not name `{name}/` (src/{folder}); say what it is for"));
        }
    }
    for (from, to) in ARROWS {
        let line = format!("{from} → {}", if to.is_empty() { "nothing".to_string() } else { to.join(" ") });
        if !map.lines().any(|l| l.split_whitespace().eq(line.split_whitespace())) {
            complaints.push(format!("ARCHITECTURE.md lacks the line `{line}`, which tests/tidy.rs enforces"));
        }
    }
    for path in map.split('`').skip(1).step_by(2).filter(|p| p.starts_with("src/") && !p.contains(['*', ' '])) {
        if !exists(path) {
            complaints
                .push(format!("ARCHITECTURE.md names `{path}`, which does not exist; follow the move, or drop it"));
        }
    }
    complaints
}

/// `exists`: whether the schema path, relative to the experiment file, exists.
fn check_experiment(path: &str, text: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
    let first = text.lines().next().unwrap_or_default();
    let Some(schema) = first.strip_prefix("#:schema ") else {
        return vec![format!(
            "{path}: the first line is not `#:schema <path of the schema>`; editors complete and check by it"
        )];
    };
    if exists(schema.trim()) {
        return Vec::new();
    }
    vec![format!("{path}: `#:schema {schema}` leads nowhere; the path is relative to this file")]
}

fn over(folders: &[&str], check: impl Fn(&Source) -> Vec<String>) -> Vec<String> {
    sources(folders).iter().flat_map(check).collect()
}

#[test]
fn imports_follow_the_arrows() {
    must_be_empty("Who may import whom is in ARCHITECTURE.md.", over(&["src"], check_arrows));
}

#[test]
fn the_arrows_have_no_cycle() {
    let mut settled: BTreeSet<&str> = BTreeSet::new();
    let mut open: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    while !open.is_empty() {
        let ready: Vec<&str> =
            open.iter().filter(|(_, to)| to.iter().all(|t| settled.contains(t))).map(|(m, _)| *m).collect();
        assert!(!ready.is_empty(), "these import each other in a circle, or something unlisted: {:?}", open.keys());
        open.retain(|module, _| !ready.contains(module));
        settled.extend(ready);
    }
}

#[test]
fn files_are_short() {
    must_be_empty("Files have one idea each.", over(&["src", "tests", "benches"], check_length));
}

#[test]
fn files_say_what_they_are_for() {
    must_be_empty("Every file starts with its purpose.", over(&["src", "tests", "benches"], check_header));
}

#[test]
fn nothing_is_left_unfinished() {
    must_be_empty("Unfinished work.", over(&["src", "tests", "benches"], check_unfinished));
}

#[test]
fn exports_are_named() {
    must_be_empty("Re-exports are by name.", over(&["src"], check_glob_exports));
}

#[test]
fn the_environment_is_read_at_the_top() {
    must_be_empty("No environment below cli/ and launch/.", over(&["src"], check_environment));
}

#[test]
fn metrics_need_no_tensors() {
    must_be_empty("metrics/ is free of burn.", over(&["src"], check_metrics));
}

#[test]
fn libtorch_is_named_in_one_place() {
    must_be_empty("LibTorch stays behind burn's Device.", over(&["src"], check_libtorch));
}

#[test]
fn only_the_command_line_prints_and_exits() {
    must_be_empty("stdout and the exit code belong to cli/.", over(&["src"], check_output));
}

#[test]
fn the_map_is_true() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let holds_rust = |dir: &Path| {
        fs::read_dir(dir).is_ok_and(|mut d| d.any(|e| e.is_ok_and(|e| e.path().extension().is_some_and(|x| x == "rs"))))
    };
    let folders: Vec<String> = walkdir::WalkDir::new(root().join("src"))
        .min_depth(1)
        .sort_by_file_name()
        .into_iter()
        .filter_map(Result::ok)
        .filter(|e| e.file_type().is_dir() && holds_rust(e.path()))
        .map(|e| relative(e.path()).trim_start_matches("src/").to_string())
        .collect();
    assert!(folders.contains(&"config".to_string()), "the rule would pass on nothing: {folders:?}");
    must_be_empty("ARCHITECTURE.md is the map.", check_map(&map, &folders, |path| root().join(path).exists()));
}

#[test]
fn experiments_name_their_schema() {
    let experiments = files("experiments", "toml");
    assert!(!experiments.is_empty(), "no experiments: the rule would pass on nothing");
    let check = |(path, text): &(String, String)| {
        let folder = root().join(path).parent().map(PathBuf::from).unwrap_or_default();
        check_experiment(path, text, |schema| folder.join(schema).is_file())
    };
    must_be_empty("Experiment files name their schema.", experiments.iter().flat_map(check).collect());
}
