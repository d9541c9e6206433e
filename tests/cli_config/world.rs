//! A folder with experiment files, in which the real binary is run with relative paths and without the variables of
//! whoever runs the tests.

use std::path::PathBuf;
use std::process::Output;

use assert_cmd::Command;
use tempfile::TempDir;

/// The top of a good experiment: a name and every path.
pub const NAME: &str = "[experiment]\nname = \"demo\"\n";
/// The `[data]` table of a good experiment; options may be appended.
pub const DATA: &str = "[data]\nannotations = \"a.json\"\nvalid_images = \"v.json\"\nregion_prefix = \"r\"\nboxes = \"b.h5\"\nvocabulary = \"vocab.txt\"\n";

/// The text of an experiment without mistakes, followed by `rest`.
pub fn good(rest: &str) -> String {
    format!("{NAME}{DATA}{rest}")
}

/// Some files and variables.
pub struct World {
    folder: TempDir,
    variables: Vec<(String, String)>,
}

impl World {
    /// A folder with these files.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let world = Self { folder: TempDir::new().unwrap(), variables: Vec::new() };
        for (name, text) in files {
            world.write(name, text);
        }
        world
    }

    /// A folder with one good experiment `e.toml` that ends with `rest`.
    pub fn good(rest: &str) -> Self {
        Self::new(&[("e.toml", &good(rest))])
    }

    /// Adds an environment variable.
    pub fn with(mut self, variable: &str, value: &str) -> Self {
        self.variables.push((variable.into(), value.into()));
        self
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Where a file is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `vlp` in the folder.
    pub fn vlp(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vlp"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("VLP_") || name.ends_with("_ROOT") {
                command.env_remove(name.as_ref());
            }
        }
        command.current_dir(self.folder.path()).args(args).envs(self.variables.iter().map(|(k, v)| (k, v)));
        command.output().unwrap()
    }

    /// Runs `vlp`, which has to succeed; its stdout.
    pub fn stdout(&self, args: &[&str]) -> String {
        let output = self.vlp(args);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs `vlp`, which has to fail with exit code 2 and an empty stdout; its stderr.
    pub fn mistake(&self, args: &[&str]) -> String {
        let output = self.vlp(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "stdout is for data");
        assert!(!stderr.contains("panicked"), "{stderr}");
        stderr
    }
}

/// Compares with `snapshots/cli_config__NAME.snap`.
pub fn snapshot(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("../snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(format!("cli_config__{name}"), text));
}
