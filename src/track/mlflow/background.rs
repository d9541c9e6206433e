//! The sink on a thread beside a run: looks for new lines of the journal, tries again after failures, ends when told to.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Artifact, MlflowError, Sink};
use crate::track::TrackError;

/// Time between two looks into the journal.
const LOOK: Duration = Duration::from_secs(1);

/// Longest time between two attempts after failures; the first comes after a second, each further one after twice the time.
const LONGEST: Duration = Duration::from_secs(60);

/// Time at the end of the run for what the server does not have yet.
const FAREWELL: Duration = Duration::from_secs(20);

/// Which files there are, asked at the end.
pub type Files = Box<dyn FnOnce() -> Result<Vec<Artifact>, TrackError> + Send>;

/// A sink at work.
pub struct Background {
    stop: Sender<()>,
    thread: JoinHandle<Result<(), MlflowError>>,
}

impl Background {
    /// Starts the thread. `files` are uploaded at the end.
    pub fn start(sink: Sink, files: Files) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let thread = std::thread::Builder::new().name("mlflow".into()).spawn(move || work(sink, files, &stopped))?;
        Ok(Self { stop, thread })
    }

    /// Sends what is left, for 20 s at most and only while the server takes it; the error says why something is left.
    pub fn finish(self) -> Result<(), MlflowError> {
        // A thread that gave up before has no ear for it.
        let _ = self.stop.send(());
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn work(mut sink: Sink, files: Files, stopped: &Receiver<()>) -> Result<(), MlflowError> {
    let mut wait = LOOK;
    loop {
        wait = match sink.drain() {
            Ok(()) => LOOK,
            Err(error) if error.is_passing() => {
                tracing::debug!("{error}");
                (wait * 2).min(LONGEST)
            }
            // Nothing that waiting would mend.
            Err(error) => return Err(error),
        };
        match stopped.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    sink.set_deadline(Instant::now() + FAREWELL);
    sink.drain()?;
    sink.upload(&files()?).map(drop)
}
