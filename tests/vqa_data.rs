//! Questions and answers from pythia's imdb files, the answer vocabulary and the official annotations: what is read, and what is
//! said about files that are not right.
//!
//! `VLP_GOLDEN_DIR` names other golden data; without it the copy in `tests/golden` is read.

#[path = "hostile_pickles/make.rs"]
#[allow(dead_code)] // the other test uses the rest
mod make;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use vlp::config::{DataSettings, Dataset};
use vlp::data::demo_world::{self, World, WorldOptions};
use vlp::data::karpathy::ImageId;
use vlp::data::tokenizer::Tokenizer;
use vlp::data::vqa_imdb::{VqaData, annotations, answer_vocabulary, phases, read_images};

const VOCABULARY: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nwhat\nis\nit\n?\n";
const HELP: &str = "\n  help: `data.imdb` must name question files in pythia's layout (imdb_train2014.npy): a header, then one dictionary per question";

/// A data root of questions about four images; the fourth is not on the list of valid ones.
struct Root {
    folder: tempfile::TempDir,
    settings: DataSettings,
}

impl Root {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let settings = DataSettings {
            dataset: Dataset::Vqa2,
            valid_images: at("valid.json"),
            vocabulary: at("vocab.txt"),
            answers: at("answers.txt"),
            imdb: [("val2014".to_owned(), at("imdb.npy"))].into(),
            vqa_annotations: [("val2014".to_owned(), at("annotations.json"))].into(),
            vqa_questions: [("test2015".to_owned(), at("questions.json"))].into(),
            ..DataSettings::default()
        };
        let root = Self { folder, settings };
        root.write("valid.json", json!(["COCO_9.jpg", "COCO_3.jpg", "COCO_7.jpg"]).to_string());
        root.write("vocab.txt", VOCABULARY);
        root.write("answers.txt", "<unk>\nyes\nno\n2\n");
        root
    }

    /// Questions about images 9, 4 (not valid), 3, 9, 7.
    fn sound() -> Self {
        let root = Self::new();
        root.imdb(&[
            question(1, "COCO_9", "what is it?", Some(&["yes"; 10])),
            question(2, "COCO_4", "it?", Some(&["yes"])),
            question(3, "COCO_3", "is it?", Some(&["Yes", "no,", "no", "dog", "2", "2", "2", "2", "2", "2"])),
            question(4, "COCO_9", "it is?", Some(&[])),
            question(5, "COCO_7", "zebra", None),
        ]);
        root
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    /// Writes `imdb.npy`: a header and these entries, each what it leaves on the pickle's stack.
    fn imdb(&self, entries: &[Vec<u8>]) {
        self.objects(&[&[make::dict(&[("dataset_name", make::text("vqa2"))])], entries].concat());
    }

    /// Writes `imdb.npy` of these objects alone.
    fn objects(&self, items: &[Vec<u8>]) {
        let array = make::array(&[items.len() as i64], make::dtype("O8"), list(items));
        self.write("imdb.npy", make::npy("'|O'", &make::pickle(&array)));
    }

    fn load(&self) -> Result<VqaData, String> {
        let tokenizer = Tokenizer::from_file(&self.settings.vocabulary, true).unwrap();
        let loaded = VqaData::load(&self.settings, &["val2014".to_owned()], &tokenizer);
        loaded.map_err(|error| self.tidy(error))
    }

    fn error(&self) -> String {
        self.load().unwrap_err()
    }

    /// A text with this folder's name replaced by `DATA`.
    fn tidy(&self, text: impl std::fmt::Display) -> String {
        text.to_string().replace(self.folder.path().to_str().unwrap(), "DATA")
    }
}

fn list(items: &[Vec<u8>]) -> Vec<u8> {
    [b"](", &items.concat()[..], b"e"].concat()
}

fn question(id: i64, image: &str, text: &str, answers: Option<&[&str]>) -> Vec<u8> {
    let mut entries =
        vec![("question_id", make::int(id)), ("image_name", make::text(image)), ("question_str", make::text(text))];
    entries.extend(answers.map(|all| ("answers", list(&all.iter().map(|a| make::text(a)).collect::<Vec<_>>()))));
    make::dict(&entries)
}

#[test]
fn questions_are_grouped_by_image_and_those_of_images_that_are_not_valid_are_left_out() {
    let data = Root::sound().load().unwrap();
    let images: Vec<_> = data.texts.images.iter().map(|i| (i.stem.as_str(), i.image_id.clone())).collect();
    let number = ImageId::Number;
    assert_eq!(images, [("COCO_9", number(9)), ("COCO_3", number(3)), ("COCO_7", number(7))]);
    assert_eq!(data.texts.images[0].references, ["what is it?", "it is?"]);
    assert_eq!(data.texts.images[0].file_name, "COCO_9.jpg");
    assert!(data.texts.images.iter().all(|image| image.split == "val2014"));
    let samples: Vec<_> = data.texts.samples.iter().map(|s| (s.image, s.pieces.clone())).collect();
    assert_eq!(samples, [(0, vec![5, 6, 7, 8]), (0, vec![7, 6, 8]), (1, vec![6, 7, 8]), (2, vec![1])]);
    let ids: Vec<_> = data.questions.iter().map(|q| q.id).collect();
    assert_eq!(ids, [1, 4, 3, 5]);
    let targets: Vec<_> = data.questions.iter().map(|q| q.target.clone()).collect();
    assert_eq!(targets, [vec![(1, 1.0)], vec![], vec![(1, 0.3), (2, 0.6), (3, 1.0)], vec![]]);
    assert_eq!(data.targets(&[2, 0, 3]), [0.0, 0.3, 0.6, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let entries = data.entries(&Default::default());
    assert_eq!((entries[0].question_type.as_str(), entries[0].answer_type.as_str()), ("", ""));
    assert_eq!(entries[2].answers.iter().map(|a| a.answer.as_str()).collect::<Vec<_>>(), data.questions[2].answers);
    let identities: std::collections::HashSet<_> = entries[0].answers.iter().map(|a| &a.identity).collect();
    assert_eq!(identities.len(), 10, "equal answers of several people are several answers");
}

#[test]
fn at_most_so_many_images_of_each_split() {
    let mut root = Root::sound();
    root.settings.max_images = 1;
    let data = root.load().unwrap();
    assert_eq!((data.texts.images.len(), data.questions.len()), (1, 2), "all questions about the first valid image");
    let second = root.settings.imdb["val2014"].clone();
    root.settings.imdb.insert("train2014".into(), second);
    let splits = ["train2014", "val2014"].map(str::to_owned);
    let images = read_images(&root.settings, &splits).unwrap();
    assert_eq!(
        images.iter().map(|i| i.split.as_str()).collect::<Vec<_>>(),
        splits,
        "of each split, and a file may serve twice"
    );
    root.settings.max_images = 3;
    assert_eq!(root.load().unwrap().texts.images.len(), 3);
}

#[test]
fn soft_targets_and_words_equal_the_reference() {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let golden =
        std::env::var_os("VLP_GOLDEN_DIR").filter(|dir| !dir.is_empty()).map_or_else(|| beside.into(), PathBuf::from);
    let at = |name: &str| golden.join("preprocess").join(name).to_str().unwrap().to_owned();
    let mut root = Root::new();
    root.settings.imdb = [("val2014".to_owned(), at("imdb_toy.npy"))].into();
    root.settings.answers = at("answers.txt");
    root.settings.vocabulary = golden.join("vocab.txt").to_str().unwrap().to_owned();
    let expected: Vec<Value> = serde_json::from_slice(&std::fs::read(at("answers.json")).unwrap()).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let names: Vec<String> = expected.iter().map(|e| format!("{}.jpg", text(&e["image"]))).collect();
    root.write("valid.json", json!(names).to_string());
    let data = root.load().unwrap();
    let tokenizer = Tokenizer::from_file(&root.settings.vocabulary, true).unwrap();
    assert_eq!(data.questions.len(), expected.len());
    assert!(!expected.is_empty());
    for entry in expected {
        let index = data.questions.iter().position(|q| entry["question_id"] == q.id).unwrap();
        let (question, sample) = (&data.questions[index], &data.texts.samples[index]);
        assert_eq!(data.texts.images[sample.image].stem, text(&entry["image"]));
        assert_eq!(question.text, text(&entry["question"]));
        assert_eq!(json!(question.answers), entry["answers"]);
        let pieces: Vec<&str> = sample.pieces.iter().map(|id| tokenizer.token(*id)).collect();
        assert_eq!(json!(pieces), entry["tokens"], "{}", question.text);
        let scores: serde_json::Map<String, Value> =
            question.target.iter().map(|(class, score)| (class.to_string(), f64::from(*score).into())).collect();
        assert_eq!(Value::from(scores), entry["scores"], "{}", question.text);
    }
}

#[test]
fn the_demo_worlds_questions_come_back_as_they_were_asked() {
    let folder = tempfile::tempdir().unwrap();
    let options = WorldOptions { seed: 5, full_size: false };
    demo_world::write(&folder.path().join("demo"), options).unwrap();
    let at = |name: &str| folder.path().join("demo").join(name).to_str().unwrap().to_owned();
    let imdb = ["train2014", "val2014", "test2015"].map(|s| (s.to_owned(), at(&format!("VQA/imdb/imdb_{s}.npy"))));
    let annotated = [("val2014".to_owned(), at("VQA/v2_mscoco_val2014_annotations.json"))];
    let listed = [("test2015".to_owned(), at("VQA/v2_OpenEnded_mscoco_test2015_questions.json"))];
    let settings = DataSettings {
        dataset: Dataset::Vqa2,
        valid_images: at("COCO/annotations/coco_valid_jpgs.json"),
        answers: at("VQA/answers_vqa.txt"),
        imdb: imdb.into(),
        vqa_annotations: annotated.into(),
        vqa_questions: listed.into(),
        ..DataSettings::default()
    };
    let tokenizer = Tokenizer::from_file(at("vocab.txt"), true).unwrap();
    let load = |split: &str| VqaData::load(&settings, &[split.to_owned()], &tokenizer).unwrap();

    let (world, val) = (World::plan(options), load("val2014"));
    let mut asked = val.questions.iter();
    let types = annotations(&settings, "val2014").unwrap();
    for image in &val.texts.images {
        let picture = world.coco.iter().find(|picture| picture.stem == image.stem).unwrap();
        for made in world.questions(picture) {
            let read = asked.next().unwrap();
            assert_eq!((&read.text, &read.answers), (&made.text, &made.answers));
            let annotation = &types[&read.id];
            assert_eq!(annotation.question_type, made.question_type);
            assert_eq!(annotation.answer_type, made.answer_type.name());
            assert_eq!(
                annotation.answers.iter().map(|a| &a.answer).collect::<Vec<_>>(),
                made.answers.iter().collect::<Vec<_>>()
            );
            // Six of the ten give the right answer, and three are enough for a full score.
            assert!(read.target.contains(&(val.answers.index(&made.answer), 1.0)), "{read:?}");
        }
    }
    assert_eq!(asked.next(), None);
    assert_eq!(val.questions.len(), types.len(), "every question is annotated");

    let test = load("test2015");
    assert!(test.questions.iter().all(|question| question.answers.is_empty() && question.target.is_empty()));
    let ids: Vec<u64> = test.questions.iter().map(|q| q.id).collect();
    assert_eq!(phases(&settings).unwrap(), [("test2015".to_owned(), ids)].into());
    assert!(annotations(&settings, "test2015").unwrap().is_empty(), "none are named");
}

#[test]
fn a_split_without_a_file_and_a_file_that_is_none() {
    let mut root = Root::new();
    assert_eq!(
        root.error(),
        "no question file (imdb) at `DATA/imdb.npy`\n  help: `data.imdb` names it; correct the path, or put the file there"
    );
    root.write("imdb.npy", "[]");
    assert_eq!(
        root.error(),
        "`DATA/imdb.npy` is JSON text, expected a numpy file (.npy) of Python objects\n  help: name the data itself, not the configuration beside it"
    );
    root.write("imdb.npy", make::pickle(&make::text("yes")));
    assert_eq!(
        root.error(),
        "`DATA/imdb.npy` is a pickle, expected a numpy file (.npy) of Python objects\n  help: name a file of the expected format"
    );
    root.write("imdb.npy", make::npy("'<f4'", &[0; 8]));
    assert_eq!(
        root.error(),
        "`DATA/imdb.npy` holds numbers or texts (dtype `<f4`), expected pickled Python objects (dtype `|O`)\n  help: name the file of questions, e.g. imdb_train2014.npy"
    );
    root.settings.imdb = [("train2014", "a.npy"), ("test2015", "b.npy")].map(|(s, p)| (s.into(), p.into())).into();
    assert_eq!(
        root.error(),
        "`data.imdb` names no question file of split `val2014`; it has `test2015`, `train2014`\n  help: add it, e.g. imdb = { val2014 = \"…/imdb_val2014.npy\" }, or correct `data.train_splits`, `select.split` or `evaluate.splits`"
    );
    root.settings.imdb.clear();
    assert_eq!(
        root.error(),
        "`data.imdb` names no question file of split `val2014`; it names none\n  help: add it, e.g. imdb = { val2014 = \"…/imdb_val2014.npy\" }, or correct `data.train_splits`, `select.split` or `evaluate.splits`"
    );
}

#[test]
fn files_of_something_else_than_questions() {
    let root = Root::new();
    let said = |entries: &[Vec<u8>]| {
        root.imdb(entries);
        let error = root.error();
        let first = error.strip_prefix("`DATA/imdb.npy`: ").unwrap_or_else(|| panic!("{error}"));
        first.strip_suffix(HELP).unwrap_or_else(|| panic!("{error}")).to_owned()
    };
    let sound = question(7, "COCO_9", "it?", None);
    let without = |key: &str| {
        let all =
            [("question_id", make::int(8)), ("image_name", make::text("COCO_9")), ("question_str", make::text("it?"))];
        make::dict(&all.into_iter().filter(|(name, _)| *name != key).collect::<Vec<_>>())
    };
    let with = |key: &'static str, value: Vec<u8>| {
        let mut all = vec![
            ("question_id", make::int(8)),
            ("image_name", make::text("COCO_9")),
            ("question_str", make::text("it?")),
        ];
        all.retain(|(name, _)| *name != key);
        all.push((key, value));
        make::dict(&all)
    };
    assert_eq!(said(&[]), "`[1]` is missing, expected the first question");
    assert_eq!(said(&[sound.clone(), make::int(3)]), "`[2]` is an int, expected a dictionary");
    assert_eq!(said(&[without("image_name")]), "`[1].image_name` is missing, expected a text");
    assert_eq!(said(&[without("question_id")]), "`[1].question_id` is missing, expected a whole number from 0");
    assert_eq!(said(&[sound.clone(), without("question_str")]), "`[2].question_str` is missing, expected a text");
    assert_eq!(said(&[with("image_name", make::int(9))]), "`[1].image_name` is an int, expected a text");
    assert_eq!(said(&[with("question_str", b"N".to_vec())]), "`[1].question_str` is None, expected a text");
    assert_eq!(
        said(&[with("question_id", make::text("8"))]),
        "`[1].question_id` is a str, expected a whole number from 0"
    );
    assert_eq!(said(&[with("question_id", make::int(-8))]), "`[1].question_id` is -8, expected a whole number from 0");
    assert_eq!(said(&[with("answers", make::text("yes"))]), "`[1].answers` is a str, expected a list of texts");
    assert_eq!(
        said(&[with("answers", list(&[make::text("yes"), make::int(2)]))]),
        "`[1].answers` is a list with an int, expected a list of texts"
    );
    assert_eq!(
        said(&[sound.clone(), question(1, "COCO_3", "it?", None), question(7, "COCO_3", "is it?", None)]),
        "`[3].question_id` is 7, which came before, expected each question once"
    );
    root.write("valid.json", json!(["COCO_9.jpg", "nine.jpg"]).to_string());
    assert_eq!(
        said(&[question(1, "nine", "it?", None)]),
        "`[1].image_name` is `nine`, expected a name that ends in the number of a COCO image"
    );
    root.objects(&[]);
    assert_eq!(root.error(), format!("`DATA/imdb.npy`: `[1]` is missing, expected the first question{HELP}"));
}

#[test]
fn no_valid_image() {
    let root = Root::sound();
    root.write("valid.json", json!(["COCO_1.jpg"]).to_string());
    assert_eq!(
        root.error(),
        "no image left: none of the 4 images of `val2014` in `DATA/imdb.npy` is among the 1 entries of `DATA/valid.json`\n  \
         help: the two files must speak of the same images; `COCO_7.jpg`, for one, is not in the list"
    );
}

#[test]
fn answers_that_cannot_be_used() {
    let mut root = Root::new();
    root.imdb(&[question(42, "COCO_9", "it?", Some(&["yes"; 11]))]);
    assert_eq!(
        root.error(),
        "`DATA/imdb.npy`: question 42: 11 human answers to one question, at most 10 expected\n  help: `data.imdb` must name \
         question files in pythia's layout, with ten answers per question"
    );
    let vocabulary = |root: &Root| root.tidy(answer_vocabulary(&root.settings).err().unwrap());
    let help = "\n  help: `data.answers` must list one answer per line, `<unk>` first (answers_vqa.txt)";
    root.write("answers.txt", "yes\nno\n");
    assert_eq!(vocabulary(&root), format!("answer vocabulary `DATA/answers.txt`: no line is `<unk>`{help}"));
    root.write("answers.txt", "yes\n<unk>\n");
    assert_eq!(
        vocabulary(&root),
        format!("answer vocabulary `DATA/answers.txt`: `<unk>` stands on line 2, expected on line 1{help}")
    );
    root.write("answers.txt", b"<unk>\nyes\n\xff\n");
    assert_eq!(vocabulary(&root), format!("answer vocabulary `DATA/answers.txt`: byte 10 is not UTF-8 text{help}"));
    std::fs::remove_file(root.path("answers.txt")).unwrap();
    assert_eq!(
        vocabulary(&root),
        "no answer vocabulary at `DATA/answers.txt`\n  help: `data.answers` names it; correct the path, or put the file there"
    );
    root.settings.answers.clear();
    assert_eq!(
        vocabulary(&root),
        "`data.answers` is empty, expected the path of the answer vocabulary\n  help: set `data.answers` in the experiment file; `vlp explain data.answers` tells what it means"
    );
}

#[test]
fn official_files_that_are_broken() {
    let root = Root::new();
    let types = |content: &str| {
        root.write("annotations.json", content);
        root.tidy(annotations(&root.settings, "val2014").unwrap_err())
    };
    let missing = root.tidy(annotations(&root.settings, "val2014").unwrap_err());
    assert_eq!(
        missing,
        "no VQA annotations at `DATA/annotations.json`\n  help: `data.vqa_annotations` names it; correct the path, or put the file there"
    );
    assert_eq!(
        types("{\n \"annotations\": [{]"),
        "`DATA/annotations.json` is not valid JSON: line 2, column 19: key must be a string\n  help: the file may be cut short or edited by hand; fetch it again"
    );
    let help = "\n  help: `data.vqa_annotations` and `data.vqa_questions` must name the official files, e.g. v2_mscoco_val2014_annotations.json";
    assert_eq!(
        types("{\"questions\": []}"),
        format!(
            "`DATA/annotations.json`: what ends at line 1, column 17, is unfit (missing field `annotations`), expected the layout of the official VQA v2 files{help}"
        )
    );
    assert_eq!(
        types("{\"annotations\": [{\"question_id\": \"7\"}]}"),
        format!(
            "`DATA/annotations.json`: what ends at line 1, column 36, is unfit (invalid type: string \"7\", expected u64), expected the layout of the official VQA v2 files{help}"
        )
    );
    root.write("questions.json", "{}");
    assert_eq!(
        root.tidy(phases(&root.settings).unwrap_err()),
        format!(
            "`DATA/questions.json`: what ends at line 1, column 2, is unfit (missing field `questions`), expected the layout of the official VQA v2 files{help}"
        )
    );
}

#[test]
fn the_whole_of_an_annotation_tells_people_apart() {
    let root = Root::sound();
    let people = json!([
        { "answer": "2", "answer_confidence": "yes", "answer_id": 1 },
        { "answer": "2", "answer_confidence": "yes", "answer_id": 2 },
        { "answer": "two", "answer_confidence": "maybe", "answer_id": 3 }
    ]);
    let entry = json!({ "question_id": 3, "image_id": 3, "question_type": "is it", "answer_type": "number", "multiple_choice_answer": "2", "answers": people });
    root.write("annotations.json", json!({ "info": {}, "annotations": [entry] }).to_string());
    let types = annotations(&root.settings, "val2014").unwrap();
    let entries = root.load().unwrap().entries(&types);
    let found = entries.iter().find(|e| e.question_id == 3).unwrap();
    assert_eq!((found.question_type.as_str(), found.answer_type.as_str()), ("is it", "number"));
    let people: Vec<_> = found.answers.iter().map(|a| (a.answer.as_str(), a.identity.as_str())).collect();
    assert_eq!(
        people,
        [
            ("2", "{\"answer_confidence\":\"yes\",\"answer_id\":1}"),
            ("2", "{\"answer_confidence\":\"yes\",\"answer_id\":2}"),
            ("two", "{\"answer_confidence\":\"maybe\",\"answer_id\":3}")
        ]
    );
    let other = entries.iter().find(|e| e.question_id == 1).unwrap();
    assert_eq!((other.answer_type.as_str(), other.answers.len()), ("", 10), "not annotated: the imdb file's answers");
    assert!(Path::new(&root.settings.answers).is_file());
}
