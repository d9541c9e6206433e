//! One attempt: starts the processes of a plan on this machine and waits for them.
//!
//! SIGINT and SIGTERM are passed on to the processes, which save and end; a second one kills them. No process outlives
//! the launcher, however it ends. Whether there is another attempt is for `supervise` to say.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use super::LaunchError;
use super::plan::Process;
use super::signals::Signals;
use super::triage::{Cause, Ending, RankFailure, oom_kills};
use crate::track::{RunDir, TrackError};

/// Exit code of a process that was interrupted and can be resumed.
pub const RESUMABLE: i32 = 75;

/// Time between two looks at the processes.
const POLL: Duration = Duration::from_millis(20);

/// Looks between two questions whether there was progress.
const LOOKS_PER_QUESTION: u32 = 10;

/// Time that the other processes have to end after one failed, before they are killed.
const GRACE: Duration = Duration::from_secs(10);

/// How the processes ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All ended well.
    Finished,
    /// They were asked to stop; the run can be resumed.
    Interrupted,
    /// One failed; the others were stopped.
    Failed(RankFailure),
}

/// A port at which the processes can meet: any free one, so that runs beside each other do not meet.
pub fn free_port() -> Result<u16, LaunchError> {
    let bound = std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    bound.map(|address| address.port()).map_err(|source| LaunchError::System { action: "find a free port", source })
}

/// Runs `processes` until all have ended. They are stopped when none of them shows progress for `hang_timeout`.
pub(super) fn attempt(
    run: &RunDir,
    processes: &[Process],
    signals: &Signals,
    hang_timeout: Option<Duration>,
) -> Result<Outcome, LaunchError> {
    let oom_before = oom_kills();
    let children = start(run, processes)?;
    Attempt {
        run,
        children,
        signals,
        hang_timeout,
        started: SystemTime::now(),
        oom_before,
        failures: Vec::new(),
        interrupted: false,
        stopping: false,
        kill_at: None,
        killed: false,
    }
    .wait()
}

/// A started process.
struct Running {
    rank: usize,
    child: Child,
    ended: bool,
}

/// All started processes. Those that still run are killed when it is dropped.
struct Children(Vec<Running>);

impl Children {
    fn running(&self) -> impl Iterator<Item = &Running> {
        self.0.iter().filter(|process| !process.ended)
    }

    fn signal(&self, number: i32) {
        for process in self.running() {
            // SAFETY: kill has no memory effects; the process was not waited for, so the number is still its own.
            unsafe { libc::kill(-(process.child.id() as i32), number) };
        }
    }

    /// Rank and status of a process that has ended since the last call.
    fn next_ended(&mut self) -> Result<Option<(usize, ExitStatus)>, LaunchError> {
        for process in self.0.iter_mut().filter(|process| !process.ended) {
            let status = process.child.try_wait();
            let status = status.map_err(|source| LaunchError::System { action: "wait for a process", source })?;
            if let Some(status) = status {
                process.ended = true;
                return Ok(Some((process.rank, status)));
            }
        }
        Ok(None)
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.signal(libc::SIGKILL);
        for process in &mut self.0 {
            let _ = process.child.wait();
        }
    }
}

fn start(run: &RunDir, processes: &[Process]) -> Result<Children, LaunchError> {
    let mut children = Children(Vec::new());
    for process in processes {
        children.0.push(Running { rank: process.rank, child: spawn(run, process)?, ended: false });
    }
    Ok(children)
}

/// Rank 0 shares stderr with the launcher; what the others say there goes to their log.
fn spawn(run: &RunDir, process: &Process) -> Result<Child, LaunchError> {
    let stderr = if process.rank == 0 {
        Stdio::inherit()
    } else {
        let log = run.rank_log(process.rank);
        let file = std::fs::File::options().append(true).create(true).open(&log);
        Stdio::from(file.map_err(TrackError::io("open", &log))?)
    };
    let mut command = Command::new(&process.program);
    command
        .args(&process.args)
        .envs(&process.env)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        // Its own group: Ctrl-C reaches the launcher alone, which passes it on once.
        .process_group(0);
    dies_with_this(&mut command);
    command.spawn().map_err(|source| LaunchError::Spawn {
        rank: process.rank,
        program: process.program.clone(),
        source,
    })
}

/// Has the command killed when the calling thread ends, however it ends.
pub fn dies_with_this(command: &mut Command) {
    let launcher = std::process::id() as i32;
    // SAFETY: between fork and exec only async-signal-safe calls are made, and no memory is allocated.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            // The launcher may have died before the line above took effect.
            if libc::getppid() != launcher {
                libc::_exit(1);
            }
            Ok(())
        });
    }
}

/// Processes at work, and what has been seen of them.
struct Attempt<'a> {
    run: &'a RunDir,
    children: Children,
    signals: &'a Signals,
    hang_timeout: Option<Duration>,
    started: SystemTime,
    oom_before: u64,
    /// In the order in which they were seen.
    failures: Vec<RankFailure>,
    /// A process ended as one that was asked to stop.
    interrupted: bool,
    /// The processes were told to end because one failed.
    stopping: bool,
    kill_at: Option<Instant>,
    /// They were killed by the launcher.
    killed: bool,
}

impl Attempt<'_> {
    fn wait(mut self) -> Result<Outcome, LaunchError> {
        let mut passed_on = 0;
        for look in 0u32.. {
            let received = self.signals.count();
            if received > passed_on {
                self.children.signal(if passed_on == 0 { self.signals.to_pass_on() } else { libc::SIGKILL });
                passed_on = received;
            }
            if self.kill_at.is_some_and(|at| Instant::now() >= at) {
                self.children.signal(libc::SIGKILL);
                (self.killed, self.kill_at) = (true, None);
            }
            while let Some((rank, status)) = self.children.next_ended()? {
                self.ended(rank, status);
            }
            if self.children.running().next().is_none() {
                break;
            }
            if look.is_multiple_of(LOOKS_PER_QUESTION) && !self.stopping && received == 0 {
                self.stop_when_hung();
            }
            std::thread::sleep(POLL);
        }
        let asked = self.signals.count() > 0;
        Ok(match first_cause(self.failures) {
            Some(_) if asked && self.interrupted => Outcome::Interrupted,
            Some(failure) => Outcome::Failed(failure),
            None if self.interrupted => Outcome::Interrupted,
            None => Outcome::Finished,
        })
    }

    fn ended(&mut self, rank: usize, status: ExitStatus) {
        let asked = self.signals.count() > 0;
        let consequence = match status.signal() {
            Some(libc::SIGTERM) => self.stopping,
            Some(libc::SIGKILL) => self.killed,
            _ => asked && self.interrupted,
        };
        if status.code() == Some(RESUMABLE) || (asked && status.signal().is_some()) {
            // Told to end because another failed, a process ends as one that is interrupted.
            self.interrupted |= !self.stopping;
        } else if !status.success() && !consequence {
            let ending = match status.code() {
                Some(code) => Ending::Code(code),
                None => Ending::Signal(status.signal().unwrap_or_default()),
            };
            self.failed(rank, ending);
        }
        // One that is gone leaves the others waiting for it.
        if !status.success() && !asked {
            self.stop();
        }
    }

    fn failed(&mut self, rank: usize, ending: Ending) {
        let oom = oom_kills() > self.oom_before;
        self.failures.push(RankFailure::read(rank, ending, &self.run.rank_log(rank), oom));
    }

    /// Tells the others to end, once; after a while they are killed.
    fn stop(&mut self) {
        if !self.stopping {
            self.stopping = true;
            self.children.signal(libc::SIGTERM);
            self.kill_at = Some(Instant::now() + GRACE);
        }
    }

    /// Progress is a beat of the heart of any rank, or a line in its log: a rank that waits for a hung one does not beat
    /// either, so the one that has been silent the longest is named.
    fn stop_when_hung(&mut self) {
        let Some(limit) = self.hang_timeout else { return };
        let silent_for = |rank: usize| {
            let files = [self.run.rank_alive(rank), self.run.rank_log(rank)];
            let times = files.iter().filter_map(|file| file.metadata().and_then(|m| m.modified()).ok());
            let last = times.max().map_or(self.started, |time| time.max(self.started));
            last.elapsed().unwrap_or_default()
        };
        let silent: Vec<(Duration, usize)> =
            self.children.running().map(|process| (silent_for(process.rank), process.rank)).collect();
        if silent.iter().any(|(time, _)| *time < limit) {
            return;
        }
        // Of equally silent ones the first rank.
        let longest = silent.into_iter().max_by_key(|(time, rank)| (*time, std::cmp::Reverse(*rank)));
        if let Some((time, rank)) = longest {
            self.failed(rank, Ending::Hung(time.as_secs()));
            self.stop();
        }
    }
}

/// The failure that brought the others about: the first one seen that is not the loss of a peer.
fn first_cause(failures: Vec<RankFailure>) -> Option<RankFailure> {
    let origin = failures.iter().position(|failure| failure.cause != Cause::Network).unwrap_or(0);
    failures.into_iter().nth(origin)
}
