//! What the tool's answer becomes, and what is said where there is no tool or it misbehaves.

use super::*;

fn entry(id: &str) -> CaptionEntry {
    CaptionEntry { id: id.into(), candidate: "a dog".into(), references: vec!["the dog".into(), "日 \"dog\"".into()] }
}

fn tuples(f: Option<f64>, true_positives: u64) -> String {
    let f = f.map_or("null".to_owned(), |f| f.to_string());
    format!(r#"{{"f":{f},"pr":{f},"re":{f},"tp":{true_positives},"fp":1,"fn":2,"numImages":1}}"#)
}

fn answer(id: &str, all: Option<f64>, color: Option<f64>) -> String {
    let scores: Vec<String> = CATEGORIES
        .iter()
        .map(|name| format!(r#""{name}":{}"#, tuples(if *name == "Color" { color } else { all }, 3)))
        .collect();
    format!(r#"{{"image_id":"{id}","scores":{{{}}}}}"#, scores.join(","))
}

#[test]
fn answers_find_their_images_by_id() {
    let text = format!("[{},{}]", answer("10", Some(0.5), None), answer("9", Some(0.25), Some(1.0)));
    let scores = scores(&text, &[entry("9"), entry("10")]).unwrap();
    assert_eq!(scores.spice, 0.375);
    assert_eq!(scores.per_image[0]["All"].f, Some(0.25));
    assert_eq!(scores.per_image[1]["All"].f, Some(0.5));
    assert_eq!(scores.per_image[1]["Color"].f, None);
    assert_eq!((scores.corpus["Color"].f, scores.corpus["Color"].images), (Some(1.0), 1));
    assert_eq!((scores.corpus["Color"].true_positives, scores.corpus["Color"].false_negatives), (6, 4));
}

#[test]
fn a_category_nobody_mentions_is_undefined() {
    let scores = scores(&format!("[{}]", answer("1", Some(0.0), None)), &[entry("1")]).unwrap();
    assert_eq!((scores.spice, scores.corpus["Color"].f, scores.corpus["Color"].images), (0.0, None, 0));
}

#[test]
fn answers_that_cannot_be_used() {
    let problem = |text: &str| scores(text, &[entry("1")]).unwrap_err();
    assert_eq!(problem("[]"), "image `1` is missing");
    assert_eq!(problem(""), "not the expected JSON: EOF while parsing a value at line 1 column 0");
    assert_eq!(problem(&format!("[{}]", answer("1", None, None))), "image `1` has no F score");
    let (one, two) = (answer("1", Some(1.0), None), answer("2", Some(1.0), None));
    assert_eq!(problem(&format!("[{one},{one}]")), "image `1` occurs twice");
    assert_eq!(problem(&format!("[{one},{two}]")), "image `2` was never asked for");
    assert_eq!(problem(r#"[{"image_id":"1","scores":{}}]"#), "image `1` has no `All`");
}

#[test]
fn input_is_ascii() {
    assert_eq!(
        input_json(&[entry("é😀")]),
        r#"[{"image_id":"\u00e9\ud83d\ude00","test":"a dog","refs":["the dog","\u65e5 \"dog\""]}]"#
    );
}

#[test]
fn captions_that_cannot_be_scored() {
    let settings = SpiceSettings::new("/nowhere", "/nowhere");
    assert_eq!(
        score_tokenized(&[entry("1"), entry("2"), entry("1")], &settings).unwrap_err().to_string(),
        "image `1` is given twice\n  help: give exactly one caption per image"
    );
    assert!(matches!(score_captions(&[], &settings), Err(SpiceError::Captions(MetricsError::NoImages))));
}

#[cfg(unix)]
mod with_a_java_of_our_own {
    use super::*;

    /// A folder in which every file is present but empty, and a `java` that is a shell script.
    fn settings(folder: &Path, script: &str) -> SpiceSettings {
        std::fs::create_dir_all(folder.join("lib")).unwrap();
        for missing in resources::missing_files(folder) {
            let (Missing::Tool(path) | Missing::CoreNlp(path)) = missing else { panic!("{missing}") };
            std::fs::write(path, "").unwrap();
        }
        let java = folder.join("java");
        // Written by another process: were it open here, a child of another test's thread could hold it open ("text file busy").
        let mut writer = Command::new("/bin/sh");
        writer.args(["-c", "printf '#!/bin/sh\\n%s\\n' \"$1\" >\"$0\" && chmod 755 \"$0\""]).arg(&java).arg(script);
        assert!(writer.status().unwrap().success());
        let mut settings = SpiceSettings::new(folder, folder.join("cache"));
        settings.java = java;
        settings
    }

    const JAVA_8: &str = "[ \"$1\" = -version ] && { echo 'java version \"1.8.0_301\"' >&2; exit 0; }";

    fn left_in(cache: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(cache).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn too_slow() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings(folder.path(), &format!("{JAVA_8}\nexec sleep 1000"));
        settings.timeout = Duration::from_millis(50);
        let error = score_tokenized(&[entry("1")], &settings).unwrap_err();
        assert!(matches!(&error, SpiceError::Timeout { limit, .. } if *limit == settings.timeout), "{error}");
        assert_eq!(left_in(&settings.cache), ["tuples"]);
    }

    #[test]
    fn fails() {
        let folder = tempfile::tempdir().unwrap();
        let trace = r"printf 'Error: no\n\tat x\n\t... 5 more\n\n' >&2";
        let settings = settings(folder.path(), &format!("{JAVA_8}\necho \"$1 $2 $3\" $#\n{trace}\nexit 1"));
        assert_eq!(
            score_tokenized(&[entry("1")], &settings).unwrap_err().to_string(),
            "the SPICE tool failed (exit code 1); its last words:\n    -Xmx8192M -Dfile.encoding=UTF-8 -cp 12\n    Error: no\n  \
             help: OutOfMemoryError: allow more memory; ClassNotFoundException or a missing model: unpack CoreNLP 3.6.0 again"
        );
    }

    #[test]
    fn leaves_an_empty_answer() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path(), &format!("{JAVA_8}\n: >\"$8\""));
        let error = score_tokenized(&[entry("1")], &settings).unwrap_err().to_string();
        assert!(error.starts_with("the SPICE tool's answer cannot be used: not the expected JSON: EOF"), "{error}");
    }

    #[test]
    fn answers() {
        let folder = tempfile::tempdir().unwrap();
        let line = format!("[{}]", answer("1", Some(0.5), None));
        let settings = settings(folder.path(), &format!("{JAVA_8}\necho '{line}' >\"$8\""));
        assert_eq!(score_captions(&[entry("1")], &settings).unwrap().spice, 0.5);
        assert_eq!(check(&settings).unwrap(), JavaVersion(8));
    }

    #[test]
    fn what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings(folder.path(), "echo 'openjdk version \"21.0.1\"'");
        let at = |name: &str| folder.path().join(name).display().to_string();
        for name in ["lib/guava-19.0.jar", "lib/stanford-corenlp-3.6.0-models.jar"] {
            std::fs::remove_file(folder.path().join(name)).unwrap();
        }
        let tool = format!(
            "help: `pip download --no-deps pycocoevalcap==1.2`, unzip the wheel, and copy `spice-1.0.jar` and `lib` of \
             its `pycocoevalcap/spice` to `{}`",
            folder.path().display()
        );
        let models = format!(
            "help: unzip http://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip and copy its \
             `stanford-corenlp-3.6.0.jar` and `stanford-corenlp-3.6.0-models.jar` to `{}`",
            at("lib")
        );
        let top = format!(
            "SPICE is not available; missing:\n  file `{}`\n  file `{}`\n",
            at("lib/guava-19.0.jar"),
            at("lib/stanford-corenlp-3.6.0-models.jar")
        );
        assert_eq!(
            check(&settings).unwrap_err().to_string(),
            format!(
                "{top}  a Java compiler: `{}` is not there\n  {tool}\n  {models}\n  help: this Java lacks a part that the \
                 tool needs (all do from 15 on), and a small class is compiled in its place: install a JDK (with \
                 `javac`) of the same version",
                at("javac")
            )
        );
        settings.java = folder.path().join("no-java");
        let java = "help: install Java 8 or later and put `java` into PATH";
        let error = score_captions(&[entry("1")], &settings).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{top}  Java: `{}` is not there\n  {tool}\n  {models}\n  {java}", at("no-java"))
        );
        assert!(!settings.cache.exists());
    }

    #[test]
    fn java_with_and_without_javascript() {
        let folder = tempfile::tempdir().unwrap();
        let version = "[ \"$1\" = -version ] && { echo 'openjdk version \"11.0.2\"' >&2; exit 0; }";
        let full =
            settings(folder.path(), &format!("{version}\necho java.base@11.0.2\necho jdk.scripting.nashorn@11.0.2"));
        assert_eq!(check(&full).unwrap(), JavaVersion(11));
        let small = settings(folder.path(), &format!("{version}\necho java.base@11.0.2"));
        let Err(SpiceError::NotAvailable(unavailable)) = check(&small) else { panic!("it has no compiler") };
        assert_eq!(unavailable.missing, [Missing::Compiler { program: folder.path().join("javac") }]);
    }

    #[test]
    fn java_that_will_not_do() {
        let folder = tempfile::tempdir().unwrap();
        for (script, why) in [
            ("echo 'java version \"1.7.0\"'", "is Java 7"),
            ("echo hello", "does not say its version: hello"),
            ("echo broken; exit 3", "does not start (exit code 3): broken"),
        ] {
            let settings = settings(folder.path(), script);
            let Err(SpiceError::NotAvailable(unavailable)) = check(&settings) else { panic!("{script}") };
            assert_eq!(unavailable.missing, [Missing::Java { program: settings.java.clone(), why: why.into() }]);
        }
    }
}
