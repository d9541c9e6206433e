//! The report and the index in a real browser: what a person sees, at desktop and phone width, light and dark, and that the
//! console stays empty. Chromium is named by `VLP_CHROMIUM`, or is /usr/bin/chromium; without it the tests say that they skip.

mod reported_runs;

use std::path::{Path, PathBuf};
use std::process::Command;

use reported_runs::{Folder, HOSTILE};

fn chromium() -> Option<PathBuf> {
    let named = std::env::var_os("VLP_CHROMIUM").map(PathBuf::from);
    let found = named.unwrap_or_else(|| "/usr/bin/chromium".into());
    if !found.is_file() {
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
