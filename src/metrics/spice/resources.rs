//! The files and programs that SPICE needs, and what to say when some are absent.
//!
//! Looks at names only: it neither opens the files nor fetches any.

use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};

/// The tool.
pub(super) const JAR: &str = "spice-1.0.jar";

/// Language software and models, which no package of caption tools carries.
const CORENLP: [&str; 2] = ["stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar"];

/// The tool's other libraries, all in pycocoevalcap.
const LIBRARIES: [&str; 12] = [
    "Meteor-1.5.jar",
    "SceneGraphParser-1.0.jar",
    "ejml-0.23.jar",
    "fst-2.47.jar",
    "guava-19.0.jar",
    "jackson-core-2.5.3.jar",
    "javassist-3.19.0-GA.jar",
    "json-simple-1.1.1.jar",
    "lmdbjni-0.4.6.jar",
    "objenesis-2.4.jar",
    "slf4j-api-1.7.12.jar",
    "slf4j-simple-1.7.21.jar",
];

/// The native part of the tool's database, by operating system.
const NATIVE: &str = if cfg!(target_os = "macos") {
    "lmdbjni-osx64-0.4.6.jar"
} else if cfg!(windows) {
    "lmdbjni-win64-0.4.6.jar"
} else {
    "lmdbjni-linux64-0.4.6.jar"
};

/// Something that SPICE needs and that is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// The tool or one of its libraries.
    Tool(PathBuf),
    /// CoreNLP or its models.
    CoreNlp(PathBuf),
    /// A Java runtime.
    Java {
        /// The program that was tried.
        program: PathBuf,
        /// Why it will not do.
        why: String,
    },
    /// A Java compiler, which Java 15 and later, and small runtimes, need once.
    Compiler {
        /// The program that was tried.
        program: PathBuf,
    },
}

impl Display for Missing {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tool(path) | Self::CoreNlp(path) => write!(f, "file `{}`", path.display()),
            Self::Java { program, why } => write!(f, "Java: `{}` {why}", program.display()),
            Self::Compiler { program } => write!(f, "a Java compiler: `{}` is not there", program.display()),
        }
    }
}

/// SPICE cannot be computed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// Where the tool was looked for.
    pub folder: PathBuf,
    /// All that is missing.
    pub missing: Vec<Missing>,
}

impl std::error::Error for Unavailable {}

impl Display for Unavailable {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "SPICE is not available; missing:")?;
        for missing in &self.missing {
            write!(f, "\n  {missing}")?;
        }
        for help in self.help() {
            write!(f, "\n  help: {help}")?;
        }
        Ok(())
    }
}

impl Unavailable {
    /// How to get what is missing, one line per source.
    pub fn help(&self) -> Vec<String> {
        let has = |kind: fn(&Missing) -> bool| self.missing.iter().any(kind);
        let folder = self.folder.display();
        let mut help = Vec::new();
        if has(|m| matches!(m, Missing::Tool(_))) {
            help.push(format!(
                "`pip download --no-deps pycocoevalcap==1.2`, unzip the wheel, and copy `spice-1.0.jar` and `lib` of its \
                 `pycocoevalcap/spice` to `{folder}`"
            ));
        }
        if has(|m| matches!(m, Missing::CoreNlp(_))) {
            help.push(format!(
                "unzip http://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip and copy its \
                 `{}` and `{}` to `{folder}/lib`",
                CORENLP[0], CORENLP[1]
            ));
        }
        if has(|m| matches!(m, Missing::Java { .. })) {
            help.push(format!("install Java {} or later and put `java` into PATH", super::java::OLDEST));
        }
        if has(|m| matches!(m, Missing::Compiler { .. })) {
            help.push(
                "this Java lacks a part that the tool needs (all do from 15 on), and a small class is compiled in its \
                 place: install a JDK (with `javac`) of the same version"
                    .to_owned(),
            );
        }
        help
    }
}

/// The files of the tool that are not in `folder`.
pub(super) fn missing_files(folder: &Path) -> Vec<Missing> {
    let library = |name: &str| folder.join("lib").join(name);
    let tool = std::iter::once(folder.join(JAR)).chain(LIBRARIES.iter().chain([&NATIVE]).map(|name| library(name)));
    let corenlp = CORENLP.iter().map(|name| library(name));
    tool.map(Missing::Tool)
        .chain(corenlp.map(Missing::CoreNlp))
        .filter(|missing| !matches!(missing, Missing::Tool(path) | Missing::CoreNlp(path) if path.is_file()))
        .collect()
}
