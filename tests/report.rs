//! `vlp report`, `vlp compare` and `vlp dashboard`: exact numbers, escaping, one file that needs nothing; no browser here.

mod reported_runs;

use std::process::Command;

use reported_runs::{Folder, HOSTILE};
use serde_json::{Value, json};

/// What the hostile caption must look like.
const ESCAPED: &str = "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;quotes&quot; &lt;b&gt;";

#[track_caller]
fn has(page: &str, part: &str) {
    assert!(page.contains(part), "no `{part}` in\n{page}");
}

#[test]
fn a_report_shows_what_the_run_folder_holds() {
    let folder = Folder::new();
    let run = folder.run_of("second");
    assert_eq!(folder.stdout(&["report", "second"]), format!("{run}/report.html\n"));
    let page = folder.read(&format!("{run}/report.html"));
    has(&page, "<title>second</title>");
    has(&page, "<dt>Epoch</dt><dd>2 / 2</dd>");
    has(&page, "<dt>Best val/cider</dt><dd>75.0 (epoch 2)</dd>");
    has(&page, "<dt>Loss</dt><dd>0.020</dd>");
    // The mean of 1.5, 2, 3 and 1.25 is 1.9375; the paper has 100.
    has(&page, "<th scope=\"row\">Row &lt;second&gt;</th>");
    has(
        &page,
        "<td class=\"n\" data-label=\"Measured\">193.8</td><td class=\"n\" data-label=\"Difference\">+93.8</td>",
    );
    has(&page, "<span class=\"pill bad\">outside tolerance</span>");
    has(&page, "aria-label=\"CIDEr on val: second from 50 at epoch 1 to 75 at epoch 2, best 75 at epoch 2\"");
    has(&page, "aria-label=\"Training loss: second from 4 at step 1 to 0.02 at step 200\"");
    has(&page, "<div class=\"id\">image 11</div>");
    has(&page, "<small>CIDEr 150.0 · <span class=\"pill good\">word for word a reference</span></small>");
    has(&page, "<li><bdi>A plain caption.</bdi></li>");
    has(&page, "1 warning in the journal of second");
    has(&page, "a warning with &lt;i&gt;markup&lt;/i&gt;");
    let first = folder.run_of("first");
    has(&page, "<strong>random weights</strong>");
    has(&page, &format!("<strong>{}</strong>", first.strip_prefix("runs/").unwrap()));
    has(&page, "<div class=\"soft\">sha256 0123456789ab</div>");
    has(&page, "data-of-the-test");
    has(&page, "learning_rate = 0.002");
}

#[test]
fn captions_never_become_markup_and_nothing_is_fetched() {
    let folder = Folder::new();
    folder.stdout(&["report", "first", "second", "--out", "both.html"]);
    let page = folder.read("both.html");
    assert!(!page.contains(HOSTILE));
    has(&page, ESCAPED);
    assert_eq!(page.matches("<script>").count(), 1, "only the page's own script");
    for part in ["http://", "https://", "//cdn", "@import", "url(", " src=", "<link rel=\"stylesheet\""] {
        assert!(!page.contains(part), "the page has `{part}`");
    }
    // All that is opened is closed.
    for name in ["section", "article", "figure", "table", "details", "div", "ul", "ol", "span", "p", "script"] {
        let opened = page.matches(&format!("<{name}>")).count() + page.matches(&format!("<{name} ")).count();
        assert_eq!(opened, page.matches(&format!("</{name}>")).count(), "{name}");
    }
}

#[test]
fn several_runs_need_a_file_and_lie_over_each_other() {
    let folder = Folder::new();
    let output = folder.vlp(&["report", "first", "second"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "error: a report on 2 runs belongs to none of their folders\n  help: add `--out FILE`, e.g. `--out report.html`\n"
    );
    assert_eq!(folder.stdout(&["report", "first", "second", "--out", "both.html"]), "both.html\n");
    let page = folder.read("both.html");
    has(&page, "<h2 id=\"settings-title\">Settings that differ</h2>");
    has(
        &page,
        "<code>train.learning_rate</code></th><td class=\"value\"><code>0.001</code></td><td class=\"value\"><code>0.002</code></td>",
    );
    has(
        &page,
        "Training loss: first from 4 at step 1 to 0.02 at step 200; second from 4 at step 1 to 0.02 at step 200",
    );
    // The same folders give the same bytes.
    folder.stdout(&["report", "first", "second", "--out", "again.html"]);
    assert_eq!(page, folder.read("again.html"));
}

#[test]
fn without_annotations_the_report_is_there_and_says_so() {
    let folder = Folder::new();
    std::fs::remove_file(folder.path("data/annotations.json")).unwrap();
    folder.stdout(&["report", "second"]);
    let page = folder.read(&format!("{}/report.html", folder.run_of("second")));
    has(&page, "<p class=\"soft\">Without what people said: ");
    has(&page, ESCAPED);
    assert!(!page.contains("word for word"));
}

#[test]
fn a_comparison_by_hand() {
    let folder = Folder::new();
    let text = folder.stdout(&["compare", "first", "second", "--format", "json"]);
    let found: Value = serde_json::from_str(&text).unwrap();
    let (first, second) = (folder.run_of("first"), folder.run_of("second"));
    let (first, second) = (first.strip_prefix("runs/").unwrap(), second.strip_prefix("runs/").unwrap());
    assert_eq!(found["runs"], json!([first, second]));
    let keys: Vec<&str> = found["settings"].as_array().unwrap().iter().map(|s| s["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["train.learning_rate", "initial weights"]);
    assert_eq!(found["settings"][0]["values"], json!({ first: "0.001", second: "0.002" }));
    assert_eq!(
        found["scores"][2],
        json!({ "evaluation": "best/test", "metric": "cider", "values": { first: 0.9375, second: 1.9375 } })
    );
    // Better by one on each of four images: every draw has the mean one.
    assert_eq!(
        found["tests"],
        json!([{
            "run": second, "against": first, "evaluation": "best/test", "metric": "cider", "images": 4,
            "mean_against": 0.9375, "mean": 1.9375, "difference": 1.0, "low": 1.0, "high": 1.0, "p": 2.0 / 10_001.0,
        }])
    );
    assert_eq!(found["notes"], json!([]));

    let text = folder.stdout(&["compare", "first", "second"]);
    has(
        &text,
        &format!("| {second} | best/test | CIDEr | 4 | 93.8 | 193.8 | +100.0 | +100.0 … +100.0 | < 0.001 |\n")
            .replace("< 0", "\\< 0"),
    );
    has(&text, "| best/test | CIDEr | 93.8 | 193.8 | +100.0 |\n");
    has(
        &text,
        "Paired bootstrap over 4 images, 10,000 draws, seed 0. Tested are the means of the scores of each image.",
    );
    // The other way round the sign changes and nothing else.
    let text = folder.stdout(&["compare", "second", "first"]);
    has(&text, "| 4 | 193.8 | 93.8 | -100.0 | -100.0 … -100.0 | \\< 0.001 |\n");
}

#[test]
fn a_run_without_scores_of_each_image_is_named() {
    let folder = Folder::new();
    let second = folder.run_of("second");
    std::fs::remove_file(folder.path(&format!("{second}/predictions/epoch-0002.test.beam-5.scores.json"))).unwrap();
    let text = folder.stdout(&["compare", "first", "second"]);
    let name = second.strip_prefix("runs/").unwrap();
    has(&text, &format!("no scores of each image to compare\n\n- best/test: {name} has no scores of each image\n"));
}

#[test]
fn a_dashboard_that_cannot_start_says_why() {
    let folder = Folder::new();
    let failure = |code: i32, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vlp"));
        let command = command.current_dir(folder.path("")).env("PATH", "/nowhere").env_remove("VLP_MLFLOW");
        let output = command.arg("dashboard").args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        assert_eq!(output.stdout, b"");
        String::from_utf8(output.stderr).unwrap()
    };
    let help = "  help: `python3 -m venv ~/mlflow && ~/mlflow/bin/pip install mlflow==3.17.2` installs MLflow; then `vlp dashboard --mlflow ~/mlflow/bin/mlflow`. `vlp dashboard --static` needs nothing, and writes all runs as one page\n";
    assert_eq!(
        failure(2, &[]),
        format!("error: the user interface of MLflow needs a program `mlflow` in PATH; there is none\n{help}")
    );
    assert_eq!(
        failure(2, &["--mlflow", "no/mlflow"]),
        format!("error: the user interface of MLflow needs `no/mlflow`, named by --mlflow; there is none\n{help}")
    );
    assert_eq!(
        failure(2, &["none", "--mlflow", "/bin/true"]),
        "error: there is no folder of runs `none`\n  help: give the folder that `output.runs` names, or run an experiment first\n"
    );
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = other.local_addr().unwrap().port();
    assert_eq!(
        failure(2, &["--mlflow", "/bin/true", "--port", &port.to_string()]),
        format!(
            "error: port {port} of 127.0.0.1 is taken by another program\n  help: name another with `--port N`; `--port 0` finds a free one\n"
        )
    );
    // A program that ends at once is no server.
    std::fs::write(folder.path("mlflow"), "#!/bin/sh\necho no such table >&2\nexit 3\n").unwrap();
    std::fs::set_permissions(folder.path("mlflow"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_vlp"));
    let command = command.current_dir(folder.path("")).args(["dashboard", "--mlflow", "./mlflow", "--port", "0"]);
    let output = command.output().unwrap();
    assert_eq!((output.status.code(), output.stdout), (Some(4), Vec::new()));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "start ./mlflow over results/mlflow\nerror: the MLflow server ended: exit status: 3\n  | no such table\n  help: `results/mlflow/server.log` has all it said; a store of another version of MLflow can be removed: it is filled again from the journals\n"
    );
}

#[test]
fn the_index_lists_all_runs_and_links_their_reports() {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.path("runs/broken/20260101-000000")).unwrap();
    std::fs::write(folder.path("runs/broken/20260101-000000/run.lock.toml"), "no = 1").unwrap();
    assert_eq!(folder.stdout(&["dashboard", "--static"]), "runs/index.html\n");
    let page = folder.read("runs/index.html");
    has(&page, "3 runs in runs, the newest first");
    for experiment in ["first", "second"] {
        let run = folder.run_of(experiment);
        let name = run.strip_prefix("runs/").unwrap();
        has(&page, &format!("<a href=\"{name}/report.html\">{name}</a>"));
        assert!(folder.path(&format!("{run}/report.html")).is_file());
    }
    has(&page, "<td data-label=\"Best\">val/cider 75.0 (epoch 2)</td>");
    has(&page, "aria-label=\"val/cider from 50.0 to 75.0\"");
    has(&page, "broken/20260101-000000</th><td data-label=\"State\"><span class=\"pill bad\">unreadable</span>");
}
