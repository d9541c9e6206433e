//! The binary over the small demo world: questions from training to the submission, self-critical training, and the commands
//! that use a model: `eval`, `caption`, `answer`.

mod demo_runs;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use demo_runs::{Folder, TINY, files, folders};
use serde_json::{Value, json};
use vlp::track::What;

const IMAGE: &str = "COCO_val2014_000000100338";
const REGIONS: &str =
    "demo/COCO/region_feat_gvd_wo_bgd/feat_cls_1000_float16/coco_detection_vg_100dets_gvd_checkpoint_trainval";

/// The tiny experiment with questions: ten images of each split, twelve questions about each.
fn questions(folder: &Folder) {
    let data = r#"answers = "demo/VQA/answers_vqa.txt"
dataset = "vqa2"
train_splits = ["train2014"]
max_images = 10
[data.imdb]
train2014 = "demo/VQA/imdb/imdb_train2014.npy"
val2014 = "demo/VQA/imdb/imdb_val2014.npy"
test2015 = "demo/VQA/imdb/imdb_test2015.npy"
[data.vqa_annotations]
val2014 = "demo/VQA/v2_mscoco_val2014_annotations.json"
[objective]
kind = "vqa"
s2s_prob = 0.0
bi_prob = 1.0
mask_prob = 0.0
max_pred = 0
[select]
split = "val2014"
metric = "overall"
"#;
    let text = TINY.split("[[paper]]").next().unwrap().replace("name = \"tiny\"", "name = \"vqa\"");
    let text = text
        .replace("max_images = 40\n", data)
        .replace("annotations = \"demo/COCO/annotations/dataset_coco.json\"\n", "");
    let text = text.replace("splits = [\"test\"]", "splits = [\"val2014\", \"test2015\"]");
    folder.write("vqa.toml", text.replace("checkpoints = [\"last\", \"first\"]", "checkpoints = [\"best\"]"));
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap()
}

/// Every value of every metric of a journal, by name, with its epoch.
fn metrics(run: &Path) -> BTreeMap<String, Vec<(u64, f64)>> {
    let mut found: BTreeMap<String, Vec<(u64, f64)>> = BTreeMap::new();
    for entry in vlp::track::read(&run.join("journal.jsonl")).unwrap() {
        if let What::Metric { name, value, epoch, .. } = entry.what {
            found.entry(name).or_default().push((epoch, value));
        }
    }
    found
}

/// Runs `vlp` with this stdin.
fn with_input(folder: &Folder, args: &[&str], input: &str) -> Output {
    let mut command = folder.command(args);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The rows of a table of `vlp eval`, cells trimmed.
fn rows(table: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    table.lines().enumerate().filter(|(index, _)| *index != 1).map(|(_, line)| cells(line)).collect()
}

#[test]
fn questions_from_training_to_the_submission_and_scores_made_later() {
    let folder = Folder::new();
    questions(&folder);
    let output = folder.vlp(&["run", "vqa.toml"]);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let run = folder.run("vqa");
    let name = run.strip_prefix(folder.path("")).unwrap().display().to_string();
    assert!(said.contains(&format!("submission ready: {name}/submissions\n")), "{said}");

    // Scores: of each epoch in the journal, of the best one in scores.json.
    let scores = json(&run.join("scores.json"));
    let kinds = ["overall", "yes_no", "number", "other"];
    let mut names: Vec<String> = kinds
        .iter()
        .flat_map(|k| [k.to_string(), format!("{k}_official"), format!("{k}_legacy"), format!("majority_{k}")])
        .collect();
    names.sort();
    let best = scores["best/val2014"].as_object().unwrap();
    assert_eq!(best.keys().collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
    assert_eq!(scores["best/test2015"], json!({}));
    let journal = metrics(&run);
    let validated = &journal["val2014/overall"];
    assert_eq!(validated.iter().map(|(epoch, _)| *epoch).collect::<Vec<_>>(), [1, 2]);
    let best_epoch = if validated[1].1 > validated[0].1 { 2 } else { 1 };
    assert_eq!(journal["val2014/best/overall"], [(best_epoch, best["overall"].as_f64().unwrap())]);
    assert_eq!(best["overall"].as_f64().unwrap(), validated[best_epoch as usize - 1].1);

    // The submission answers every question of the ten images, in order, from the vocabulary.
    let submission = json(&run.join("submissions/v2_OpenEnded_mscoco_test2015_vlp_results.json"));
    let asked = json(&folder.path("demo/VQA/v2_OpenEnded_mscoco_test2015_questions.json"));
    let ids = |list: &Value| -> Vec<u64> {
        list.as_array().unwrap().iter().map(|q| q["question_id"].as_u64().unwrap()).collect()
    };
    assert_eq!(ids(&submission), ids(&asked["questions"])[..120]);
    let vocabulary = std::fs::read_to_string(folder.path("demo/VQA/answers_vqa.txt")).unwrap();
    let classes: Vec<&str> = vocabulary.lines().skip(1).collect();
    assert!(submission.as_array().unwrap().iter().all(|a| classes.contains(&a["answer"].as_str().unwrap())));

    // `vlp eval` of the whole run computes the same, and prints it only.
    let before = files(&run);
    let all: Value = serde_json::from_str(&folder.stdout(&["eval", &name, "--format", "json"])).unwrap();
    let checkpoint = format!("epoch {best_epoch}");
    assert_eq!(
        all,
        json!([
            { "checkpoint": checkpoint, "split": "val2014", "scores": scores["best/val2014"] },
            { "checkpoint": checkpoint, "split": "test2015", "scores": {} }
        ])
    );
    let table = rows(&folder.stdout(&["eval", "vqa", "--split", "test2015", "--split", "val2014"]));
    let header =
        ["Checkpoint", "Split", "Overall (official)", "Yes/No (official)", "Number (official)", "Other (official)"];
    assert_eq!(table[0][..6], header);
    assert_eq!(table[0][6..], ["Overall, majority answer (official)", "Overall (legacy)", "Note"]);
    assert_eq!(table[1], [&checkpoint, "test2015", "-", "-", "-", "-", "-", "-", "answers are not published"]);
    let points = |name: &str| format!("{:.1}", best[name].as_f64().unwrap() * 100.0);
    assert_eq!(table[2][2..4], [points("overall"), points("yes_no")]);
    assert_eq!(table[2][6..], [points("majority_overall"), points("overall_legacy"), String::new()]);
    // A checkpoint, and a weights file elsewhere with the experiment.
    let path = format!("{name}/checkpoints/epoch-0002");
    let inside = rows(&folder.stdout(&["eval", &path, "--split", "val2014"]));
    assert_eq!(
        inside[1][..3],
        [format!("{path}/model.safetensors"), "val2014".into(), format!("{:.1}", validated[1].1 * 100.0)]
    );
    std::fs::copy(folder.path(&path).join("model.safetensors"), folder.path("mine.safetensors")).unwrap();
    let outside = rows(&folder.stdout(&["eval", "mine.safetensors", "--experiment", "vqa.toml", "--split", "val2014"]));
    assert_eq!((outside[1][0].as_str(), &outside[1][2..]), ("mine.safetensors", &inside[1][2..]));
    assert_eq!((files(&run), json(&run.join("scores.json"))), (before.clone(), scores.clone()));

    // As if the run had not been scored: `--epochs all` makes good for it, and leaves what the run had left.
    for lost in ["scores.json", "submissions", "predictions"] {
        let path = run.join(lost);
        if path.is_dir() { std::fs::remove_dir_all(path).unwrap() } else { std::fs::remove_file(path).unwrap() }
    }
    std::fs::create_dir(run.join("predictions")).unwrap();
    let lines: Vec<String> =
        std::fs::read_to_string(run.join("journal.jsonl")).unwrap().lines().map(str::to_owned).collect();
    let unscored: Vec<String> =
        lines.into_iter().filter(|line| !line.contains("\"val2014/")).map(|line| line + "\n").collect();
    std::fs::write(run.join("journal.jsonl"), unscored.concat()).unwrap();
    let table = rows(&folder.stdout(&["eval", &name, "--epochs", "all"]));
    let notes: Vec<(&str, &str, &str)> =
        table[1..].iter().map(|row| (row[0].as_str(), row[1].as_str(), row.last().unwrap().as_str())).collect();
    let note = |epoch: u64| if epoch == best_epoch { "best val2014/overall" } else { "" };
    let ready = format!("submission ready: {name}/submissions");
    assert_eq!(
        notes,
        [
            ("epoch 1", "val2014", note(1)),
            ("epoch 2", "val2014", note(2)),
            (&checkpoint, "val2014", ""),
            (&checkpoint, "test2015", &ready)
        ]
    );
    assert_eq!(files(&run), before);
    assert_eq!(json(&run.join("scores.json")), scores);
    assert_eq!(json(&run.join("submissions/v2_OpenEnded_mscoco_test2015_vlp_results.json")), submission);
    let again = metrics(&run);
    assert_eq!(
        (&again["val2014/overall"], &again["val2014/best/overall"]),
        (validated, &journal["val2014/best/overall"])
    );
    // Once more: the evaluation splits are not scored again.
    folder.stdout(&["eval", &name, "--epochs", "all"]);
    assert_eq!(metrics(&run)["val2014/best/overall"].len(), 1);

    // Answers.
    let one =
        folder.stdout(&["answer", "vqa", "--image", &format!("{IMAGE}.jpg"), "--question", "What color is the dog?"]);
    assert!(classes.contains(&one.trim_end()), "{one}");
    let ask = |image: &str, question: &str, id: u64| json!({ "image": image, "question": question, "id": id });
    let input = format!("{}\n\n{}\n", ask(IMAGE, "What color is the dog?", 7), ask(IMAGE, "Is there a cat?", 8));
    let output = with_input(&folder, &["answer", "vqa"], &input);
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    let answered: Vec<Value> = text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answered.len(), 2);
    assert_eq!((&answered[0]["answer"], &answered[0]["id"]), (&json!(one.trim_end()), &json!(7)));
    assert_eq!((&answered[1]["question"], &answered[1]["id"]), (&json!("Is there a cat?"), &json!(8)));

    // What came before a bad line is answered all the same.
    let form = format!("each line must be {}", r#"{"image": "COCO_val2014_000000000042", "question": "…"}"#);
    let first = format!("{}\n", ask(IMAGE, "Is there a cat?", 8));
    for (bad, problem) in [
        ("{\"image\": 3, \"question\": \"?\"}", "invalid type: integer `3`, expected a string at column 11"),
        ("{\"image\": \"x\"}", "missing field `question`"),
        ("{\"question\": \"?\"}", "missing field `image` at column 17"),
        ("image", "expected value at column 1"),
    ] {
        let output = with_input(&folder, &["answer", "vqa"], &format!("{first}{bad}\n{first}"));
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(text(&output.stderr), format!("error: line 2 of stdin: {problem}\n  help: {form}\n"));
        assert_eq!(text(&output.stdout).lines().count(), 1);
    }

    // What cannot be done.
    let failure = |args: &[&str]| folder.failure(2, args);
    assert_eq!(
        failure(&["caption", "vqa", "--images", IMAGE]),
        "error: the model answers questions\n  help: name a captioning model, or use `vlp answer`\n"
    );
    assert_eq!(
        failure(&["eval", "vqa", "--epochs", "1,9"]),
        format!(
            "error: run `{name}` has no checkpoint of epoch 9; it has those of epochs 1, 2\n  help: name one of these; \
             `train.keep_checkpoints` says how many a run keeps\n"
        )
    );
    assert_eq!(
        failure(&["eval", "vqa", "--epochs", "last"]),
        "error: `--epochs` is \"last\"\n  help: `--epochs all`, or numbers: `--epochs 3,7`\n"
    );
    assert_eq!(
        failure(&["eval", &path, "--epochs", "all"]),
        "error: `--epochs` needs a run\n  help: name the run folder, or leave out `--epochs`\n"
    );
    let models =
        "name a run folder or an experiment (`vlp status` lists them), a checkpoint folder of a run, or a weights file";
    assert_eq!(failure(&["eval", "nowhere"]), format!("error: no model at `nowhere`\n  help: {models}\n"));
    assert_eq!(
        failure(&["eval", &format!("{name}/checkpoints/epoch-0009")]),
        format!(
            "error: no model at `{name}/checkpoints/epoch-0009`; the run has those of epochs 1, 2\n  help: {models}\n"
        )
    );
    assert_eq!(
        failure(&["eval", "mine.safetensors"]),
        "error: `mine.safetensors` is in no run folder\n  help: add `--experiment FILE`: the experiment that the weights were \
         trained with, for data and sizes\n"
    );
    let set = failure(&["eval", "vqa", "--set", "evaluate.beam_size=1"]);
    assert!(
        set.starts_with("error: `--set` and `--profile` need an experiment file\n  help: add `--experiment "),
        "{set}"
    );
    assert!(set.ends_with("vqa.toml`, to which they apply\n"), "{set}");
    assert_eq!(
        folder.failure(3, &["eval", "vqa", "--split", "dev"]),
        "error: `data.imdb` names no question file of split `dev`; it has `test2015`, `train2014`, `val2014`\n  help: add it, e.g. \
         imdb = { dev = \"…/imdb_dev.npy\" }, or correct `data.train_splits`, `select.split` or `evaluate.splits`\n"
    );
    let image = "name an image of the data root by its file name, e.g. COCO_val2014_000000000042";
    assert_eq!(
        folder.failure(3, &["answer", "vqa", "--image", "nobody", "--question", "Who?"]),
        format!("error: no features of image `nobody`: `{REGIONS}_featody.h5`: no such file\n  help: {image}\n")
    );

    // A split without answers is nothing to select a checkpoint by.
    let output = folder.vlp(&["run", "vqa.toml", "--fresh", "--set", "select.split=\"test2015\""]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(
        said.contains(
            "the answers to the questions of split `test2015` are not published: nothing to select a checkpoint by\n"
        ),
        "{said}"
    );
    // That run has no checkpoint: the name still means the one that has.
    assert_eq!(folder.stdout(&["answer", "vqa", "--image", IMAGE, "--question", "What color is the dog?"]), one);
}

/// The accuracy of an answer by the formula of the official evaluation, over answers that are clean as they stand: of ten people
/// each is left out in turn, and three of the others who agree are enough.
fn accuracy(answer: &str, people: &[String]) -> f64 {
    let agree = people.iter().filter(|other| *other == answer).count();
    let left_out = people.iter().map(|person| ((agree - usize::from(person == answer)) as f64 / 3.0).min(1.0));
    left_out.sum::<f64>() / people.len() as f64
}

#[test]
fn runs_on_the_same_questions_are_compared_question_by_question() {
    let folder = Folder::new();
    questions(&folder);
    let file = std::fs::read_to_string(folder.path("vqa.toml")).unwrap();
    let splits = "splits = [\"val2014\", \"test2015\"]";
    let file = file.replace(splits, "splits = [\"val2014\"]");
    folder.write("vqa.toml", &file);
    folder.write("fast.toml", file.replace("name = \"vqa\"", "name = \"fast\"").replace("1e-3", "1e-2"));
    folder.stdout(&["run", "vqa.toml", "fast.toml"]);

    // Beside the predictions stands the accuracy of each, as the formula has it.
    let annotations = json(&folder.path("demo/VQA/v2_mscoco_val2014_annotations.json"));
    let annotation = |id: &Value| {
        let all = annotations["annotations"].as_array().unwrap();
        all.iter().find(|annotation| annotation["question_id"] == *id).unwrap()
    };
    let mut accuracies: Vec<BTreeMap<String, Vec<f64>>> = Vec::new();
    for name in ["vqa", "fast"] {
        let run = folder.run(name);
        let (names, scores) = (files(&run), json(&run.join("scores.json")));
        let file = names.iter().find(|name| name.ends_with(".val2014.answers.scores.json")).unwrap();
        let found = json(&run.join(file));
        let said = json(&run.join(file.replace(".scores.json", ".json")));
        assert_eq!((&found["questions"], &found["scores"]), (&json!(120), &scores["best/val2014"]));
        let mut by_type: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (question, said) in found["per_question"].as_array().unwrap().iter().zip(said.as_array().unwrap()) {
            assert_eq!(question["question_id"], said["question_id"]);
            let annotation = annotation(&question["question_id"]);
            let people = annotation["answers"].as_array().unwrap().iter();
            let people: Vec<String> = people.map(|a| a["answer"].as_str().unwrap().to_owned()).collect();
            let expected = accuracy(said["answer"].as_str().unwrap(), &people);
            let kind = annotation["answer_type"].as_str().unwrap().replace('/', "_");
            let names: Vec<&String> = question["scores"].as_object().unwrap().keys().collect();
            let mut own = ["overall", &kind].map(|k| [format!("{k}_legacy"), format!("{k}_official")]).concat();
            own.sort();
            assert_eq!(names, own.iter().collect::<Vec<_>>());
            let official = question["scores"][format!("{kind}_official")].as_f64().unwrap();
            assert!((official - expected).abs() < 1e-12, "{question}: {expected}");
            assert_eq!(question["scores"]["overall_official"], official);
            by_type.entry("overall".into()).or_default().push(official);
            by_type.entry(kind).or_default().push(official);
        }
        accuracies.push(by_type);
    }

    let found: Value = serde_json::from_str(&folder.stdout(&["compare", "vqa", "fast", "--format", "json"])).unwrap();
    let tests = found["tests"].as_array().unwrap();
    let metrics: Vec<&str> = tests.iter().map(|test| test["metric"].as_str().unwrap()).collect();
    let kinds = ["overall", "yes_no", "number", "other"];
    let both = kinds.map(|kind| [format!("{kind}_legacy"), format!("{kind}_official")]).concat();
    assert_eq!(metrics, both);
    for (test, kind) in tests.iter().filter(|test| test["metric"].as_str().unwrap().ends_with("official")).zip(kinds) {
        let of = |run: usize| &accuracies[run][kind];
        assert_eq!((&test["questions"], &test["images"]), (&json!(of(0).len()), &Value::Null));
        let mean = |values: &Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
        for (name, expected) in [("mean_against", mean(of(0))), ("mean", mean(of(1)))] {
            assert!((test[name].as_f64().unwrap() - expected).abs() < 1e-12, "{test}: {expected}");
        }
        // The mean over the questions is the score of the split.
        let name = test["run"].as_str().unwrap();
        let row = found["scores"].as_array().unwrap().iter();
        let mut row = row.filter(|row| row["metric"] == test["metric"] && row["evaluation"] == "best/val2014");
        let score = row.next().unwrap()["values"][name].as_f64().unwrap();
        assert!((score - mean(of(1))).abs() < 1e-12, "{test}: {score}");
    }
    assert_eq!(found["bootstrap"]["of"], "mean of the scores of each question");
    assert_eq!(found["notes"], json!([]));

    let shown = folder.stdout(&["compare", "vqa", "fast"]);
    let start = "Paired bootstrap over 120 questions, 10,000 draws, seed 0. Tested are the means of the accuracies of each question, ";
    assert!(shown.contains(start), "{shown}");
    assert!(shown.contains("| Run | Checkpoint / split | Score | Questions | Mean, first run | Mean |"), "{shown}");

    // Without its file a run is named, and a damaged one is an error.
    let run = folder.run("fast");
    let name = files(&run).into_iter().find(|name| name.ends_with(".answers.scores.json")).unwrap();
    std::fs::write(run.join(&name), "{\"per_image\": []}").unwrap();
    let said = folder.failure(4, &["compare", "vqa", "fast"]);
    assert!(said.contains("a file of scores by question"), "{said}");
    std::fs::remove_file(run.join(&name)).unwrap();
    let shown = folder.stdout(&["compare", "vqa", "fast"]);
    let id = run.file_name().unwrap().to_str().unwrap();
    let note = format!("best/val2014: fast/{id} has no scores of each question\n");
    assert!(shown.ends_with(&format!("no scores of each question to compare\n\n- {note}")), "{shown}");
}

#[test]
fn captions_that_only_spice_could_score_are_no_submission() {
    let folder = Folder::new();
    let text_of_file = TINY.split("[[paper]]").next().unwrap().replace("[\"last\", \"first\"]", "[\"best\"]");
    folder.write("tiny.toml", format!("{text_of_file}[metrics]\ncaptions = [\"spice\"]\n"));
    let vlp = |args: &[&str]| {
        let mut command = folder.command(args);
        command.env("HOME", "nobody").env("PATH", "nowhere").env_remove("XDG_CACHE_HOME").env_remove("JAVA_HOME");
        let output = command.output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{said}");
        (text(&output.stdout), said)
    };
    vlp(&["run", "tiny.toml"]);
    let run = folder.run("tiny");
    assert_eq!(json(&run.join("scores.json")), json!({ "best/test": {} }));
    for _ in 0..2 {
        let (table, said) = vlp(&["eval", "tiny", "--epochs", "all"]);
        let table = rows(&table);
        // The columns are the scores of the validation, which the test split has none of.
        assert_eq!(table.last().unwrap()[1..], ["test", "-", "-", "-", "-", "-", "-", "not available: SPICE"]);
        let missing = "SPICE is not available; missing:\n  file `nobody/.cache/vlp/spice/spice-1.0.jar`";
        assert!(said.contains(missing), "{said}");
        assert!(!said.contains("submission") && !run.join("submissions").exists(), "{said}");
    }
}

#[test]
fn captions_and_self_critical_training_from_them() {
    let folder = Folder::new();
    folder.stdout(&["run", "tiny.toml"]);
    let tiny = folder.run("tiny");

    // Captions: of images named, and of JSON lines.
    let named = folder.stdout(&["caption", "tiny", "--images", IMAGE, &format!("{IMAGE}.jpg")]);
    let captions: Vec<(&str, &str)> = named.lines().map(|line| line.split_once('\t').unwrap()).collect();
    assert_eq!((captions[0].0, captions[1].0), (IMAGE, format!("{IMAGE}.jpg").as_str()));
    assert_eq!(captions[0].1, captions[1].1);
    let output =
        with_input(&folder, &["caption", "tiny"], &format!("{{\"image\": \"{IMAGE}\", \"mine\": [1, null]}}\n"));
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line, json!({ "image": IMAGE, "mine": [1, null], "caption": captions[0].1 }));
    let nothing = with_input(&folder, &["caption", "tiny"], "\n");
    assert_eq!((nothing.status.code(), nothing.stdout.len()), (Some(0), 0));
    let bad = with_input(&folder, &["caption", "tiny"], "[]\n");
    assert_eq!(bad.status.code(), Some(3));
    assert!(
        text(&bad.stderr).starts_with("error: line 1 of stdin: invalid type: sequence, expected an object\n"),
        "{}",
        text(&bad.stderr)
    );
    assert!(text(&bad.stderr).ends_with("\n  help: each line must be {\"image\": \"COCO_val2014_000000000042\"}\n"));
    assert_eq!(
        folder.failure(2, &["answer", "tiny", "--image", IMAGE, "--question", "Is it?"]),
        "error: the model answers no questions\n  help: name a model trained with `objective.kind = \"vqa\"`, or use `vlp caption`\n"
    );
    assert_eq!(
        folder.failure(3, &["caption", "tiny", "--images", IMAGE, "COCO_val2014_000000999338"]),
        format!(
            "error: no features of image `COCO_val2014_000000999338`: `{REGIONS}_feat338.h5`: not in the file\n  help: name an \
             image of the data root by its file name, e.g. COCO_val2014_000000000042\n"
        )
    );

    // The table of captions: no column of questions, and the best checkpoint on the test split with its beam.
    let table = rows(&folder.stdout(&["eval", "tiny", "--epochs", "all"]));
    assert_eq!(table[0][..2], ["Checkpoint", "Split"]);
    assert!(table[0].contains(&"CIDEr".to_owned()), "{table:?}");
    assert_eq!(table[3][1..2], ["test"]);
    assert_eq!(table[3].last().unwrap(), "beam 2");
    let scores = json(&tiny.join("scores.json"));
    assert!(scores["best/test"]["cider"].is_number(), "{scores}");

    // Self-critical training starts from the run's checkpoint, journals its rewards, and goes on after a stop.
    let scst = TINY.split("[[paper]]").next().unwrap().replace("name = \"tiny\"", "name = \"scst\"");
    let scst = scst.replace("learning_rate = 1e-3", "learning_rate = 1e-5").replace("epochs = 2", "epochs = 1");
    let objective = "[init]\nfrom = \"tiny\"\ncheckpoint = \"last\"\n[objective]\nkind = \"scst\"\ns2s_prob = 1.0\nbi_prob = 0.0\nmask_prob = 0.0\nmax_pred = 0\n";
    folder.write("scst.toml", format!("{scst}{objective}"));
    folder.stdout(&["run", "scst.toml"]);
    let run = folder.run("scst");
    let lock = std::fs::read_to_string(run.join("run.lock.toml")).unwrap();
    assert!(
        lock.contains(&format!("{}/checkpoints/epoch-0002", tiny.file_name().unwrap().to_str().unwrap())),
        "{lock}"
    );
    let journal = metrics(&run);
    let reward = |name: &str| journal[name].iter().map(|(_, value)| *value).collect::<Vec<_>>();
    let [rewards, sampled, greedy] = ["train/reward", "train/sampled_cider", "train/greedy_cider"].map(reward);
    assert_eq!(rewards.len(), reward("train/loss").len());
    for ((reward, sampled), greedy) in rewards.iter().zip(&sampled).zip(&greedy) {
        assert!((reward - (sampled - greedy)).abs() < 1e-9, "{reward}: {sampled} - {greedy}");
    }
    assert_eq!(journal["val/cider"].len(), 1);
    let resumed = folder.stdout(&["verify-resume", "scst.toml"]);
    assert_eq!(resumed.lines().filter(|line| line.starts_with("same  ")).count(), 3, "{resumed}");

    // In 16 bits it is another run, with another course and the same records.
    folder.stdout(&["run", "scst.toml", "--set", "train.precision=bf16"]);
    let runs = folders(&folder.path("runs/scst"));
    assert_eq!(runs.len(), 2);
    let low = metrics(&runs[1]);
    assert!(low.keys().eq(journal.keys()));
    assert_eq!(low["train/loss"].len(), journal["train/loss"].len());
    assert_ne!(low["train/loss"], journal["train/loss"]);
    let resumed = folder.stdout(&["verify-resume", "scst.toml", "--set", "train.precision=fp16"]);
    assert_eq!(resumed.lines().filter(|line| line.starts_with("same  ")).count(), 3, "{resumed}");
}
