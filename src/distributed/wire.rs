//! Messages of the embedded transport over one TCP connection: a header, then so many bytes, before a deadline.
//!
//! A message says which operation it belongs to and its number, so that ranks that are not at the same place notice.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// What a message belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// First message of a peer: token, rank, number of ranks.
    Hello = 1,
    /// Answer to it: empty, or the reason of a refusal.
    Welcome = 2,
    /// Values of a mean.
    AllReduce = 3,
    /// Values of a broadcast.
    Broadcast = 4,
    /// Bytes of a gather.
    Gather = 5,
    /// The sender gives up; the reason in words.
    Abort = 6,
    /// Rank 0 has done what the others wait for.
    Done = 7,
}

/// Header: kind, number of the operation, length of what follows.
const HEADER: usize = 1 + 8 + 8;

/// Longest text of a hello, a welcome or an abort.
pub const MAX_TEXT: u64 = 4096;

/// A connection to one peer.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
}

/// Why a message did not come or go.
#[derive(Debug)]
pub enum WireError {
    /// The connection failed, or time ran out.
    Io(io::Error),
    /// The peer gave up and said why.
    Aborted(String),
    /// The peer is at another operation.
    OutOfStep(String),
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe => f.write_str("it ended, and its connection with it"),
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => f.write_str("no answer in time"),
                _ => write!(f, "{error}"),
            },
            Self::Aborted(reason) => write!(f, "it gave up: {reason}"),
            Self::OutOfStep(reason) => f.write_str(reason),
        }
    }
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Wire {
    /// Takes a connection over.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream })
    }

    /// Sends one message.
    pub fn send(&mut self, kind: Kind, number: u64, bytes: &[u8], deadline: Instant) -> Result<(), WireError> {
        let mut header = [0; HEADER];
        header[0] = kind as u8;
        header[1..9].copy_from_slice(&number.to_le_bytes());
        header[9..].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.write_all(&header, deadline)?;
        Ok(self.write_all(bytes, deadline)?)
    }

    /// Receives the message `kind`, `number` into `buffer`, which it must fill.
    pub fn receive_into(
        &mut self,
        kind: Kind,
        number: u64,
        buffer: &mut [u8],
        deadline: Instant,
    ) -> Result<(), WireError> {
        let length = self.header(kind, number, deadline)?;
        if length != buffer.len() as u64 {
            let reason =
                format!("it sent {length} bytes, expected {}: the ranks are not at the same place", buffer.len());
            return Err(WireError::OutOfStep(reason));
        }
        Ok(self.read_exact(buffer, deadline)?)
    }

    /// Receives the message `kind`, `number`, of `longest` bytes at most.
    pub fn receive(&mut self, kind: Kind, number: u64, longest: u64, deadline: Instant) -> Result<Vec<u8>, WireError> {
        let length = self.header(kind, number, deadline)?;
        self.body(length, longest, deadline)
    }

    fn body(&mut self, length: u64, longest: u64, deadline: Instant) -> Result<Vec<u8>, WireError> {
        if length > longest {
            return Err(WireError::OutOfStep(format!("it sent {length} bytes, at most {longest} are possible")));
        }
        let mut bytes = vec![0; length as usize];
        self.read_exact(&mut bytes, deadline)?;
        Ok(bytes)
    }

    /// Length of the next message, which must be `kind`, `number`.
    fn header(&mut self, kind: Kind, number: u64, deadline: Instant) -> Result<u64, WireError> {
        let mut header = [0; HEADER];
        self.read_exact(&mut header, deadline)?;
        let eight = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&header[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let (found, length) = (eight(1), eight(9));
        if header[0] == Kind::Abort as u8 {
            let reason = self.body(length, MAX_TEXT, deadline)?;
            return Err(WireError::Aborted(String::from_utf8_lossy(&reason).into_owned()));
        }
        if header[0] != kind as u8 || found != number {
            let reason = format!(
                "it is at message {found} of kind {}, expected {number} of kind {}: the ranks are not at the same place",
                header[0], kind as u8
            );
            return Err(WireError::OutOfStep(reason));
        }
        Ok(length)
    }

    fn write_all(&mut self, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            self.stream.set_write_timeout(Some(remaining(deadline)?))?;
            match self.stream.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::BrokenPipe.into()),
                Ok(n) => bytes = &bytes[n..],
                Err(error) if again(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read_exact(&mut self, mut buffer: &mut [u8], deadline: Instant) -> io::Result<()> {
        while !buffer.is_empty() {
            self.stream.set_read_timeout(Some(remaining(deadline)?))?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => buffer = &mut buffer[n..],
                Err(error) if again(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Whether to look at the clock and try again: a signal came, or the time of one call was up.
fn again(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Time until `deadline`, never zero (which would mean no limit).
fn remaining(deadline: Instant) -> io::Result<Duration> {
    match deadline.checked_duration_since(Instant::now()) {
        Some(left) if !left.is_zero() => Ok(left.max(Duration::from_millis(1))),
        _ => Err(io::ErrorKind::TimedOut.into()),
    }
}
