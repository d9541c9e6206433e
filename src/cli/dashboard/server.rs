//! The process behind the user interface: MLflow's own server on a SQLite store, reachable from this machine only, which ends
//! with this program however that ends.
//!
//! The server is several processes; they are one group. A shell that waits for this program's end, in whatever way, ends
//! what it could not end itself.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::super::context::{Failure, exit};
use super::super::run::track_failure;
use crate::track::TrackError;
use crate::track::mlflow::Server;

/// Time for the server to answer for the first time: it makes the store, and Python may be cold.
const START: Duration = Duration::from_secs(180);

/// Time for the server to end when it is asked to; then it is killed.
const END: Duration = Duration::from_secs(10);

/// Time between two looks at a server that is to end.
const LOOK: Duration = Duration::from_millis(20);

/// Lines of the server's log that are shown when it fails.
const SHOWN: usize = 8;

/// Ends the group of processes `$1` when its stdin does.
const GUARD: &str = "read -r _; kill -s TERM -- \"-$1\"; sleep 10; kill -s KILL -- \"-$1\"";

/// The port, when nobody has it; a free one for 0.
pub fn free_port(port: u16) -> Result<u16, Failure> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|listener| listener.local_addr());
    bound.map(|address| address.port()).map_err(|error| {
        let (said, help) = match error.kind() {
            ErrorKind::AddrInUse => ("is taken by another program".to_owned(), "name another with `--port N`"),
            _ => (format!("cannot be used: {error}"), "name another with `--port N`; those below 1024 need root"),
        };
        Failure::new(
            exit::CONFIG,
            format!("port {port} of 127.0.0.1 {said}\n  help: {help}; `--port 0` finds a free one"),
        )
    })
}

/// A server at work.
pub struct UserInterface {
    child: Child,
    guard: Child,
    server: Server,
    log: PathBuf,
    started: Instant,
}

impl UserInterface {
    /// Starts `mlflow server` on the store in `folder`.
    pub fn start(program: &Path, folder: &Path, port: u16) -> Result<Self, Failure> {
        let log = folder.join("server.log");
        let absolute = folder.canonicalize().map_err(TrackError::io("find", folder)).map_err(track_failure)?;
        let file = std::fs::File::create(&log).map_err(TrackError::io("write", &log)).map_err(track_failure)?;
        let copy = file.try_clone().map_err(TrackError::io("write", &log)).map_err(track_failure)?;
        let server = Server::new(&format!("http://127.0.0.1:{port}"), None, None, None);
        let server = server.map_err(|error| Failure::new(exit::TRAIN, error))?;
        // The server works in the folder of its store: what it leaves where it is belongs there.
        let program = std::path::absolute(program).map_err(TrackError::io("find", program)).map_err(track_failure)?;
        let mut command = Command::new(&program);
        command
            .args(["server", "--host", "127.0.0.1", "--workers", "1", "--port", &port.to_string()])
            .arg("--backend-store-uri")
            .arg(format!("sqlite:///{}", absolute.join("mlflow.db").display()))
            .arg("--artifacts-destination")
            .arg(absolute.join("files"))
            .current_dir(&absolute)
            .stdin(Stdio::null())
            .stdout(copy)
            .stderr(file)
            .process_group(0);
        // The variables of MLflow are about other servers.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MLFLOW_")) {
            command.env_remove(name);
        }
        command.envs([("MLFLOW_DISABLE_TELEMETRY", "true"), ("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")]);
        let mut child = command.spawn().map_err(|error| {
            let help = "check that it is the program `mlflow`, and may be run";
            Failure::new(exit::CONFIG, format!("cannot run `{}`: {error}\n  help: {help}", program.display()))
        })?;
        let mut guard = Command::new("/bin/sh");
        guard.args(["-c", GUARD, "sh", &child.id().to_string()]);
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        match guard.spawn() {
            Ok(guard) => Ok(Self { child, guard, server, log, started: Instant::now() }),
            Err(error) => {
                signal(&child, libc::SIGKILL);
                // It was killed: the wait is short, and its status says nothing.
                let _ = child.wait();
                let help =
                    "it ends the server when this program is killed; check the limits of the system (`ulimit -u`)";
                Err(Failure::new(exit::TRAIN, format!("cannot run `/bin/sh`: {error}\n  help: {help}")))
            }
        }
    }

    /// The server's address.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Whether it answers by now; an error when it has ended, or has said nothing for too long.
    pub fn answers(&mut self) -> Result<bool, Failure> {
        self.is_up()?;
        if self.server.answers() {
            return Ok(true);
        }
        if self.started.elapsed() > START {
            return Err(self.failed(&format!("does not answer after {} seconds", START.as_secs())));
        }
        Ok(false)
    }

    /// An error when it has ended.
    pub fn is_up(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.failed(&format!("ended: {status}"))),
            Err(error) => Err(self.failed(&format!("cannot be watched: {error}"))),
        }
    }

    /// What went wrong, with the end of the server's log.
    fn failed(&self, what: &str) -> Failure {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        let shown: String =
            lines.iter().skip(lines.len().saturating_sub(SHOWN)).map(|l| format!("  | {l}\n")).collect();
        let help = "a store of another version of MLflow can be removed: it is filled again from the journals";
        let log = self.log.display();
        Failure::new(exit::TRAIN, format!("the MLflow server {what}\n{shown}  help: `{log}` has all it said; {help}"))
    }

    /// Ends all of its processes, and returns when they are gone.
    pub fn stop(&mut self) {
        let deadline = Instant::now() + END;
        signal(&self.child, libc::SIGTERM);
        let mut over = false;
        while group_exists(&self.child) {
            if !over {
                over = matches!(self.child.try_wait(), Ok(Some(_)) | Err(_));
            }
            if Instant::now() > deadline {
                signal(&self.child, libc::SIGKILL);
            }
            std::thread::sleep(LOOK);
        }
        // Its group is gone, so there is nothing left to guard.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
    }
}

impl Drop for UserInterface {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Sends a signal to the server's group.
fn signal(child: &Child, number: i32) {
    // SAFETY: kill has no memory effects; the group has the number of the child, and is this program's own.
    unsafe { libc::kill(-(child.id() as i32), number) };
}

/// Whether any process of the server's group is left; one that has ended and was not waited for counts.
fn group_exists(child: &Child) -> bool {
    // SAFETY: as above; signal 0 is not delivered.
    unsafe { libc::kill(-(child.id() as i32), 0) == 0 }
}
