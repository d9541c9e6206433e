//! The embedded transport: the ranks of one machine over 127.0.0.1, through rank 0.
//!
//! Sums are formed on rank 0 in the order of the ranks, so that they have the same bits in every run. Rank 0 tells the
//! others when it loses a peer. Other machines are refused; they are for `C10d`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::collective::{Collective, CollectiveError};
use super::rendezvous::Rendezvous;
use super::wire::{Kind, MAX_TEXT, Wire, WireError};

/// Time between two tries to reach rank 0, or to find a caller.
const RETRY: Duration = Duration::from_millis(5);

/// Time that a caller has to say who it is.
const HELLO_TIME: Duration = Duration::from_secs(5);

/// Time that rank 0 waits for its port.
const BIND_TIME: Duration = Duration::from_secs(10);

/// Time that rank 0 takes to tell a peer that it gives up.
const ABORT_TIME: Duration = Duration::from_secs(1);

/// For work whose length nobody knows: a year. The end of a process is noticed at once all the same.
const NO_LIMIT: Duration = Duration::from_secs(365 * 24 * 3600);

/// Longest entry of a gather.
const MAX_GATHERED: u64 = 1 << 32;

/// The ranks of one machine.
#[derive(Debug)]
pub struct Loopback {
    rank: usize,
    world_size: usize,
    timeout: Duration,
    /// Number of the next operation.
    number: u64,
    /// Rank 0: the others, from rank 1 on. Others: rank 0.
    peers: Vec<Wire>,
}

impl Loopback {
    /// Joins the group; returns when all ranks are there.
    ///
    /// # Errors
    /// An address of another machine; ranks that do not come in time; a rank 0 that belongs to another run.
    pub fn join(rendezvous: &Rendezvous) -> Result<Self, CollectiveError> {
        let Rendezvous { rank, world_size, timeout, .. } = *rendezvous;
        let address = loopback_address(rendezvous)?;
        let deadline = Instant::now() + timeout;
        let hello = format!("{}\n{}", rendezvous.token, world_size);
        let peers = match rank {
            0 => host(address, world_size, &hello, deadline),
            _ => call(address, rank, &hello, deadline).map(|wire| vec![wire]),
        };
        match peers {
            Ok(peers) => Ok(Self { rank, world_size, timeout, number: 0, peers }),
            Err(reason) => Err(CollectiveError::NotJoined { rank, address: address.to_string(), reason }),
        }
    }

    fn begin(&mut self) -> (u64, Instant) {
        self.number += 1;
        (self.number, Instant::now() + self.timeout)
    }

    /// The error for a failed exchange with the peer at `index`; rank 0 tells the others.
    fn lost(&mut self, index: usize, operation: &'static str, error: &WireError) -> CollectiveError {
        let peer = if self.rank == 0 { index + 1 } else { 0 };
        // What rank 0 says names the rank that is gone; it may have said so while this one was sending.
        let said = match error {
            WireError::Aborted(reason) => Some(reason.clone()),
            WireError::Io(_) if self.rank > 0 => {
                match self.peers[0].receive(Kind::Abort, 0, MAX_TEXT, Instant::now() + ABORT_TIME) {
                    Err(WireError::Aborted(reason)) => Some(reason),
                    _ => None,
                }
            }
            _ => None,
        };
        let reason = said.unwrap_or_else(|| format!("rank {peer}: {error}"));
        if self.rank == 0 {
            for other in self.peers.iter_mut().enumerate().filter(|(at, _)| *at != index).map(|(_, wire)| wire) {
                // Best effort: a peer that cannot be told notices when this process ends.
                let _ = other.send(Kind::Abort, 0, reason.as_bytes(), Instant::now() + ABORT_TIME);
            }
        }
        CollectiveError::Lost { rank: self.rank, operation, reason }
    }
}

impl Collective for Loopback {
    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    fn all_reduce_mean(&mut self, values: &mut [f32]) -> Result<(), CollectiveError> {
        const NAME: &str = "all-reduce";
        let (number, deadline) = self.begin();
        if self.rank > 0 {
            let bytes = as_bytes(values);
            let sent = self.peers[0].send(Kind::AllReduce, number, bytes, deadline);
            let done =
                sent.and_then(|()| self.peers[0].receive_into(Kind::AllReduce, number, as_bytes_mut(values), deadline));
            return done.map_err(|error| self.lost(0, NAME, &error));
        }
        let mut other = vec![0f32; values.len()];
        for index in 0..self.peers.len() {
            self.peers[index]
                .receive_into(Kind::AllReduce, number, as_bytes_mut(&mut other), deadline)
                .map_err(|error| self.lost(index, NAME, &error))?;
            values.iter_mut().zip(&other).for_each(|(sum, value)| *sum += value);
        }
        let count = self.world_size as f32;
        values.iter_mut().for_each(|sum| *sum /= count);
        for index in 0..self.peers.len() {
            self.peers[index]
                .send(Kind::AllReduce, number, as_bytes(values), deadline)
                .map_err(|error| self.lost(index, NAME, &error))?;
        }
        Ok(())
    }

    fn broadcast(&mut self, values: &mut [f32], root: usize) -> Result<(), CollectiveError> {
        const NAME: &str = "broadcast";
        let (number, deadline) = self.begin();
        if self.rank > 0 {
            let done = if self.rank == root {
                self.peers[0].send(Kind::Broadcast, number, as_bytes(values), deadline)
            } else {
                self.peers[0].receive_into(Kind::Broadcast, number, as_bytes_mut(values), deadline)
            };
            return done.map_err(|error| self.lost(0, NAME, &error));
        }
        if root > 0 {
            self.peers[root - 1]
                .receive_into(Kind::Broadcast, number, as_bytes_mut(values), deadline)
                .map_err(|error| self.lost(root - 1, NAME, &error))?;
        }
        for index in (0..self.peers.len()).filter(|index| index + 1 != root) {
            self.peers[index]
                .send(Kind::Broadcast, number, as_bytes(values), deadline)
                .map_err(|error| self.lost(index, NAME, &error))?;
        }
        Ok(())
    }

    fn gather_bytes(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        const NAME: &str = "gather";
        let (number, deadline) = self.begin();
        if self.rank > 0 {
            let sent = self.peers[0].send(Kind::Gather, number, bytes, deadline);
            sent.map_err(|error| self.lost(0, NAME, &error))?;
            let mut all = Vec::with_capacity(self.world_size);
            for _ in 0..self.world_size {
                let one = self.peers[0].receive(Kind::Gather, number, MAX_GATHERED, deadline);
                all.push(one.map_err(|error| self.lost(0, NAME, &error))?);
            }
            return Ok(all);
        }
        let mut all = vec![bytes.to_vec()];
        for index in 0..self.peers.len() {
            let one = self.peers[index].receive(Kind::Gather, number, MAX_GATHERED, deadline);
            all.push(one.map_err(|error| self.lost(index, NAME, &error))?);
        }
        for index in 0..self.peers.len() {
            for one in &all {
                let sent = self.peers[index].send(Kind::Gather, number, one, deadline);
                sent.map_err(|error| self.lost(index, NAME, &error))?;
            }
        }
        Ok(all)
    }

    fn wait_for_rank_0(&mut self) -> Result<(), CollectiveError> {
        const NAME: &str = "the wait for rank 0";
        let (number, deadline) = self.begin();
        if self.rank > 0 {
            let done = self.peers[0].receive(Kind::Done, number, 0, Instant::now() + NO_LIMIT);
            return done.map(|_| ()).map_err(|error| self.lost(0, NAME, &error));
        }
        for index in 0..self.peers.len() {
            let sent = self.peers[index].send(Kind::Done, number, &[], deadline);
            sent.map_err(|error| self.lost(index, NAME, &error))?;
        }
        Ok(())
    }
}

/// The address, which must be this machine's loopback.
fn loopback_address(rendezvous: &Rendezvous) -> Result<SocketAddr, CollectiveError> {
    let name = rendezvous.master_addr.as_str();
    let ip = match name {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        name => name.parse::<IpAddr>().ok(),
    };
    match ip.filter(IpAddr::is_loopback) {
        Some(ip) => Ok(SocketAddr::new(ip, rendezvous.master_port)),
        None => Err(CollectiveError::NotLoopback { address: name.to_owned() }),
    }
}

/// Rank 0: waits for all others. Whoever calls with another token, or not in this language, is turned away.
fn host(address: SocketAddr, world_size: usize, hello: &str, deadline: Instant) -> Result<Vec<Wire>, String> {
    let mut peers: Vec<Option<Wire>> = (1..world_size).map(|_| None).collect();
    if peers.is_empty() {
        return Ok(Vec::new());
    }
    // The port may still be held by a rank of an earlier attempt that is about to end.
    let patience = deadline.min(Instant::now() + BIND_TIME);
    let listener = loop {
        match TcpListener::bind(address) {
            Ok(listener) => break listener,
            Err(error) if Instant::now() >= patience => return Err(format!("cannot listen there: {error}")),
            Err(_) => std::thread::sleep(RETRY),
        }
    };
    listener.set_nonblocking(true).map_err(|error| format!("cannot listen there: {error}"))?;
    let mut turned_away = None;
    while peers.iter().any(Option::is_none) {
        match listener.accept() {
            Ok((stream, _)) => match greet(stream, hello, &mut peers, deadline) {
                Ok(()) => {}
                Err(reason) => turned_away = Some(reason),
            },
            Err(_) if Instant::now() >= deadline => {
                let absent = peers.iter().enumerate().filter(|(_, peer)| peer.is_none());
                let absent: Vec<String> = absent.map(|(index, _)| (index + 1).to_string()).collect();
                let noun = if absent.len() == 1 { "rank" } else { "ranks" };
                let note = turned_away.map_or_else(String::new, |reason| format!("; turned away: {reason}"));
                return Err(format!("{noun} {} did not come in time{note}", absent.join(", ")));
            }
            Err(_) => std::thread::sleep(RETRY),
        }
    }
    let mut wires: Vec<Wire> = peers.into_iter().flatten().collect();
    for (index, wire) in wires.iter_mut().enumerate() {
        let sent = wire.send(Kind::Welcome, 0, &[], deadline);
        sent.map_err(|error| format!("rank {}: {error}", index + 1))?;
    }
    Ok(wires)
}

/// Hears a caller's hello; one that is refused is told why.
fn greet(stream: TcpStream, hello: &str, peers: &mut [Option<Wire>], deadline: Instant) -> Result<(), String> {
    let mut wire = Wire::new(stream).map_err(|error| error.to_string())?;
    let soon = deadline.min(Instant::now() + HELLO_TIME);
    let said = wire.receive(Kind::Hello, 0, MAX_TEXT, soon).map_err(|error| format!("a caller: {error}"))?;
    let said = String::from_utf8_lossy(&said).into_owned();
    let (rank, theirs) = said.split_once('\n').unwrap_or_default();
    let refusal = match rank.parse::<usize>() {
        _ if theirs != hello => Some("it belongs to another run, attempt or number of ranks".to_owned()),
        Ok(rank) if (1..=peers.len()).contains(&rank) => match &mut peers[rank - 1] {
            Some(_) => Some(format!("rank {rank} is there already")),
            place => {
                *place = Some(wire);
                return Ok(());
            }
        },
        _ => Some(format!("there is no rank `{rank}`")),
    };
    let refusal = refusal.unwrap_or_default();
    let _ = wire.send(Kind::Welcome, 0, refusal.as_bytes(), soon);
    Err(refusal)
}

/// Another rank: reaches rank 0, says who it is, waits to be let in.
fn call(address: SocketAddr, rank: usize, hello: &str, deadline: Instant) -> Result<Wire, String> {
    let text = format!("{rank}\n{hello}");
    loop {
        let connected = TcpStream::connect_timeout(&address, Duration::from_secs(1)).and_then(Wire::new);
        let answer = connected.map_err(WireError::Io).and_then(|mut wire| {
            wire.send(Kind::Hello, 0, text.as_bytes(), deadline)?;
            let answer = wire.receive(Kind::Welcome, 0, MAX_TEXT, deadline)?;
            Ok((wire, answer))
        });
        match answer {
            Ok((wire, answer)) if answer.is_empty() => return Ok(wire),
            Ok((_, answer)) => return Err(format!("refused: {}", String::from_utf8_lossy(&answer))),
            // Rank 0 is not there yet, or was one of an earlier attempt that has just ended.
            Err(error) if Instant::now() >= deadline => return Err(format!("rank 0: {error}")),
            Err(_) => std::thread::sleep(RETRY),
        }
    }
}

/// Floats as the bytes of this machine: both ends are the same one.
fn as_bytes(values: &[f32]) -> &[u8] {
    // SAFETY: every f32 is four initialised bytes, and u8 has no alignment.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

fn as_bytes_mut(values: &mut [f32]) -> &mut [u8] {
    // SAFETY: as above; every bit pattern is a valid f32.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}
