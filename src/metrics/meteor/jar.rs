//! The real METEOR: runs `meteor-1.5.jar` with Java, over its line protocol. For cross-checks; [`super::Meteor`] gives the same scores without Java.
//!
//! One process per call, bounded in time and memory, and ended with the call.
//!
//! ```no_run
//! use std::path::Path;
//! use vlp::metrics::meteor::{Meteor, jar::Jar};
//! let images = [("a dog runs", vec!["the dog is running"])];
//! let official = Jar::new(Path::new("meteor"))?.score(&images)?;
//! let native = Meteor::open(Path::new("meteor"), Path::new("cache"))?.score(&images);
//! assert!((official.scores.corpus - native.corpus).abs() < 1e-12);
//! # Ok::<(), vlp::metrics::meteor::MeteorError>(())
//! ```

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::resources::{Files, PARAPHRASES};
use super::score::SegmentStatistics;
use super::{MeteorError, MeteorScores, clean_candidate, split_references};

/// Most that is kept of what Java says on stderr.
const LOG_BYTES: u64 = 4000;

/// How to run the jar.
#[derive(Debug, Clone)]
pub struct Jar {
    jar: PathBuf,
    java: PathBuf,
    memory_mb: u32,
    timeout: Duration,
}

/// What the jar answered.
#[derive(Debug, Clone, PartialEq)]
pub struct JarScores {
    /// The scores it printed.
    pub scores: MeteorScores,
    /// The statistics of each image.
    pub statistics: Vec<SegmentStatistics>,
}

impl Jar {
    /// The jar in the folder `resources`, with `data/paraphrase-en.gz` beside it. Runs `java` from the search path with 2 GB of memory for at most 10 minutes.
    ///
    /// # Errors
    /// [`MeteorError::Missing`] if a file is not there, and [`MeteorError::Jar`] if the paraphrase table is not where the jar looks for it.
    pub fn new(resources: &Path) -> Result<Self, MeteorError> {
        let Files { jar, paraphrases } = Files::find(resources)?;
        if !paraphrases.parent().is_some_and(|folder| folder.ends_with("data")) {
            let help = "move it into a folder `data` beside the jar";
            return Err(MeteorError::Jar {
                reason: format!("it looks for data/{PARAPHRASES}, found {}", paraphrases.display()),
                jar,
                help,
            });
        }
        Ok(Self { jar, java: "java".into(), memory_mb: 2048, timeout: Duration::from_secs(600) })
    }

    /// Uses another Java.
    pub fn java(self, java: impl Into<PathBuf>) -> Self {
        Self { java: java.into(), ..self }
    }

    /// Limits Java's heap, in megabytes.
    pub fn memory_mb(self, memory_mb: u32) -> Self {
        Self { memory_mb, ..self }
    }

    /// Limits the time of a call, start of Java included.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Scores images as [`super::Meteor::score`] does.
    ///
    /// # Errors
    /// [`MeteorError::Jar`] if Java cannot be started, fails, answers nonsense or takes too long.
    pub fn score<C: AsRef<str>, R: AsRef<str>>(&self, images: &[(C, Vec<R>)]) -> Result<JarScores, MeteorError> {
        let mut child = self.start()?;
        let result = self.converse(&mut child, images);
        // It has said all that was wanted, or it is to be given up.
        let _ = child.kill();
        let _ = child.wait();
        result
    }

    fn start(&self) -> Result<Child, MeteorError> {
        let mut command = Command::new(&self.java);
        command.arg(format!("-Xmx{}M", self.memory_mb)).arg("-jar").arg(&self.jar);
        command.args(["-", "-", "-stdio", "-l", "en", "-norm"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map_err(|error| {
            self.failed(
                format!("cannot start {}: {error}", self.java.display()),
                "install a Java runtime (8 or newer), or use the native METEOR",
            )
        })
    }

    fn failed(&self, reason: String, help: &'static str) -> MeteorError {
        MeteorError::Jar { jar: self.jar.clone(), reason, help }
    }

    fn converse<C: AsRef<str>, R: AsRef<str>>(
        &self,
        child: &mut Child,
        images: &[(C, Vec<R>)],
    ) -> Result<JarScores, MeteorError> {
        let deadline = Instant::now() + self.timeout;
        let (Some(stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(self.failed("its pipes are closed".into(), "try again"));
        };
        let (to_jar, questions) = channel::<String>();
        let (answer, answers) = channel();
        // These threads end when the process does.
        std::thread::spawn(move || write_all(stdin, &questions));
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if answer.send(line).is_err() {
                    break;
                }
            }
        });
        let log = std::thread::spawn(move || {
            let (mut kept, mut stderr) = (Vec::new(), stderr);
            let _ = stderr.by_ref().take(LOG_BYTES).read_to_end(&mut kept);
            let _ = std::io::copy(&mut stderr, &mut std::io::sink());
            String::from_utf8_lossy(&kept).trim().to_owned()
        });
        let mut questions = String::new();
        for (candidate, references) in images {
            questions.push_str("SCORE");
            for text in split_references(references).chain([clean_candidate(candidate.as_ref()).as_str()]) {
                questions.push_str(" ||| ");
                questions.extend(text.chars().map(|c| if matches!(c, '\n' | '\r') { ' ' } else { c }));
            }
            questions.push('\n');
        }
        let mut conversation = Conversation { jar: self, deadline, answers, log: Some(log) };
        // A closed channel means that the process is gone, which the answers tell better.
        let _ = to_jar.send(questions);
        let mut statistics = Vec::with_capacity(images.len());
        let mut question = String::from("EVAL");
        for _ in images {
            let line = conversation.line(child)?;
            statistics.push(parse(&line).ok_or_else(|| conversation.nonsense(&line))?);
            question.push_str(" ||| ");
            question.push_str(line.trim());
        }
        question.push('\n');
        let _ = to_jar.send(question);
        let mut score = || {
            let line = conversation.line(child)?;
            line.trim().parse::<f64>().map_err(|_| conversation.nonsense(&line))
        };
        let per_image = images.iter().map(|_| score()).collect::<Result<_, _>>()?;
        Ok(JarScores { scores: MeteorScores { corpus: score()?, per_image }, statistics })
    }
}

fn write_all(mut stdin: ChildStdin, questions: &Receiver<String>) {
    for question in questions {
        if stdin.write_all(question.as_bytes()).and_then(|()| stdin.flush()).is_err() {
            break;
        }
    }
}

/// The answers of a running jar.
struct Conversation<'a> {
    jar: &'a Jar,
    deadline: Instant,
    answers: Receiver<String>,
    log: Option<std::thread::JoinHandle<String>>,
}

impl Conversation<'_> {
    fn line(&mut self, child: &mut Child) -> Result<String, MeteorError> {
        match self.answers.recv_timeout(self.deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => Ok(line),
            Err(RecvTimeoutError::Timeout) => Err(self.jar.failed(
                format!("no answer within {} s", self.jar.timeout.as_secs_f64()),
                "allow more time, score fewer captions at once, or use the native METEOR",
            )),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.end(child);
                let log = self.log.take().and_then(|log| log.join().ok()).unwrap_or_default();
                Err(self.jar.failed(
                    format!("ended early ({status}): {log}"),
                    "check that Java has the memory it needs and that the jar is whole (scripts/meteor.sh fetches it)",
                ))
            }
        }
    }

    /// How the process ended; ends it if it does not by itself.
    fn end(&self, child: &mut Child) -> String {
        loop {
            match child.try_wait() {
                Ok(Some(status)) => return status.to_string(),
                Ok(None) if Instant::now() < self.deadline => std::thread::sleep(Duration::from_millis(5)),
                Ok(None) => {
                    let _ = child.kill();
                    return "closed its output".into();
                }
                Err(error) => return error.to_string(),
            }
        }
    }

    fn nonsense(&self, line: &str) -> MeteorError {
        self.jar.failed(
            format!("unexpected answer `{line}`"),
            "use the native METEOR, and report the captions that cause this",
        )
    }
}

/// Statistics from an answer: 23 numbers, written like `9.0`.
fn parse(line: &str) -> Option<SegmentStatistics> {
    let numbers: Vec<u64> = line
        .split_whitespace()
        .map(|number| number.parse::<f64>().ok().filter(|n| *n >= 0.0 && n.fract() == 0.0).map(|n| n as u64))
        .collect::<Option<_>>()?;
    Some(SegmentStatistics::from_array(numbers.as_slice().try_into().ok()?))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// What the jar class says when Java is the shell script `java`.
    fn message(java: &str, timeout: Duration) -> String {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("data")).unwrap();
        for name in ["meteor-1.5.jar", "data/paraphrase-en.gz"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let path = folder.path().join("java");
        // Written by another process: a file that this one has open for writing cannot be run.
        let script = format!("#!/bin/sh\n{java}\n");
        let write = ["-c", "printf %s \"$1\" > \"$2\" && chmod +x \"$2\"", "sh", &script];
        assert!(Command::new("sh").args(write).arg(&path).status().unwrap().success());
        let jar = Jar::new(folder.path()).unwrap().java(&path).timeout(timeout);
        let found = jar.score(&[("a dog", vec!["a dog"])]).unwrap_err().to_string();
        found.replace(&*folder.path().to_string_lossy(), "DIR")
    }

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn tells_what_went_wrong() {
        assert_eq!(
            message("echo no memory >&2; exit 3", LONG),
            "the METEOR jar DIR/meteor-1.5.jar: ended early (exit status: 3): no memory\n  \
             help: check that Java has the memory it needs and that the jar is whole (scripts/meteor.sh fetches it)"
        );
        assert_eq!(
            message("echo Error: x; exec sleep 600", LONG),
            "the METEOR jar DIR/meteor-1.5.jar: unexpected answer `Error: x`\n  \
             help: use the native METEOR, and report the captions that cause this"
        );
        assert_eq!(
            message("exec sleep 600", Duration::from_millis(50)),
            "the METEOR jar DIR/meteor-1.5.jar: no answer within 0.05 s\n  \
             help: allow more time, score fewer captions at once, or use the native METEOR"
        );
    }

    #[test]
    fn needs_java_and_the_folder_data() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("meteor-1.5.jar"), "").unwrap();
        std::fs::write(folder.path().join("paraphrase-en.gz"), "").unwrap();
        let found = Jar::new(folder.path()).unwrap_err().to_string();
        assert!(found.contains("it looks for data/paraphrase-en.gz, found "), "{found}");
        std::fs::create_dir(folder.path().join("data")).unwrap();
        std::fs::rename(folder.path().join("paraphrase-en.gz"), folder.path().join("data/paraphrase-en.gz")).unwrap();
        let jar = Jar::new(folder.path()).unwrap().java(folder.path().join("none"));
        let found = jar.score(&[("a", vec!["a"])]).unwrap_err().to_string();
        assert!(found.contains("/none: No such file or directory"), "{found}");
    }

    #[test]
    fn reads_answers() {
        let line = (0..23).map(|n| format!("{n}.0")).collect::<Vec<_>>().join(" ");
        assert_eq!(parse(&line).unwrap().to_array(), std::array::from_fn(|n| n as u64));
        assert_eq!(parse("1.0 2.0"), None);
        assert_eq!(parse(&line.replace("7.0", "7.5")), None);
    }
}
