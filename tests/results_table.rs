//! Tables of published and measured scores: verdicts, and the text of every format.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use vlp::config::{CheckpointChoice, PaperRow, Settings, VqaEvaluator};
use vlp::results::render::{self, Format};
use vlp::results::table::{Table, Target, Verdict, tables, verdict};
use vlp::track::{Entry, Journal, Lock, RunDir, RunRecord, Scores, State};

fn numbers(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
    pairs.iter().map(|(name, value)| (name.to_string(), *value)).collect()
}

fn coco() -> Settings {
    let mut settings = Settings::default();
    settings.experiment.name = "coco_ce".into();
    settings.paper.push(PaperRow {
        table: "captioning".into(),
        row: "COCO | 50 % of \"Unified_VLP\", α".into(),
        expect: numbers(&[("cider", 116.9), ("bleu_4", 36.5), ("meteor", 28.4)]),
        tolerance: numbers(&[("cider", 1.5), ("bleu_4", 0.25), ("meteor", 0.3)]),
        at_least: numbers(&[("cider_over_first", 5.0)]),
        source: "authors' page <captioning>".into(),
        ..Default::default()
    });
    settings
}

fn flickr() -> Settings {
    let mut settings = Settings::default();
    settings.experiment.name = "flickr30k_ce".into();
    settings.paper.push(PaperRow {
        table: "captioning".into(),
        row: "Flickr30k / Unified VLP".into(),
        expect: numbers(&[("bleu_4", 30.1)]),
        tolerance: numbers(&[("bleu_4", 0.5)]),
        ..Default::default()
    });
    settings
}

/// A run of `settings` in the given state, with scores of the best and the first checkpoint on `test`.
fn run(runs: &Path, settings: &Settings, state: State, best: &[(&str, f64)], first: &[(&str, f64)]) -> RunRecord {
    let run = RunDir::create(runs, &Lock::new(Path::new("x.toml"), settings, "data", None)).unwrap();
    Journal::open(&run.journal_file()).unwrap().append(&Entry::state(state, "")).unwrap();
    let mut scores = Scores::default();
    scores.insert(CheckpointChoice::Best, "test", numbers(best));
    scores.insert(CheckpointChoice::First, "test", numbers(first));
    scores.save(&run.scores_file()).unwrap();
    RunRecord::read(&run).unwrap()
}

/// The table of the golden texts, and the id of the measured run.
fn golden(runs: &Path) -> (Vec<Table>, String) {
    let best = [("cider", 1.1532), ("bleu_4", 0.3676)];
    let record = run(runs, &coco(), State::Finished, &best, &[("cider", 0.2)]);
    let id = record.run.id();
    (tables(&[coco(), flickr()], &[record]), id)
}

#[test]
fn verdicts_at_the_edges() {
    let expect = Target::Expect { value: 36.5, tolerance: 0.5 };
    let cases = [
        (expect, 36.0, Verdict::Reproduced),
        (expect, 37.0, Verdict::Reproduced),
        (expect, 0.36 * 100.0, Verdict::Reproduced),
        (expect, 35.999, Verdict::OutsideTolerance),
        (expect, 37.001, Verdict::OutsideTolerance),
        (expect, f64::NAN, Verdict::OutsideTolerance),
        (Target::Expect { value: 0.3, tolerance: 0.0 }, 0.1 + 0.2, Verdict::Reproduced),
        (Target::Expect { value: 36.7, tolerance: 0.5 }, 36.2, Verdict::Reproduced),
        (Target::AtLeast(5.0), 5.0, Verdict::Reproduced),
        (Target::AtLeast(5.0), 500.0, Verdict::Reproduced),
        (Target::AtLeast(5.0), f64::INFINITY, Verdict::Reproduced),
        (Target::AtLeast(5.0), 4.999, Verdict::OutsideTolerance),
        (Target::AtLeast(5.0), f64::NAN, Verdict::OutsideTolerance),
    ];
    for (target, measured, expected) in cases {
        assert_eq!(verdict(target, measured), expected, "{target:?} {measured}");
    }
}

#[test]
fn markdown() {
    let folder = tempfile::tempdir().unwrap();
    let (tables, id) = golden(folder.path());
    insta::assert_snapshot!(render::render(&tables, Format::Markdown).replace(&id, "[run]"), @r##"
    # captioning

    | Row | Split | Metric | Paper | Measured | Difference | Tolerance | Verdict |
    |---|---|---|--:|--:|--:|--:|---|
    | COCO \| 50 % of "Unified\_VLP", α | test | BLEU-4 | 36.5 | 36.8 | +0.3 | ± 0.25 | outside tolerance |
    | COCO \| 50 % of "Unified\_VLP", α | test | METEOR | 28.4 |  |  | ± 0.3 | not available |
    | COCO \| 50 % of "Unified\_VLP", α | test | CIDEr | 116.9 | 115.3 | -1.6 | ± 1.5 | outside tolerance |
    | COCO \| 50 % of "Unified\_VLP", α | test | CIDEr / first epoch | ≥ 5.00 | 5.77 | +0.77 |  | reproduced |
    | Flickr30k / Unified VLP | test | BLEU-4 | 30.1 |  |  | ± 0.5 | not run |

    - COCO \| 50 % of "Unified\_VLP", α: measured in coco\_ce/[run]; reported in: authors' page \<captioning\>
    "##);
}

#[test]
fn csv() {
    let folder = tempfile::tempdir().unwrap();
    let (tables, _) = golden(folder.path());
    insta::assert_snapshot!(render::render(&tables, Format::Csv), @r##"
    table,row,split,metric,paper,measured,difference,tolerance,verdict
    captioning,"COCO | 50 % of ""Unified_VLP"", α",test,BLEU-4,36.5,36.8,+0.3,± 0.25,outside tolerance
    captioning,"COCO | 50 % of ""Unified_VLP"", α",test,METEOR,28.4,,,± 0.3,not available
    captioning,"COCO | 50 % of ""Unified_VLP"", α",test,CIDEr,116.9,115.3,-1.6,± 1.5,outside tolerance
    captioning,"COCO | 50 % of ""Unified_VLP"", α",test,CIDEr / first epoch,≥ 5.00,5.77,+0.77,,reproduced
    captioning,Flickr30k / Unified VLP,test,BLEU-4,30.1,,,± 0.5,not run
    "##);
}

#[test]
fn latex() {
    let folder = tempfile::tempdir().unwrap();
    let (mut tables, _) = golden(folder.path());
    tables[0].cells[0].row = r"\alpha {x} $1 & #2 ~ ^ < >".into();
    insta::assert_snapshot!(render::render(&tables, Format::Latex), @r##"
    \begin{tabular}{lllrrrrl}
    \toprule
    Row & Split & Metric & Paper & Measured & Difference & Tolerance & Verdict \\
    \midrule
    \textbackslash{}alpha \{x\} \$1 \& \#2 \textasciitilde{} \textasciicircum{} \textless{} \textgreater{} & test & BLEU-4 & 36.5 & 36.8 & +0.3 & $\pm$ 0.25 & outside tolerance \\
    COCO | 50 \% of "Unified\_VLP", α & test & METEOR & 28.4 &  &  & $\pm$ 0.3 & not available \\
    COCO | 50 \% of "Unified\_VLP", α & test & CIDEr & 116.9 & 115.3 & $-$1.6 & $\pm$ 1.5 & outside tolerance \\
    COCO | 50 \% of "Unified\_VLP", α & test & CIDEr / first epoch & $\geq$ 5.00 & 5.77 & +0.77 &  & reproduced \\
    Flickr30k / Unified VLP & test & BLEU-4 & 30.1 &  &  & $\pm$ 0.5 & not run \\
    \bottomrule
    \end{tabular}
    "##);
}

#[test]
fn json_has_full_precision() {
    let folder = tempfile::tempdir().unwrap();
    let (tables, id) = golden(folder.path());
    let text = render::render(&tables, Format::Json).replace(&id, "[run]");
    let parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
    let cells = parsed[0]["cells"].as_array().unwrap();
    let metrics: Vec<&str> = cells.iter().map(|c| c["metric"].as_str().unwrap()).collect();
    assert_eq!(metrics, ["bleu_4", "meteor", "cider", "cider_over_first", "bleu_4"]);
    assert_eq!(cells[2]["measured"].as_f64().unwrap().to_bits(), (1.1532f64 * 100.0).to_bits());
    assert_eq!(cells[2]["difference"].as_f64().unwrap().to_bits(), (1.1532f64 * 100.0 - 116.9).to_bits());
    assert_eq!(cells[3]["measured"].as_f64().unwrap().to_bits(), (1.1532f64 / 0.2).to_bits());
    insta::assert_snapshot!(format!("{:#}", cells[1]), @r##"
    {
      "experiment": "coco_ce",
      "run": "[run]",
      "row": "COCO | 50 % of \"Unified_VLP\", α",
      "split": "test",
      "checkpoint": "best",
      "metric": "meteor",
      "unit": "points",
      "target": "expect",
      "paper": 28.4,
      "tolerance": 0.3,
      "measured": null,
      "difference": null,
      "verdict": "not available",
      "source": "authors' page <captioning>"
    }
    "##);
}

#[test]
fn a_terminal_table_without_colour_has_no_escapes() {
    let folder = tempfile::tempdir().unwrap();
    let (tables, _) = golden(folder.path());
    let text = render::terminal(&tables, false);
    assert!(text.starts_with("captioning\n"), "{text}");
    assert!(text.contains("not available") && text.contains("≥ 5.00"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
    assert!(render::terminal(&tables, true).contains('\u{1b}'));
}

#[test]
fn the_newest_finished_run_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let finish = |state, cider| run(folder.path(), &coco(), state, &[("cider", cider)], &[]);
    let old = finish(State::Finished, 1.0);
    let new = finish(State::Finished, 1.17);
    let unfinished = finish(State::Interrupted, 9.0);
    let found = tables(&[coco()], &[old.clone(), new.clone(), unfinished.clone()]);
    let cider = found[0].cells.iter().find(|c| c.metric == "cider").unwrap();
    assert_eq!((cider.run.as_deref(), cider.verdict), (Some(new.run.id().as_str()), Verdict::Reproduced));
    assert_eq!(cider.measured, Some(1.17 * 100.0));
    let ratio = found[0].cells.iter().find(|c| c.metric == "cider_over_first").unwrap();
    assert_eq!((ratio.measured, ratio.verdict), (None, Verdict::NotAvailable));
    let found = tables(&[coco()], &[unfinished]);
    assert!(found[0].cells.iter().all(|c| c.verdict == Verdict::NotRun && c.measured.is_none() && c.run.is_none()));
}

#[test]
fn rows_come_from_runs_too_and_a_loaded_file_has_the_last_word() {
    let folder = tempfile::tempdir().unwrap();
    let record = run(folder.path(), &coco(), State::Finished, &[("cider", 1.1532)], &[]);
    let from_run = tables(&[], std::slice::from_ref(&record));
    assert_eq!((from_run.len(), from_run[0].cells.len()), (1, 4));
    let mut tighter = coco();
    tighter.paper[0].tolerance.insert("cider".into(), 2.0);
    let found = tables(&[tighter], std::slice::from_ref(&record));
    let verdicts: Vec<(&str, Verdict)> = found[0].cells.iter().map(|c| (c.metric.as_str(), c.verdict)).collect();
    assert_eq!(verdicts[2], ("cider", Verdict::Reproduced));
    let mut renamed = coco();
    renamed.paper[0].row = "another name".into();
    let found = tables(&[renamed], &[record]);
    assert_eq!(found[0].cells.len(), 4, "the old name is gone");
    assert!(found[0].cells.iter().all(|c| c.row == "another name" && c.verdict == Verdict::NotRun));
}

#[test]
fn files_are_written_once_and_only_when_they_change() {
    let folder = tempfile::tempdir().unwrap();
    let (tables, _) = golden(folder.path());
    let results = folder.path().join("results");
    let paths = render::write(&tables[0], &results).unwrap();
    let names: Vec<_> = paths.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["captioning.md", "captioning.csv", "captioning.tex", "captioning.json"]);
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    let before: Vec<u64> = paths.iter().map(|p| inode(p)).collect();
    render::write(&tables[0], &results).unwrap();
    assert_eq!(paths.iter().map(|p| inode(p)).collect::<Vec<u64>>(), before);
    let markdown = fs::read_to_string(&paths[0]).unwrap();
    assert!(markdown.starts_with("<!-- Generated by `vlp table`; do not edit. -->\n\n# captioning\n"), "{markdown}");
    assert_eq!(fs::read_dir(&results).unwrap().count(), 4);
}

/// An experiment on answers: measured, with scores beside those reported, and against the majority answer.
fn vqa() -> Settings {
    let mut settings = Settings::default();
    settings.experiment.name = "vqa2_train".into();
    settings.metrics.vqa = VqaEvaluator::Legacy;
    settings.paper.push(PaperRow {
        table: "vqa".into(),
        row: "train only".into(),
        split: "test".into(),
        expect: numbers(&[("overall", 67.4)]),
        tolerance: numbers(&[("overall", 0.4)]),
        at_least: numbers(&[("yes_no_minus_majority", 10.0)]),
        also: vec!["overall_official".into(), "other".into()],
        ..Default::default()
    });
    settings.paper.push(PaperRow {
        table: "vqa".into(),
        row: "train+val, Test-Dev".into(),
        split: "test2015".into(),
        expect: numbers(&[("overall", 70.5)]),
        server: true,
        ..Default::default()
    });
    settings
}

#[test]
fn accuracies_say_whose_they_are_and_the_server_has_the_last_word() {
    let folder = tempfile::tempdir().unwrap();
    let scores = [("overall", 0.671), ("overall_official", 0.675), ("yes_no", 0.85), ("majority_yes_no", 0.6)];
    let record = run(folder.path(), &vqa(), State::Finished, &scores, &[]);
    let shown = || render::render(&tables(&[vqa()], std::slice::from_ref(&record)), Format::Csv);
    let before = shown();
    insta::assert_snapshot!(before, @r##"
    table,row,split,metric,paper,measured,difference,tolerance,verdict
    vqa,train only,test,Overall (legacy),67.4,67.1,-0.3,± 0.4,reproduced
    vqa,train only,test,Other (legacy),,,,,not available
    vqa,train only,test,Overall (official),,67.5,,,measured
    vqa,train only,test,Yes/No (legacy) − majority answer,≥ 10.0,25.0,+15.0,,reproduced
    vqa,"train+val, Test-Dev",test2015,Overall (server),70.5,,,,not available
    "##);
    fs::create_dir_all(record.run.submissions()).unwrap();
    fs::write(record.run.submissions().join("x.json"), "[]").unwrap();
    assert_eq!(shown(), before.replace("70.5,,,,not available", "70.5,,,,submission ready"));
    let nothing = tables(&[vqa()], &[]);
    assert!(nothing[0].cells.iter().all(|cell| cell.verdict == Verdict::NotRun));
}

#[test]
fn a_run_is_held_against_that_of_another_experiment() {
    let folder = tempfile::tempdir().unwrap();
    let mut scst = Settings::default();
    scst.experiment.name = "coco_scst".into();
    scst.paper.push(PaperRow {
        table: "captioning".into(),
        row: "SCST".into(),
        at_least: numbers(&[("cider_minus_coco_ce", 1.0)]),
        ..Default::default()
    });
    let below = run(folder.path(), &coco(), State::Finished, &[("cider", 1.10)], &[]);
    let above = run(folder.path(), &scst, State::Finished, &[("cider", 1.20)], &[]);
    let cell = |records: &[RunRecord]| tables(std::slice::from_ref(&scst), records)[0].cells[0].clone();
    assert_eq!(
        (cell(std::slice::from_ref(&above)).verdict, cell(&[]).verdict),
        (Verdict::NotAvailable, Verdict::NotRun)
    );
    let found = cell(&[below, above]);
    assert_eq!(found.title, "CIDEr − coco_ce");
    assert_eq!((found.measured, found.verdict), (Some((1.20 - 1.10) * 100.0), Verdict::Reproduced));
}

#[test]
fn the_overview_shows_settings_as_they_are_and_decides_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.experiment.name = "cc_pretrain".into();
    settings.train.learning_rate = 1e-4;
    let names = ["batch_size", "world_size", "learning_rate", "epochs", "minutes_per_epoch"];
    settings.paper.push(PaperRow {
        table: "overview".into(),
        row: "CC".into(),
        expect: names.iter().zip([64.0, 8.0, 1e-4, 30.0, 300.0]).map(|(name, x)| (name.to_string(), x)).collect(),
        ..Default::default()
    });
    let record = run(folder.path(), &settings, State::Finished, &[], &[]);
    insta::assert_snapshot!(render::render(&tables(&[settings], &[record]), Format::Csv), @r##"
    table,row,split,metric,paper,measured,difference,tolerance,verdict
    overview,CC,,Batch per process,64,64,+0,,as reported
    overview,CC,,GPUs,8,1,-7,,differs
    overview,CC,,Learning rate,1e-4,1e-4,+0,,as reported
    overview,CC,,Epochs,30,30,+0,,as reported
    overview,CC,,Minutes per epoch,300.0,,,,not available
    "##);
}
