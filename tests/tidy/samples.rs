//! Each rule on a sample that breaks it, and on one that does not: a rule that cannot fail protects nothing.

use super::*;

fn source(path: &str, text: &str) -> Source {
    Source::new(path, text)
}

fn imports(path: &str, text: &str) -> Vec<String> {
    source(path, text).crate_imports().into_iter().map(|(line, to)| format!("{line} {to}")).collect()
}

#[test]
fn imports_are_found_in_every_form() {
    assert_eq!(
        imports("src/data/batch.rs", "use crate::config::Settings;\nfn f() { crate::track::open() }"),
        ["1 config", "2 track"]
    );
    assert_eq!(
        imports("src/data/batch.rs", "use crate::{config::{A, B}, model, track::x as y,};"),
        ["1 config", "1 model", "1 track"]
    );
    assert_eq!(imports("src/data/batch.rs", "use crate::{\n    config,\n    model,\n};"), ["1 config", "1 model"]);
    assert_eq!(imports("src/data/batch.rs", "use crate::*; pub(crate) fn f(c: crate::r#cli::C) {}"), ["1 *", "1 cli"]);
}

#[test]
fn imports_through_super_are_found_where_they_leave_the_module() {
    assert_eq!(imports("src/data/batch.rs", "use super::karpathy::X;\nuse super::super::config::Y;"), ["2 config"]);
    assert_eq!(imports("src/data/mod.rs", "use super::model::X;"), ["1 model"]);
    assert_eq!(
        imports("src/data/region_store/mod.rs", "use super::loader; use super::super::{train, cli};"),
        ["1 train", "1 cli"]
    );
    assert_eq!(
        imports("src/data/mod.rs", "mod tests { use super::*; }\nmod more { use super::super::track; }"),
        ["2 track"]
    );
    assert_eq!(imports("src/data/batch.rs", "use super::superb; use superb::super_x;"), Vec::<String>::new());
}

#[test]
fn comments_and_literals_are_not_code() {
    let text = r####"
//! [`crate::cli`] dbg!(1)
/* crate::a /* nested */ crate::b */ fn f<'a>(x: &'a str) -> char { 'c' }
const A: &str = "crate::c \" // crate::d"; const B: &str = r#"crate::e " crate::f"#; const C: u8 = b'"'; use crate::model;
const D: &[u8] = b"crate::g"; const E: char = '\''; const F: char = '"'; // crate::h
use crate::config; fn four() { let r = br"crate::i\"; let var = 1; var"crate::j" }
"####;
    let source = source("src/data/x.rs", text);
    assert_eq!(source.crate_imports(), [(4, "model".to_string()), (6, "config".to_string())]);
    assert_eq!((source.code.len(), source.comments.len()), (text.len(), text.len()));
    assert!(source.comments.contains("nested") && !source.comments.contains("model"));
    assert_eq!(check_unfinished(&source), Vec::<String>::new());
}

#[test]
fn a_wrong_arrow_is_named_with_its_line() {
    let complaint = |path, text| check_arrows(&source(path, text)).join("\n");
    assert_eq!(
        complaint("src/launch/plan.rs", "//! x\nuse crate::train::engine;"),
        "src/launch/plan.rs:2: `launch` imports `train`, but may import config, track; move the item to where both may reach it, \
         or pass the value in from `cli`"
    );
    assert_eq!(
        complaint("src/metrics/bleu.rs", "use crate::config::Metric;"),
        "src/metrics/bleu.rs:1: `metrics` imports `config`, but may import nothing; move the item to where both may reach it, \
         or pass the value in from `cli`"
    );
    assert!(complaint("src/train/engine.rs", "use crate::cli::exit;").contains("`train` imports `cli`"));
    assert_eq!(
        complaint("src/data/x.rs", "use crate::VERSION;"),
        "src/data/x.rs:1: `crate::VERSION` is not a folder of src/; import an item from the module that defines it"
    );
    assert_eq!(
        complaint("src/zoo/mod.rs", ""),
        "src/zoo/mod.rs: `zoo` is not in ARROWS; say there and in ARCHITECTURE.md what it may import"
    );
    for (path, text) in [
        ("src/train/engine.rs", "use crate::{config::A, data::B, train::schedule, track::Journal};"),
        ("src/cli/run.rs", "use crate::cli::exit; use crate::{pipeline, train};"),
        ("src/main.rs", "use crate::anything;"),
    ] {
        assert_eq!(complaint(path, text), "");
    }
}

#[test]
fn long_files_are_named() {
    assert_eq!(
        check_length(&source("src/a/b.rs", &"\n".repeat(601))),
        ["src/a/b.rs: 601 lines, at most 600; split it where its second idea begins"]
    );
    assert_eq!(check_length(&source("src/a/b.rs", &"\n".repeat(600))), Vec::<String>::new());
}

#[test]
fn missing_headers_are_named() {
    let expected =
        ["src/a/b.rs: starts without a `//!` line; say what the file is for and what it deliberately does not do"];
    assert_eq!(check_header(&source("src/a/b.rs", "use std::fs;\n//! late")), expected);
    assert_eq!(check_header(&source("src/a/b.rs", "")), expected);
    assert_eq!(check_header(&source("src/a/b.rs", "//!\n//! empty first line")), expected);
    assert_eq!(check_header(&source("src/a/b.rs", "\n//! What it is for.\n")), Vec::<String>::new());
}

#[test]
fn unfinished_work_is_named() {
    let text = "fn f() {\n    todo!()\n}\nfn g() { std::unimplemented!(\"x\"); dbg!(1); }\n// FIXME later\n";
    assert_eq!(
        check_unfinished(&source("src/a/b.rs", text)),
        [
            "src/a/b.rs:2: `todo!`; finish it, or return a typed error",
            "src/a/b.rs:4: `unimplemented!`; finish it, or return a typed error",
            "src/a/b.rs:4: `dbg!`; finish it, or return a typed error",
            "src/a/b.rs:5: FIXME; mend it, or state the limit in plain words",
        ]
    );
    assert_eq!(
        check_unfinished(&source("src/a/b.rs", "let todo = my_todo!(\"todo!() FIXME\");")),
        Vec::<String>::new()
    );
}

#[test]
fn glob_re_exports_are_named() {
    let lines = |text: &str| check_glob_exports(&source("src/a/mod.rs", text)).len();
    assert_eq!(
        check_glob_exports(&source("src/a/mod.rs", "mod b;\npub use b::*;")),
        ["src/a/mod.rs:2: glob re-export; name the items, so that a reader can find where they live"]
    );
    assert_eq!(lines("pub(crate) use b::{c, d::*};"), 1);
    assert_eq!(lines("pub use b::{\n    c,\n    d::*,\n};"), 1);
    assert_eq!(lines("use super::*; pub use b::C; pub fn f(x: *const u8) -> impl Sized + use<> { 2 * 3 }"), 0);
}

#[test]
fn environment_reads_are_named() {
    let lines = |path: &str, text: &str| check_environment(&source(path, text)).len();
    assert_eq!(
        check_environment(&source("src/train/engine.rs", "//! x\nlet a = std::env::var(\"A\");")),
        [
            "src/train/engine.rs:2: `env::var`; only cli/ and launch/ touch the environment: take the value as a parameter"
        ]
    );
    for text in [
        "use std::env; env::var_os(\"A\")",
        "env::vars()",
        "use std::env::{self, var};",
        "use std::env as e;",
        "env::set_var(\"A\", \"b\")",
        "figment::providers::Env::prefixed(\"VLP_\")",
    ] {
        assert_eq!(lines("src/config/x.rs", text), 1, "{text}");
    }
    assert_eq!(lines("src/config/x.rs", "env!(\"CARGO_PKG_VERSION\"); std::env::temp_dir(); environment.var()"), 0);
    assert_eq!(lines("src/config/x.rs", "fn f() {}\n#[cfg(test)]\nmod tests { fn g() { std::env::var(\"A\"); } }"), 0);
    assert_eq!(lines("src/config/x.rs", "#[cfg(test)]\nmod tests {}\nfn f() { std::env::var(\"A\"); }"), 1);
    assert_eq!(lines("src/cli/x.rs", "std::env::var(\"A\")") + lines("src/launch/x.rs", "std::env::var(\"A\")"), 0);
    assert_eq!(lines("src/main.rs", "std::env::args_os()"), 0);
}

#[test]
fn tensors_in_metrics_are_named() {
    assert_eq!(
        check_metrics(&source("src/metrics/bleu.rs", "//! Not burn.\nuse burn::tensor::Tensor;")),
        ["src/metrics/bleu.rs:2: names `burn`; take and give plain slices"]
    );
    assert_eq!(check_metrics(&source("src/evaluate/x.rs", "use burn::tensor::Tensor;")).len(), 0);
}

#[test]
fn libtorch_outside_its_place_is_named() {
    let lines = |path: &str, text: &str| check_libtorch(&source(path, text)).len();
    assert_eq!(
        check_libtorch(&source("src/train/bert_adam.rs", "//! x\nuse burn_tch::LibTorch;")),
        [
            "src/train/bert_adam.rs:2: names `burn_tch`; choose LibTorch at run time through burn's `Device`, or list a fast \
             path in LIBTORCH_FAST_PATHS"
        ]
    );
    assert_eq!(lines("src/model/x.rs", "let t: tch::Tensor; let u = ::tch::no_grad(f);"), 2);
    assert_eq!(lines("src/model/x.rs", "let device = Device::libtorch(); batch::f(); cfg!(feature = \"tch\")"), 0);
    assert_eq!(lines("src/distributed/c10d.rs", "use tch::Tensor;"), 0);
}

#[test]
fn printing_and_exiting_are_named() {
    let lines = |path: &str, text: &str| check_output(&source(path, text)).len();
    assert_eq!(
        check_output(&source("src/results/table.rs", "//! x\nprintln!(\"x\");")),
        [
            "src/results/table.rs:2: `println!`; only cli/ prints results or exits: return the value, or log with `tracing`"
        ]
    );
    assert_eq!(lines("src/train/x.rs", "print!(\"x\"); std::process::exit(1); process::abort()"), 3);
    assert_eq!(lines("src/train/x.rs", "std::process::id(); eprintln!(\"x\"); writeln!(out)"), 0);
    assert_eq!(lines("src/cli/x.rs", "println!(\"x\")") + lines("src/main.rs", "process::exit(0)"), 0);
}

#[test]
fn a_stale_map_is_named() {
    let arrows: String = ARROWS
        .iter()
        .map(|(from, to)| format!("    {from} → {}\n", if to.is_empty() { "nothing".into() } else { to.join("  ") }))
        .collect();
    let folders = ["data".to_string(), "data/region_store".to_string()];
    let map = format!("data/  reads; region_store/ within\n{arrows}see `src/data/mod.rs`, not `src/**/x.rs`");
    assert_eq!(check_map(&map, &folders, |path| path == "src/data/mod.rs"), Vec::<String>::new());
    assert_eq!(
        check_map(&map, &folders, |_| false),
        ["ARCHITECTURE.md names `src/data/mod.rs`, which does not exist; follow the move, or drop it"]
    );
    assert_eq!(
        check_map(&map.replace("region_store/", ""), &folders, |_| true),
        ["ARCHITECTURE.md does not name `region_store/` (src/data/region_store); say what it is for"]
    );
    assert_eq!(
        check_map(&map.replace("decode → model", "decode → train"), &folders, |_| true),
        ["ARCHITECTURE.md lacks the line `decode → model`, which tests/tidy.rs enforces"]
    );
}

#[test]
fn experiments_without_their_schema_are_named() {
    let good = "#:schema ../../schemas/experiment.schema.json\n[experiment]\n";
    assert_eq!(
        check_experiment("experiments/a/b.toml", good, |s| s == "../../schemas/experiment.schema.json"),
        Vec::<String>::new()
    );
    assert_eq!(
        check_experiment("experiments/a/b.toml", good, |_| false),
        [
            "experiments/a/b.toml: `#:schema ../../schemas/experiment.schema.json` leads nowhere; the path is relative to this file"
        ]
    );
    assert_eq!(
        check_experiment("experiments/a/b.toml", "# x\n#:schema y\n", |_| true),
        [
            "experiments/a/b.toml: the first line is not `#:schema <path of the schema>`; editors complete and check by it"
        ]
    );
}
