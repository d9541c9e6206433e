//! Which Java there is, and what the SPICE tool needs to run on it.
//!
//! The tool was written for Java 8. From Java 9 on its serialiser must be let into packages of the runtime, and Java 15
//! removed the JavaScript engine with which it indents its output (small runtimes lack it from Java 9 on): there a class of
//! our own (`VlpScriptEngine.java`) takes the engine's place through the runtime's `ServiceLoader`. It is compiled once,
//! with `javac`, into the cache folder.

use std::fmt::{self, Display, Formatter};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::SpiceError;
use super::process::{self, End, WorkFolder};
use super::resources::Missing;

/// The oldest Java on which the tool runs.
pub const OLDEST: JavaVersion = JavaVersion(8);

/// The first version without a JavaScript engine.
const WITHOUT_JAVASCRIPT: JavaVersion = JavaVersion(15);

/// The class is compiled for this version at most, so that an older compiler than the runtime will do.
const COMPILED_FOR: JavaVersion = JavaVersion(11);

/// Packages of `java.base` that the tool's serialiser reaches into.
const OPENED: [&str; 6] = ["lang", "math", "util", "util.concurrent", "net", "text"];

const SOURCE: &str = include_str!("VlpScriptEngine.java");

/// `ServiceLoader` finds the engine through this file.
const SERVICE: (&str, &str) = ("META-INF/services/javax.script.ScriptEngineFactory", "VlpScriptEngine$Factory\n");

/// Starting Java, or compiling one class, takes a second; this is for machines that are very busy.
const LIMIT: Duration = Duration::from_secs(120);

/// The feature release of a Java runtime: 8, 11, 17, …
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct JavaVersion(pub u32);

impl Display for JavaVersion {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl JavaVersion {
    /// From what `java -version` prints: `java version "1.8.0_301"`, `openjdk version "17.0.15" 2025-04-15`, `"25-ea"`.
    pub fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.split_once(" version \"")?;
        let number = |text: &str| -> Option<u32> {
            let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            text[..end].parse().ok()
        };
        match number(rest)? {
            1 => number(rest.strip_prefix("1.")?).map(Self),
            feature => Some(Self(feature)),
        }
    }

    /// Flags without which the tool does not run on this version.
    pub fn flags(self) -> Vec<String> {
        let mut flags = Vec::new();
        if self.0 >= 9 {
            let open = |package| ["--add-opens".to_owned(), format!("java.base/java.{package}=ALL-UNNAMED")];
            flags.extend(OPENED.iter().flat_map(open));
        }
        if self.0 >= 22 {
            flags.push("--enable-native-access=ALL-UNNAMED".to_owned());
        }
        if self.0 >= 23 {
            flags.push("--sun-misc-unsafe-memory-access=allow".to_owned());
        }
        flags
    }
}

/// Asks `java` for its version; the inner error is a runtime that will not do.
///
/// # Errors
/// [`SpiceError::Io`] if the program cannot be run for another reason than that it is not there.
pub fn version(java: &Path) -> Result<Result<JavaVersion, Missing>, SpiceError> {
    let missing = |why: String| Ok(Err(Missing::Java { program: java.to_owned(), why }));
    let work = WorkFolder::new(&std::env::temp_dir())?;
    let end = match process::run(Command::new(java).arg("-version"), LIMIT, &work) {
        Err(SpiceError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return missing("is not there".to_owned());
        }
        end => end?,
    };
    match end {
        End::Success { printed } => match JavaVersion::parse(&printed) {
            Some(version) if version >= OLDEST => Ok(Ok(version)),
            Some(version) => missing(format!("is Java {version}")),
            None => missing(format!("does not say its version: {}", printed.trim())),
        },
        End::Failed { status, printed } => missing(format!("does not start ({status}): {}", printed.trim())),
        End::Timeout => missing(format!("does not start within {} s", LIMIT.as_secs())),
    }
}

/// Whether the runtime has no JavaScript engine.
fn lacks_javascript(java: &Path, version: JavaVersion) -> Result<bool, SpiceError> {
    if version >= WITHOUT_JAVASCRIPT || version == OLDEST {
        return Ok(version >= WITHOUT_JAVASCRIPT);
    }
    let work = WorkFolder::new(&std::env::temp_dir())?;
    let end = process::run(Command::new(java).arg("--list-modules"), LIMIT, &work)?;
    Ok(!matches!(end, End::Success { printed } if printed.contains("jdk.scripting.nashorn")))
}

/// The compiler, if it is needed and not there.
pub(super) fn missing_compiler(java: &Path, version: JavaVersion, cache: &Path) -> Result<Option<Missing>, SpiceError> {
    if engine_folder(cache, version).is_dir() || !lacks_javascript(java, version)? {
        return Ok(None);
    }
    let compiler = compiler(java);
    let found = match compiler.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => compiler.is_file(),
        _ => process::starts(Command::new(&compiler).arg("-version")),
    };
    Ok((!found).then_some(Missing::Compiler { program: compiler }))
}

/// The folder with the compiled engine, for the class path; none where Java has an engine of its own.
pub(super) fn script_engine(java: &Path, version: JavaVersion, cache: &Path) -> Result<Option<PathBuf>, SpiceError> {
    if !lacks_javascript(java, version)? {
        return Ok(None);
    }
    let folder = engine_folder(cache, version);
    if folder.is_dir() {
        return Ok(Some(folder));
    }
    let work = WorkFolder::new(cache)?;
    let (source, classes) = (work.path().join("VlpScriptEngine.java"), process::folder(&work.path().join("classes"))?);
    process::write(&source, SOURCE)?;
    process::folder(&classes.join("META-INF/services"))?;
    process::write(&classes.join(SERVICE.0), SERVICE.1)?;
    let mut command = Command::new(compiler(java));
    command.arg("--release").arg(version.min(COMPILED_FOR).to_string()).arg("-d").arg(&classes).arg(&source);
    match process::run(&mut command, LIMIT, &work)? {
        End::Success { .. } => {}
        End::Failed { status, printed } => {
            let last_words = super::last_words(&printed);
            let help = "install a JDK of the same version as `java`";
            return Err(SpiceError::Failed { program: "javac", status, last_words, help });
        }
        End::Timeout => return Err(SpiceError::Timeout { limit: LIMIT, cache: cache.to_owned() }),
    }
    match std::fs::rename(&classes, &folder) {
        Err(source) if !folder.is_dir() => Err(SpiceError::Io { action: "write", path: folder, source }),
        _ => Ok(Some(folder)), // another process may have been faster
    }
}

/// A Java class path.
pub(super) fn class_path(engine: Option<&Path>, jar: &Path) -> std::ffi::OsString {
    let mut path = std::ffi::OsString::new();
    if let Some(engine) = engine {
        path.push(engine);
        path.push(if cfg!(windows) { ";" } else { ":" });
    }
    path.push(jar);
    path
}

/// `javac` beside `java`.
fn compiler(java: &Path) -> PathBuf {
    java.with_file_name(format!("javac{}", std::env::consts::EXE_SUFFIX))
}

/// Named after the version of Java and the source's content (FNV-1a), so that another one is compiled anew.
fn engine_folder(cache: &Path, version: JavaVersion) -> PathBuf {
    let hash = SOURCE
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    cache.join(format!("script-engine-{version}-{hash:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let parse = |text| JavaVersion::parse(text).map(|v| v.0);
        assert_eq!(parse("java version \"1.8.0_301\"\nJava(TM) SE"), Some(8));
        assert_eq!(parse("Picked up JAVA_TOOL_OPTIONS: -Xmx1G\nopenjdk version \"17.0.15\" 2025-04-15"), Some(17));
        assert_eq!(parse("openjdk version \"25-ea\" 2025-09-16"), Some(25));
        assert_eq!(parse("openjdk version \"11\""), Some(11));
        assert_eq!(parse("gij (GNU libgcj) version 4.3.5"), None);
        assert_eq!(parse("java version \"1\""), None);
    }

    #[test]
    fn flags_by_version() {
        assert_eq!(JavaVersion(8).flags(), [""; 0]);
        assert_eq!(JavaVersion(11).flags().len(), 12);
        assert_eq!(JavaVersion(17).flags()[..2], ["--add-opens", "java.base/java.lang=ALL-UNNAMED"]);
        assert_eq!(JavaVersion(25).flags().len(), 14);
    }

    #[test]
    fn compiler_is_beside_java() {
        assert_eq!(compiler(Path::new("/opt/jdk/bin/java")), Path::new("/opt/jdk/bin/javac"));
        assert_eq!(compiler(Path::new("java")), Path::new("javac"));
    }
}
