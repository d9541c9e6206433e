//! `vlp dashboard` at work for a test.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Stdio};

use super::demo_runs::Folder;
use super::server::{Api, program, wait_for};

/// The command, and its address.
pub struct Dashboard {
    child: Child,
    stderr: BufReader<ChildStderr>,
    store: PathBuf,
    pub api: Api,
}

impl Dashboard {
    /// Starts it, and waits for the address.
    pub fn start(folder: &Folder, more: &[&str]) -> Self {
        let mut command = folder.command(&[&["dashboard"], more].concat());
        command.env("VLP_MLFLOW", program().unwrap());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut started = Self { child, stderr, store: folder.path("results/mlflow"), api: Api(address.trim().into()) };
        if address.is_empty() {
            panic!(
                "no address: {}",
                started.stderr.by_ref().lines().map_while(Result::ok).collect::<Vec<_>>().join("\n")
            );
        }
        assert!(started.line().starts_with("start "));
        started
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// What it says when the store has all that was there.
    pub fn fed(&mut self) -> String {
        self.line()
    }

    /// Ends it; its exit code.
    pub fn stop(&mut self, signal: i32) -> Option<i32> {
        // SAFETY: kill has no memory effects; the process was not waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
        self.child.wait().unwrap().code()
    }

    /// No process of the server is left, and nobody has its port.
    pub fn has_left_nothing(&self) {
        let store = self.store.canonicalize().unwrap().display().to_string();
        let theirs = |entry: std::io::Result<std::fs::DirEntry>| {
            let folder = entry.unwrap().path();
            let said = |name: &str| std::fs::read(folder.join(name)).unwrap_or_default();
            let text = String::from_utf8_lossy(&[said("cmdline"), said("environ")].concat()).into_owned();
            text.contains(&store).then_some(text)
        };
        let left = || -> Vec<String> { std::fs::read_dir("/proc").unwrap().filter_map(theirs).collect() };
        wait_for("the end of the server's processes", || left().is_empty());
        let address = self.api.0.strip_prefix("http://").unwrap();
        std::net::TcpListener::bind(address).unwrap();
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
