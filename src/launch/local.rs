//! Runs the processes of a plan on this machine and waits for them.
//!
//! SIGINT and SIGTERM are passed on to the processes, which save and end; a second one kills them. No process outlives
//! the launcher, however it ends. Nothing is restarted here: the same command run again resumes.

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::LaunchError;
use super::plan::Process;
use crate::track::{Entry, Journal, RunDir, State, TrackError, tail};

/// Exit code of a process that was interrupted and can be resumed.
pub const RESUMABLE: i32 = 75;

/// Time between two looks at the processes.
const POLL: Duration = Duration::from_millis(20);

/// Time that the other processes have to end after one failed, before they are killed.
const GRACE: Duration = Duration::from_secs(10);

/// Lines of the rank log that a failure quotes.
const QUOTED_LINES: usize = 12;

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

/// The first process that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankFailure {
    /// Its rank.
    pub rank: usize,
    /// How it ended.
    pub ending: Ending,
    /// Its log file.
    pub log: PathBuf,
    /// The last lines of its log.
    pub last_lines: Vec<String>,
}

/// How a process ended that did not end well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Exit code.
    Code(i32),
    /// Number of the signal that killed it.
    Signal(i32),
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "ended with exit code {code}"),
            Self::Signal(number) => match signal_name(*number) {
                Some(name) => write!(f, "was killed by signal {number} ({name})"),
                None => write!(f, "was killed by signal {number}"),
            },
        }
    }
}

impl std::fmt::Display for RankFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "rank {} {}", self.rank, self.ending)?;
        if !self.last_lines.is_empty() {
            write!(f, "; last lines of {}:", self.log.display())?;
            let lines = self.last_lines.iter().flat_map(|line| line.lines());
            lines.into_iter().try_for_each(|line| write!(f, "\n    {line}"))?;
        }
        Ok(())
    }
}

/// Runs `processes` in the folder `run` until all have ended. The changes of state go to the journal; a folder that
/// another runner holds is refused. The calling thread must live as long as the program: the processes die with it.
pub fn run(run: &RunDir, processes: &[Process]) -> Result<Outcome, LaunchError> {
    let _held = run.hold()?;
    let journal = Journal::open(&run.journal_file())?;
    let signals = Signals::watch()?;
    record(&journal, State::Running, format!("process {}", std::process::id()))?;
    let outcome = match start(run, processes) {
        Ok(children) => wait(run, children, &signals),
        Err(error) => Err(error),
    };
    match &outcome {
        Ok(Outcome::Finished) => record(&journal, State::Finished, String::new())?,
        Ok(Outcome::Interrupted) => record(&journal, State::Interrupted, String::new())?,
        Ok(Outcome::Failed(failure)) => {
            record(&journal, State::Failed, format!("rank {} {}", failure.rank, failure.ending))?;
        }
        Err(error) => record(&journal, State::Failed, error.to_string())?,
    }
    outcome
}

/// A port at which the processes can meet: `preferred` when it is free, else any.
pub fn free_port(preferred: u16) -> Result<u16, LaunchError> {
    let bound = std::net::TcpListener::bind(("127.0.0.1", preferred))
        .or_else(|_| std::net::TcpListener::bind(("127.0.0.1", 0)))
        .and_then(|listener| listener.local_addr());
    bound.map(|address| address.port()).map_err(|source| LaunchError::System { action: "find a free port", source })
}

fn record(journal: &Journal, state: State, detail: String) -> Result<(), TrackError> {
    journal.append(&Entry::state(state, detail))?;
    journal.sync()
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
    command.spawn().map_err(|source| LaunchError::Spawn {
        rank: process.rank,
        program: process.program.clone(),
        source,
    })
}

fn wait(run: &RunDir, mut children: Children, signals: &Signals) -> Result<Outcome, LaunchError> {
    let mut passed_on = 0;
    let mut interrupted = false;
    let mut failure: Option<RankFailure> = None;
    let mut kill_at: Option<Instant> = None;
    loop {
        let received = signals.count();
        if received > passed_on {
            children.signal(if passed_on == 0 { signals.to_pass_on() } else { libc::SIGKILL });
            passed_on = received;
        }
        if kill_at.is_some_and(|at| Instant::now() >= at) {
            children.signal(libc::SIGKILL);
            kill_at = None;
        }
        while let Some((rank, status)) = children.next_ended()? {
            let asked = signals.count() > 0;
            if status.code() == Some(RESUMABLE) || (asked && status.signal().is_some()) {
                interrupted = true;
            } else if !status.success() && !interrupted && failure.is_none() {
                failure = Some(rank_failure(run, rank, status));
                kill_at = Some(Instant::now() + GRACE);
            }
            // One that is gone leaves the others waiting for it.
            if !status.success() && !asked {
                children.signal(libc::SIGTERM);
            }
        }
        if children.running().next().is_none() {
            break;
        }
        std::thread::sleep(POLL);
    }
    Ok(match failure {
        Some(_) if interrupted && signals.count() > 0 => Outcome::Interrupted,
        Some(failure) => Outcome::Failed(failure),
        None if interrupted => Outcome::Interrupted,
        None => Outcome::Finished,
    })
}

fn rank_failure(run: &RunDir, rank: usize, status: ExitStatus) -> RankFailure {
    let ending = match status.code() {
        Some(code) => Ending::Code(code),
        None => Ending::Signal(status.signal().unwrap_or_default()),
    };
    let log = run.rank_log(rank);
    let last_lines = tail(&log, QUOTED_LINES);
    RankFailure { rank, ending, log, last_lines }
}

/// SIGINT, SIGTERM and SIGHUP, counted while it lives instead of ending the program.
struct Signals {
    previous: Vec<(i32, libc::sigaction)>,
}

/// The handler can reach nothing but statics.
static RECEIVED: AtomicUsize = AtomicUsize::new(0);
static LAST: AtomicI32 = AtomicI32::new(0);

extern "C" fn on_signal(number: i32) {
    LAST.store(number, Ordering::SeqCst);
    RECEIVED.fetch_add(1, Ordering::SeqCst);
}

impl Signals {
    fn watch() -> Result<Self, LaunchError> {
        RECEIVED.store(0, Ordering::SeqCst);
        let mut signals = Self { previous: Vec::new() };
        for number in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            // SAFETY: a zeroed sigaction is valid; the handler only touches atomics, which is async-signal-safe.
            unsafe {
                let mut old: libc::sigaction = std::mem::zeroed();
                let mut new: libc::sigaction = std::mem::zeroed();
                new.sa_sigaction = on_signal as extern "C" fn(i32) as libc::sighandler_t;
                new.sa_flags = libc::SA_RESTART;
                if libc::sigaction(number, &new, &mut old) != 0 {
                    let source = std::io::Error::last_os_error();
                    return Err(LaunchError::System { action: "watch for signals", source });
                }
                signals.previous.push((number, old));
            }
        }
        Ok(signals)
    }

    fn count(&self) -> usize {
        RECEIVED.load(Ordering::SeqCst)
    }

    /// The signal for the processes: a closed terminal asks them to end like SIGTERM does.
    fn to_pass_on(&self) -> i32 {
        match LAST.load(Ordering::SeqCst) {
            libc::SIGINT => libc::SIGINT,
            _ => libc::SIGTERM,
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for (number, old) in &self.previous {
            // SAFETY: `old` is what sigaction returned for this signal.
            unsafe { libc::sigaction(*number, old, std::ptr::null_mut()) };
        }
    }
}

fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGILL => "SIGILL, an instruction this processor lacks",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL, often the kernel when memory ran out",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGTERM => "SIGTERM",
        _ => return None,
    })
}
