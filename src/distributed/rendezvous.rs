//! Who this process is and where the others are: the variables that torchrun and other schedulers set, read from a map.
//!
//! Without `WORLD_SIZE` it is alone. The token tells the ranks of one attempt of one run from everything else that may
//! knock at the port.

use std::collections::BTreeMap;
use std::time::Duration;

use super::collective::{Collective, CollectiveError, Single};
use super::loopback::Loopback;

/// What carries the messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Embedded; one machine.
    Loopback,
    /// PyTorch's process group over TCP; any number of machines. Needs the feature `tch`.
    Gloo,
    /// The same with NCCL between GPUs: this rank computes on the GPU of this number.
    Nccl(usize),
}

/// A variable that is missing or makes no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("environment variable {name} is {found}, expected {expected}\n  help: {help}")]
pub struct RendezvousError {
    /// The variable.
    pub name: &'static str,
    /// What it is.
    pub found: String,
    /// What it should be.
    pub expected: String,
    /// What to do.
    pub help: String,
}

/// A place in a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendezvous {
    /// This process, `0..world_size`.
    pub rank: usize,
    /// Number of processes.
    pub world_size: usize,
    /// This process among those of its machine.
    pub local_rank: usize,
    /// Where rank 0 can be reached.
    pub master_addr: String,
    /// Port of rank 0.
    pub master_port: u16,
    /// Of this attempt of this run; ranks with another are refused.
    pub token: String,
    /// How long ranks wait for each other.
    pub timeout: Duration,
}

impl Rendezvous {
    /// Reads `RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `MASTER_ADDR` and `MASTER_PORT`. Absent `RANK` and `WORLD_SIZE` mean a group
    /// of one.
    pub fn from_variables(
        variables: &BTreeMap<String, String>,
        token: String,
        timeout: Duration,
    ) -> Result<Self, RendezvousError> {
        let number = |name: &'static str, default: Option<usize>| {
            let (found, text) = match variables.get(name) {
                Some(text) => (format!("`{text}`"), text.as_str()),
                None => match default {
                    Some(default) => return Ok(default),
                    None => ("not set".to_owned(), ""),
                },
            };
            let help = format!("set {name} to a number; without WORLD_SIZE a process is alone");
            text.parse::<usize>().map_err(|_| RendezvousError { name, found, expected: "a number".into(), help })
        };
        let world_size = number("WORLD_SIZE", Some(1))?;
        let alone = world_size == 1;
        let rank = number("RANK", alone.then_some(0))?;
        let local_rank = number("LOCAL_RANK", Some(rank))?;
        let port = number("MASTER_PORT", alone.then_some(0))?;
        if world_size == 0 {
            let help = "set it to the number of processes".into();
            return Err(RendezvousError {
                name: "WORLD_SIZE",
                found: "`0`".into(),
                expected: "1 or more".into(),
                help,
            });
        }
        if rank >= world_size {
            let expected = format!("less than WORLD_SIZE = {world_size}");
            let help = "ranks count from 0".into();
            return Err(RendezvousError { name: "RANK", found: format!("`{rank}`"), expected, help });
        }
        let Ok(master_port) = u16::try_from(port) else {
            let help = "use a free port above 1023".into();
            let (found, expected) = (format!("`{port}`"), "a port, at most 65535".into());
            return Err(RendezvousError { name: "MASTER_PORT", found, expected, help });
        };
        let master_addr = match variables.get("MASTER_ADDR").filter(|text| !text.is_empty()) {
            Some(text) => text.clone(),
            None if alone => "127.0.0.1".into(),
            None => {
                let help = "set it to 127.0.0.1, or to the name of the machine of rank 0".into();
                let (found, expected) = ("not set".into(), "the machine of rank 0".into());
                return Err(RendezvousError { name: "MASTER_ADDR", found, expected, help });
            }
        };
        Ok(Self { rank, world_size, local_rank, master_addr, master_port, token, timeout })
    }

    /// Joins the group; returns when all ranks are there.
    pub fn join(&self, transport: Transport) -> Result<Box<dyn Collective>, CollectiveError> {
        if self.world_size == 1 {
            return Ok(Box::new(Single));
        }
        match transport {
            Transport::Loopback => Ok(Box::new(Loopback::join(self)?)),
            #[cfg(feature = "tch")]
            Transport::Gloo => Ok(Box::new(super::c10d::C10d::join(self, None)?)),
            #[cfg(feature = "tch")]
            Transport::Nccl(gpu) => Ok(Box::new(super::c10d::C10d::join(self, Some(gpu))?)),
            #[cfg(not(feature = "tch"))]
            Transport::Gloo | Transport::Nccl(_) => Err(CollectiveError::NotJoined {
                rank: self.rank,
                address: format!("{}:{}", self.master_addr, self.master_port),
                reason: "this binary was built without LibTorch, which carries Gloo and NCCL".into(),
            }),
        }
    }
}
