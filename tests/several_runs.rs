//! `vlp run` with several files: shared stages run once, a failure stops only what descends from it; and `vlp graph` of that.

mod demo_runs;

use demo_runs::{Folder, TINY, folders};

/// An experiment like the tiny one, under another name.
fn variant(name: &str, from: &str, more: &str) -> String {
    let text = TINY.split("[[paper]]").next().unwrap().replace("name = \"tiny\"", &format!("name = {name:?}"));
    format!("{}\n[init]\nfrom = {from:?}\n{more}", text.replace("epochs = 2", "epochs = 1"))
}

#[test]
fn a_failure_stops_only_what_descends_from_it() {
    let folder = Folder::new();
    folder.write("base.toml", variant("base", "", ""));
    folder.write("a.toml", variant("a", "base", ""));
    folder.write("b.toml", variant("b", "base", ""));
    folder.write("bad.toml", variant("bad", "", "").replace("region_feature_size = 128", "region_feature_size = 64"));
    folder.write("child.toml", variant("child", "bad", ""));
    let output = folder.vlp(&["run", "child.toml", "a.toml", "b.toml"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "the data do not fit: {said}");
    let last: Vec<&str> = said.lines().rev().take(2).collect();
    assert_eq!(last[1], "error: failed: bad; not started: child (starts from bad)", "{said}");
    assert_eq!(last[0], "  help: mend the causes above; the same command goes on, and what is finished is reused");
    for name in ["base", "a", "b", "bad"] {
        assert_eq!(folders(&folder.path("runs").join(name)).len(), 1, "{name}: {said}");
    }
    assert!(!folder.path("runs/child").exists(), "{said}");

    let drawn = folder.stdout(&["graph", "."]);
    insta::with_settings!({filters => vec![(r"\d{8}-\d{6}", "<run id>"), (r"cider [\d.]+", "cider <score>")]}, {
        insta::assert_snapshot!(drawn, @r##"
        bad
        │  <run id>  failed
        └─ child
              not run
        base
        │  <run id>  finished  val/cider <score> (epoch 1)
        ├─ a
        │     <run id>  finished  val/cider <score> (epoch 1)
        └─ b
              <run id>  finished  val/cider <score> (epoch 1)
        tiny
           not run
        "##);
    });
    let one = folder.stdout(&["graph", "a.toml"]);
    assert_eq!(one.lines().filter(|line| !line.contains("finished")).collect::<Vec<_>>(), ["base", "└─ a"]);
    let picture = folder.stdout(&["graph", "--format", "svg", "."]);
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"), "{picture}");
}
