//! The reports on runs and on a sweep, and the index, in a real browser: what a person sees, at desktop and phone width, light
//! and dark, and that the console stays empty. Chromium is named by `VLP_CHROMIUM`, or is /usr/bin/chromium; without it the
//! tests say that they skip, but when it was named, they fail.

mod demo_runs;
mod reported_runs;

use std::path::{Path, PathBuf};
use std::process::Command;

use reported_runs::{Folder, HOSTILE};
use serde_json::json;
use vlp::config::{Overrides, load_sweep};
use vlp::sweep::{Outcome, Study};

fn chromium() -> Option<PathBuf> {
    let named = std::env::var_os("VLP_CHROMIUM").map(PathBuf::from);
    let must = named.is_some();
    let found = named.unwrap_or_else(|| "/usr/bin/chromium".into());
    if !found.is_file() {
        assert!(!must, "VLP_CHROMIUM names {}, and there is no such file", found.display());
        eprintln!("SKIPPED: no Chromium at {} (apt-get install chromium, or set VLP_CHROMIUM)", found.display());
        return None;
    }
    Some(found)
}

/// The document after its scripts ran, and what was written to the console.
fn load(chromium: &Path, page: &Path, scheme: Scheme, more: &[&str]) -> (String, Vec<String>) {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"])
        .args(["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"])
        .args(["--window-size=1280,1000", "--virtual-time-budget=4000"])
        .arg(format!("--blink-settings=preferredColorScheme={}", scheme as u8))
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(more)
        .arg("--dump-dom")
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let console = errors.lines().filter(|line| line.contains("CONSOLE")).map(str::to_owned).collect();
    (String::from_utf8(output.stdout).unwrap(), console)
}

/// Chromium's numbers for what the user prefers.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scheme {
    Dark = 0,
    Light = 1,
}

/// Runs in the page after its own script: moves the pointer over the first chart, then measures.
const PROBE: &str = r#"<script>
addEventListener("load", () => {
  const plot = document.querySelector(".plot");
  if (plot) {
    const box = plot.getBoundingClientRect();
    plot.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + box.width, clientY: box.top + 5 }));
  }
  const shown = (selector) => [...document.querySelectorAll(selector)].filter((e) => e.checkVisibility()).map((e) => e.innerText.replace(/\s+/g, " ").trim());
  const over = (a, b) => { const [p, q] = [a.getBoundingClientRect(), b.getBoundingClientRect()]; return p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 1 && q.top < p.bottom - 1; };
  const labels = [...document.querySelectorAll(".plot")].map((plot) => [...plot.querySelectorAll(".tick")].filter((e) => e.checkVisibility()));
  const clashes = labels.flatMap((all) => all.flatMap((a, i) => all.slice(i + 1).filter((b) => over(a, b)).map((b) => a.innerText + " | " + b.innerText)));
  const cut = labels.flat().filter((e) => { const box = e.getBoundingClientRect(); return box.left < 0 || box.right > innerWidth; }).map((e) => e.innerText);
  const small = [...document.querySelectorAll("main a, main td, main small, main .tick, main p")].filter((e) => parseFloat(getComputedStyle(e).fontSize) < 12).length;
  const rgb = (text) => text.match(/[\d.]+/g).slice(0, 3).map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  const light = (c) => { const [r, g, b] = rgb(c); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor; if (!/, 0\)$|transparent/.test(c)) return c; } return "rgb(255,255,255)"; };
  const contrast = (e) => { const [a, b] = [light(getComputedStyle(e).color), light(behind(e))]; return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); };
  const words = [...document.querySelectorAll("h1, h2, p, a, td, th, dt, dd, small, .pill, .tick, summary, li, bdi")].filter((e) => e.checkVisibility() && e.innerText.trim());
  const result = {
    width: innerWidth, overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    page: getComputedStyle(document.body).backgroundColor,
    headings: shown("h2"), tip: shown(".tip"), pills: shown(".pill"), captions: shown("figcaption"),
    said: shown(".said bdi"), runs: shown(".run h3"), links: shown("main a"), alerts: document.querySelectorAll(".said script").length,
    terms: shown("dl div"), marks: document.querySelectorAll(".mark").length, large: document.querySelectorAll(".mark.large").length,
    lines: document.querySelectorAll("[id=parallel] path").length, rows: shown("[id=table] tbody tr"), ticks: shown("[id=parallel] .tick"), clashes, cut,
    small, contrast: Math.floor(10 * Math.min(...words.map(contrast))) / 10,
    unnamed: [...document.querySelectorAll("svg:not([aria-hidden])")].filter((e) => !e.getAttribute("aria-label")).length,
  };
  const text = JSON.stringify(result);
  if (parent === window) { const out = document.createElement("pre"); out.id = "probe"; out.textContent = text; document.body.append(out); }
  else parent.postMessage(text, "*");
});
</script></body>"#;

/// Shows a page as wide as a phone; a window cannot be so narrow.
const PHONE: &str = r#"<!DOCTYPE html><title>phone</title><link rel="icon" href="data:,"><pre id="probe"></pre>
<script>addEventListener("message", (event) => { document.getElementById("probe").textContent = event.data; });</script>
<iframe src="probed.html" style="width: 390px; height: 844px; border: 0"></iframe>"#;

/// What the probe measured in a page.
fn probe(chromium: &Path, page: &Path, scheme: Scheme, phone: bool) -> serde_json::Value {
    let text = std::fs::read_to_string(page).unwrap();
    let folder = page.parent().unwrap();
    let (probed, frame) = (folder.join("probed.html"), folder.join("phone.html"));
    std::fs::write(&probed, text.replace("</body>", PROBE)).unwrap();
    std::fs::write(&frame, PHONE).unwrap();
    let (document, console) = load(chromium, if phone { &frame } else { &probed }, scheme, &[]);
    assert_eq!(console, Vec::<String>::new(), "the console must stay empty");
    let found = document.split("<pre id=\"probe\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    let found = found.unwrap_or_else(|| panic!("the probe did not run:\n{document}"));
    let found = found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&found).unwrap_or_else(|error| panic!("{error}: {found}"))
}

#[test]
fn a_person_sees_the_report_at_any_width_light_and_dark() {
    let Some(chromium) = chromium() else { return };
    let folder = Folder::new();
    folder.stdout(&["report", "first", "second", "--out", "both.html"]);
    let page = folder.path("both.html");
    for (scheme, phone) in [(Scheme::Light, false), (Scheme::Dark, false), (Scheme::Light, true), (Scheme::Dark, true)]
    {
        let found = probe(&chromium, &page, scheme, phone);
        let about = format!("{scheme:?}, phone: {phone}: {found:#}");
        let background = if scheme == Scheme::Dark { "rgb(17, 19, 24)" } else { "rgb(246, 247, 249)" };
        assert_eq!(found["page"], background, "{about}");
        assert_eq!(found["width"], if phone { 390 } else { 1280 }, "{about}");
        assert_eq!(found["overflow"], 0, "nothing is wider than the window: {about}");
        let headings =
            ["Runs", "Scores against the paper", "Curves", "Samples", "Lineage", "Settings that differ", "System"];
        assert_eq!(found["headings"], serde_json::json!(headings), "{about}");
        assert_eq!(found["runs"], serde_json::json!(["first", "second"]), "{about}");
        assert_eq!(found["tip"], serde_json::json!(["step 200 first: 0.02 second: 0.02"]), "{about}");
        assert_eq!(found["pills"][2], "reproduced", "{about}");
        assert_eq!(found["pills"][3], "outside tolerance", "{about}");
        assert_eq!(found["said"][0], "a plain caption .", "{about}");
        assert_eq!(found["said"][1], HOSTILE, "shown as it was written: {about}");
        assert_eq!(found["alerts"], 0, "{about}");
        assert_eq!(found["unnamed"], 0, "every drawing has a name: {about}");
        assert_eq!(found["small"], 0, "no text below 12 px: {about}");
        assert!(found["contrast"].as_f64().unwrap() >= 4.5, "contrast of WCAG AA: {about}");
    }
}

/// The file of a sweep over learning rate and batch size, with the study that is left of it: four trials ended, one was
/// stopped, one failed.
fn sweep(folder: &Folder) -> PathBuf {
    let runs = folder.path("runs").display().to_string();
    std::fs::write(folder.path("tiny.toml"), format!("{}[output]\nruns = \"{runs}\"\n", demo_runs::TINY)).unwrap();
    let text = "[sweep]\nname = \"rates\"\nbase = \"tiny.toml\"\nmetric = \"val/cider\"\ntrials = 6\n[space]\n\
        \"train.learning_rate\" = { log_uniform = [1e-5, 3e-2] }\n\"train.batch_size\" = { choice = [10, 20] }\n";
    let file = folder.path("rates.toml");
    std::fs::write(&file, text).unwrap();
    let mut study = Study::open(&load_sweep(&file, &Overrides::default()).unwrap()).unwrap();
    let trials: [(f64, u64, Outcome, &[f64]); 6] = [
        (2e-5, 10, Outcome::Complete, &[0.1, 0.2]),
        (1e-4, 20, Outcome::Complete, &[0.5, 0.9]),
        (1.5e-3, 20, Outcome::Complete, &[1.5, 3.25]),
        (2.5e-2, 10, Outcome::Pruned, &[0.0]),
        (5e-3, 20, Outcome::Complete, &[1.0, 2.0]),
        (1e-2, 10, Outcome::Failed, &[]),
    ];
    for (rate, batch, outcome, values) in trials {
        let options = [("train.learning_rate", json!(rate)), ("train.batch_size", json!(batch))];
        let number = study.asked(options.map(|(key, value)| (key.to_owned(), value)).to_vec()).unwrap();
        let values = values.iter().enumerate().map(|(i, value)| (i as u64 + 1, *value)).collect();
        let detail = if outcome == Outcome::Failed { "the loss is <b>NaN</b>" } else { "" };
        study.ended(number, outcome, PathBuf::new(), values, detail.into()).unwrap();
    }
    file
}

#[test]
fn a_person_sees_the_best_learning_rate_of_a_sweep() {
    let Some(chromium) = chromium() else { return };
    let folder = Folder::new();
    let file = sweep(&folder);
    folder.stdout(&["report", file.to_str().unwrap(), "--out", "sweep.html"]);
    let page = folder.path("sweep.html");
    for (scheme, phone) in [(Scheme::Light, false), (Scheme::Dark, false), (Scheme::Light, true), (Scheme::Dark, true)]
    {
        let found = probe(&chromium, &page, scheme, phone);
        let about = format!("{scheme:?}, phone: {phone}: {found:#}");
        assert_eq!(found["width"], if phone { 390 } else { 1280 }, "{about}");
        assert_eq!(found["overflow"], 0, "nothing is wider than the window: {about}");
        let headings = [
            "Best settings",
            "Value over each option",
            "Value over the trials",
            "Parallel coordinates",
            "Importance of the options",
            "All trials",
        ];
        assert_eq!(found["headings"], json!(headings), "{about}");
        assert_eq!(found["runs"], json!(["rates-003"]), "{about}");
        let best = ["val/cider 3.2500", "train.learning_rate 0.0015", "train.batch_size 20"];
        assert_eq!(found["terms"], json!(best), "the best learning rate at a glance: {about}");
        let captions: Vec<&str> = found["captions"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
        assert!(captions[0].starts_with("val/cider over train.learning_rate"), "{about}");
        assert!(captions[0].ends_with("best at 0.0015"), "{about}");
        // Five trials have a value: a mark each over both options and over the trials, the best one large.
        assert_eq!((&found["marks"], &found["large"]), (&json!(15), &json!(3)), "{about}");
        assert_eq!(found["lines"], 5, "a line for each in the parallel coordinates: {about}");
        for axis in ["train.learning_rate", "train.batch_size", "val/cider", "3.2500", "20"] {
            assert!(found["ticks"].as_array().unwrap().contains(&json!(axis)), "{axis}: {about}");
        }
        let rows = found["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 6, "{about}");
        assert!(rows[0].as_str().unwrap().contains("rates-003"), "the best first: {about}");
        assert!(rows.iter().any(|row| row.as_str().unwrap().contains("the loss is <b>NaN</b>")), "{about}");
        assert_eq!(found["clashes"], json!([]), "no text over another: {about}");
        assert_eq!(found["cut"], json!([]), "no text beyond the edge: {about}");
        assert_eq!(found["unnamed"], 0, "every drawing has a name: {about}");
        assert_eq!(found["small"], 0, "no text below 12 px: {about}");
        assert!(found["contrast"].as_f64().unwrap() >= 4.5, "contrast of WCAG AA: {about}");
    }
}

#[test]
fn a_person_sees_the_index() {
    let Some(chromium) = chromium() else { return };
    let folder = Folder::new();
    folder.stdout(&["dashboard", "--static"]);
    let page = folder.path("runs/index.html");
    let run = |name: &str| folder.run_of(name).strip_prefix("runs/").unwrap().to_owned();
    for phone in [false, true] {
        let found = probe(&chromium, &page, Scheme::Dark, phone);
        let mut links: Vec<&str> = found["links"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
        links.sort_unstable();
        assert_eq!(links, [run("first"), run("second")], "{found:#}");
        assert_eq!(found["overflow"], 0, "{found:#}");
        assert_eq!(found["pills"], serde_json::json!(["finished", "finished"]), "{found:#}");
        assert!(found["contrast"].as_f64().unwrap() >= 4.5, "{found:#}");
    }
}

#[test]
fn an_error_in_a_page_would_be_noticed() {
    let Some(chromium) = chromium() else { return };
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("broken.html");
    std::fs::write(&page, "<!DOCTYPE html><title>x</title><script>nothing.here();</script>").unwrap();
    let (_, console) = load(&chromium, &page, Scheme::Light, &[]);
    assert_eq!(console.len(), 1, "{console:?}");
    assert!(console[0].contains("nothing is not defined"), "{console:?}");
}
