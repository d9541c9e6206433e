//! The embedded transport: ranks as threads of the test, over 127.0.0.1; what each operation gives, and that a lost, late
//! or foreign peer is an error that names it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use burn::tensor::{Device, Tensor};
use vlp::distributed::{
    Bucket, Collective, CollectiveError, Loopback, Rendezvous, Transport, broadcast_all, union_of, verify_end,
    verify_equal,
};
use vlp::model::host_values;

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn place(rank: usize, world_size: usize, port: u16) -> Rendezvous {
    Rendezvous {
        rank,
        world_size,
        local_rank: rank,
        master_addr: "127.0.0.1".into(),
        master_port: port,
        token: "run-1".into(),
        timeout: Duration::from_secs(30),
    }
}

/// What `work` returns on each rank of a group of `world_size`.
fn group<T: Send>(world_size: usize, work: impl Fn(&mut dyn Collective) -> T + Sync) -> Vec<T> {
    let port = free_port();
    std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..world_size)
            .map(|rank| {
                let work = &work;
                scope.spawn(move || work(&mut *place(rank, world_size, port).join(Transport::Loopback).unwrap()))
            })
            .collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

/// The mean of each vector over all ranks, exchanged in buckets of tensors on `device`.
fn means(
    group: &mut dyn Collective,
    vectors: BTreeMap<String, Vec<f32>>,
    device: &Device,
    bf16: bool,
) -> Result<BTreeMap<String, Vec<f32>>, CollectiveError> {
    let tensor = |values: Vec<f32>| Tensor::<1>::from_data(values.as_slice(), device);
    let buckets = Bucket::pack(vectors.into_iter().map(|(name, values)| (name, tensor(values))).collect());
    let count = buckets.len();
    let mut means = BTreeMap::new();
    for bucket in buckets {
        let mean = bucket.all_reduce_mean(group, bf16)?;
        means.extend(mean.into_iter().map(|(name, values)| (name, host_values(values))));
    }
    verify_end(group, count)?;
    Ok(means)
}

/// Values without a short binary form, so that the order of additions shows in the last bit.
fn values(rank: usize, count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7 + rank * 13) % 101) as f32 / 3.0 + 0.1).collect()
}

#[test]
fn the_mean_is_summed_in_the_order_of_ranks() {
    for world_size in 2..=4 {
        let found = group(world_size, |group| {
            let mut mine = values(group.rank(), 100_003);
            group.all_reduce_mean(&mut mine).unwrap();
            mine
        });
        let all: Vec<Vec<f32>> = (0..world_size).map(|rank| values(rank, 100_003)).collect();
        let expected: Vec<f32> =
            (0..100_003).map(|i| all.iter().skip(1).fold(all[0][i], |sum, v| sum + v[i]) / world_size as f32).collect();
        for (rank, found) in found.iter().enumerate() {
            assert!(*found == expected, "rank {rank} of {world_size}");
        }
    }
}

#[test]
fn broadcast_gather_and_barrier() {
    let found = group(4, |group| {
        let rank = group.rank();
        let mut from_two = values(rank, 1000);
        group.broadcast(&mut from_two, 2).unwrap();
        let mut from_zero = values(rank, 10);
        group.broadcast(&mut from_zero, 0).unwrap();
        group.barrier().unwrap();
        let numbers = group.gather(rank as f64 / 3.0).unwrap();
        let texts = group.gather_bytes("x".repeat(rank).as_bytes()).unwrap();
        let flags = [union_of(group, [0, 1, 0, 4][rank]).unwrap(), union_of(group, 0).unwrap()];
        (from_two, from_zero, numbers, texts, flags)
    });
    for (from_two, from_zero, numbers, texts, flags) in found {
        assert_eq!(from_two, values(2, 1000));
        assert_eq!(from_zero, values(0, 10));
        assert_eq!(numbers, [0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0]);
        assert_eq!(texts, ["", "x", "xx", "xxx"].map(|t| t.as_bytes().to_vec()));
        assert_eq!(flags, [5, 0]);
    }
}

#[test]
fn a_barrier_waits_for_the_last() {
    let started = Instant::now();
    let left = group(3, |group| {
        if group.rank() == 1 {
            std::thread::sleep(Duration::from_millis(300));
        }
        group.barrier().unwrap();
        started.elapsed()
    });
    assert!(left.iter().all(|left| *left >= Duration::from_millis(300)), "{left:?}");
}

#[test]
fn work_of_rank_0_alone_has_no_time_limit() {
    let port = free_port();
    let short = |rank| Rendezvous { timeout: Duration::from_millis(700), ..place(rank, 3, port) };
    let work = |rank: usize| {
        let mut group = Loopback::join(&short(rank)).unwrap();
        if rank == 0 {
            std::thread::sleep(Duration::from_millis(1500)); // twice as long as ranks wait for each other
        }
        group.wait_for_rank_0().unwrap();
        group.gather(rank as f64).unwrap()
    };
    std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..3).map(|rank| scope.spawn(move || work(rank))).collect();
        for rank in ranks {
            assert_eq!(rank.join().unwrap(), [0.0, 1.0, 2.0]);
        }
    });
}

#[test]
fn named_vectors_travel_in_buckets() {
    // The first is larger than a bucket; the others share one.
    let make = |rank: usize| -> BTreeMap<String, Vec<f32>> {
        [("a", vlp::distributed::BUCKET_FLOATS + 5), ("b", 3), ("c", 0), ("d", 1000)]
            .map(|(name, count)| (name.to_owned(), values(rank, count)))
            .into()
    };
    let found = group(2, |group| {
        let (own, mut copy) = (make(group.rank()), make(group.rank()));
        let mean = means(group, own, &Device::flex(), false).unwrap();
        broadcast_all(group, &mut copy).unwrap();
        (mean, copy)
    });
    let (zero, one) = (make(0), make(1));
    for (mean, copy) in found {
        assert!(copy == zero);
        for (name, values) in mean {
            let expected: Vec<f32> = zero[&name].iter().zip(&one[&name]).map(|(a, b)| (a + b) / 2.0).collect();
            assert!(values == expected, "{name}");
        }
    }
}

#[test]
fn ranks_that_differ_are_told_apart() {
    let messages = group(3, |group| {
        let rank = group.rank();
        verify_equal(group, "the parameters", "same").unwrap();
        let hash = if rank == 2 { "bbb" } else { "aaa" };
        let unequal = verify_equal(group, "the parameters", hash).unwrap_err().to_string();
        let gradients = BTreeMap::from([(format!("w{}", rank.min(1)), vec![0.0; 4])]);
        (unequal, means(group, gradients, &Device::flex(), false).unwrap_err().to_string())
    });
    for (unequal, layout) in messages {
        assert_eq!(
            unequal,
            "the ranks disagree on the parameters: rank 0 has aaa, rank 2 has bbb\n  help: start all ranks from the same \
             program, settings and data; on equal machines this is a defect of vlp or of the hardware"
        );
        assert!(
            layout.starts_with("the ranks disagree on the names and sizes of the gradients: rank 0 has "),
            "{layout}"
        );
    }
}

#[test]
fn a_rank_with_more_buckets_is_told_from_the_others() {
    let messages = group(2, |group| {
        let mut gradients = BTreeMap::from([("a".to_owned(), vec![0.0; 4])]);
        if group.rank() == 1 {
            gradients.insert("b".to_owned(), vec![0.0; vlp::distributed::BUCKET_FLOATS]);
        }
        means(group, gradients, &Device::flex(), false).unwrap_err().to_string()
    });
    for message in messages {
        let expected = "the ranks disagree on the names and sizes of the gradients: rank 0 has buckets: 1, rank 1 has ";
        assert!(message.starts_with(expected), "{message}");
    }
}

#[test]
fn a_dead_peer_is_an_error_on_all_others_that_names_it() {
    let messages = group(3, |group| {
        group.barrier().unwrap();
        if group.rank() == 2 {
            return String::new(); // leaves, and its connection with it
        }
        group.all_reduce_mean(&mut values(0, 1_000_000)).unwrap_err().to_string()
    });
    for (rank, message) in messages.iter().enumerate().take(2) {
        assert_eq!(
            *message,
            format!(
                "rank {rank} lost its group during all-reduce: rank 2: it ended, and its connection with it\n  help: see \
                 the log of the rank that failed first; `launch.timeout_s` is how long ranks wait for each other"
            )
        );
    }
}

#[test]
fn the_end_of_rank_0_is_an_error_too() {
    let messages = group(2, |group| match group.rank() {
        0 => String::new(),
        _ => group.barrier().unwrap_err().to_string(),
    });
    let expected = "rank 1 lost its group during gather: rank 0: it ended, and its connection with it\n";
    assert!(messages[1].starts_with(expected), "{}", messages[1]);
}

#[test]
fn a_silent_peer_is_an_error_after_the_timeout() {
    let port = free_port();
    let patience = |rank| Rendezvous { timeout: Duration::from_millis(300), ..place(rank, 2, port) };
    let (done, wait) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let silent = scope.spawn(move || {
            let _group = Loopback::join(&Rendezvous { timeout: Duration::from_secs(30), ..place(1, 2, port) }).unwrap();
            let _ = wait.recv();
        });
        // Joining may take its time; waiting for the silent one may not.
        let mut group = loop {
            if let Ok(group) = Loopback::join(&patience(0)) {
                break group;
            }
        };
        let message = group.gather(1.0).unwrap_err().to_string();
        drop(done);
        silent.join().unwrap();
        assert!(message.starts_with("rank 0 lost its group during gather: rank 1: no answer in time\n"), "{message}");
    });
}

#[test]
fn ranks_at_different_places_are_an_error() {
    let messages = group(2, |group| match group.rank() {
        0 => group.all_reduce_mean(&mut [1.0; 4]).unwrap_err().to_string(),
        _ => group.all_reduce_mean(&mut [1.0; 3]).unwrap_err().to_string(),
    });
    assert!(
        messages[0].contains("rank 1: it sent 12 bytes, expected 16: the ranks are not at the same place"),
        "{}",
        messages[0]
    );
}

#[test]
fn other_machines_are_refused() {
    for address in ["10.0.0.7", "node17", "0.0.0.0"] {
        let elsewhere = Rendezvous { master_addr: address.into(), ..place(1, 2, 1) };
        assert_eq!(
            Loopback::join(&elsewhere).unwrap_err().to_string(),
            format!(
                "MASTER_ADDR is `{address}`, but the embedded transport serves one machine, 127.0.0.1\n  help: several \
                 machines need a build with `--features tch` and `launch.device = \"tch-cpu\"`"
            )
        );
    }
}

#[test]
fn peers_of_another_run_and_strangers_are_turned_away() {
    let port = free_port();
    std::thread::scope(|scope| {
        let zero = scope.spawn(move || Loopback::join(&place(0, 2, port)).unwrap());
        let stale = Rendezvous { token: "run-0".into(), ..place(1, 2, port) };
        let message = Loopback::join(&stale).unwrap_err().to_string();
        assert!(
            message.starts_with(&format!(
                "rank 1 could not join its group at 127.0.0.1:{port}: refused: it belongs to another run, attempt or number of ranks\n"
            )),
            "{message}"
        );
        let larger = Loopback::join(&place(1, 3, port)).unwrap_err().to_string();
        assert!(larger.contains("refused: it belongs to another run"), "{larger}");
        let mut stranger = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut nothing = Vec::new();
        let _ = stranger.read_to_end(&mut nothing);
        assert!(nothing.is_empty());
        Loopback::join(&place(1, 2, port)).unwrap();
        zero.join().unwrap();
    });
}

#[test]
fn absent_ranks_are_named() {
    let alone = Rendezvous { timeout: Duration::from_millis(200), ..place(0, 3, free_port()) };
    let message = Loopback::join(&alone).unwrap_err().to_string();
    assert!(message.contains(": ranks 1, 2 did not come in time\n"), "{message}");
    let early = Rendezvous { timeout: Duration::from_millis(200), ..place(1, 3, free_port()) };
    assert!(matches!(Loopback::join(&early), Err(CollectiveError::NotJoined { rank: 1, .. })));
}

#[test]
fn the_place_comes_from_the_variables() {
    let read = |pairs: &[(&str, &str)]| {
        let variables = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Rendezvous::from_variables(&variables, "t".into(), Duration::from_secs(1))
    };
    let alone = read(&[]).unwrap();
    assert_eq!((alone.rank, alone.world_size, alone.local_rank), (0, 1, 0));
    let full =
        [("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1"), ("MASTER_ADDR", "n0"), ("MASTER_PORT", "29500")];
    let found = read(&full).unwrap();
    assert_eq!((found.rank, found.local_rank, found.master_addr.as_str(), found.master_port), (5, 1, "n0", 29_500));
    let message = |name: &str, value: Option<&str>| {
        let pairs: Vec<(&str, &str)> = full
            .iter()
            .filter_map(|(k, v)| if *k == name { value.map(|value| (*k, value)) } else { Some((*k, *v)) })
            .collect();
        let text = read(&pairs).unwrap_err().to_string();
        text.lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(message("RANK", Some("8")), "environment variable RANK is `8`, expected less than WORLD_SIZE = 8");
    assert_eq!(message("RANK", None), "environment variable RANK is not set, expected a number");
    assert_eq!(message("WORLD_SIZE", Some("two")), "environment variable WORLD_SIZE is `two`, expected a number");
    assert_eq!(message("WORLD_SIZE", Some("0")), "environment variable WORLD_SIZE is `0`, expected 1 or more");
    assert_eq!(
        message("MASTER_PORT", Some("70000")),
        "environment variable MASTER_PORT is `70000`, expected a port, at most 65535"
    );
    assert_eq!(
        message("MASTER_ADDR", None),
        "environment variable MASTER_ADDR is not set, expected the machine of rank 0"
    );
}

#[test]
fn gradients_in_bfloat16_are_rounded_before_they_are_added() {
    // 8 bits of precision: 1 + 2⁻⁸ lies between 1 and 1 + 2⁻⁷, and goes to the even one.
    let found = group(2, |group| {
        let mine = [1.0 + 2f32.powi(-8), 1.0 + 3.0 * 2f32.powi(-8), 1000.0][..].to_vec();
        let mut vectors = BTreeMap::from([("w".to_owned(), mine)]);
        if group.rank() == 1 {
            vectors.insert("w".to_owned(), vec![0.0, 1.0, 1.0]);
        }
        means(group, vectors, &Device::flex(), true).unwrap().remove("w").unwrap()
    });
    assert_eq!(found[0], [0.5, 1.0 + 2f32.powi(-7), 500.5]);
    assert_eq!(found[0], found[1]);
}

/// The same questions to PyTorch's process group.
#[cfg(feature = "tch")]
mod tch_transport {
    use vlp::distributed::Flat;

    use super::*;

    fn both<T: Send>(world_size: usize, timeout: Duration, work: impl Fn(&mut dyn Collective) -> T + Sync) -> Vec<T> {
        let port = free_port();
        std::thread::scope(|scope| {
            let ranks: Vec<_> = (0..world_size)
                .map(|rank| {
                    let work = &work;
                    let place = Rendezvous { timeout, ..place(rank, world_size, port) };
                    scope.spawn(move || work(&mut *place.join(Transport::Gloo).unwrap()))
                })
                .collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    #[test]
    fn gloo_gives_what_the_embedded_transport_gives() {
        let work = |group: &mut dyn Collective| {
            let rank = group.rank();
            let mut mean = values(rank, 100_003);
            group.all_reduce_mean(&mut mean).unwrap();
            let mut copy = values(rank, 1000);
            group.broadcast(&mut copy, 1).unwrap();
            let texts = group.gather_bytes("x".repeat(rank).as_bytes()).unwrap();
            let numbers = group.gather(rank as f64 / 3.0).unwrap();
            group.barrier().unwrap();
            (mean, copy, texts, numbers)
        };
        // With two ranks there is one order of additions.
        let gloo = both(2, Duration::from_secs(30), work);
        let embedded = group(2, work);
        assert!(gloo == embedded);
        // With three it may be another, but the same bits on every rank.
        let three = both(3, Duration::from_secs(30), work);
        assert!(three[0] == three[1] && three[1] == three[2]);
        let expected = &group(3, work)[0];
        assert!(three[0].0.iter().zip(&expected.0).all(|(a, b)| (a - b).abs() <= 1e-5));
        assert_eq!((&three[0].1, &three[0].2, &three[0].3), (&expected.1, &expected.2, &expected.3));
    }

    #[test]
    fn gloo_sends_and_adds_in_bfloat16_where_asked_to() {
        let found = both(2, Duration::from_secs(30), |group| {
            let mut values = if group.rank() == 0 { [1.0 + 2f32.powi(-8), 256.0] } else { [0.0, 1.0] };
            group.all_reduce_mean_bf16(&mut values).unwrap();
            values
        });
        // The sum 257 has no bfloat16, and goes to the even neighbour.
        assert_eq!(found, [[0.5, 128.0], [0.5, 128.0]]);
    }

    #[test]
    #[allow(deprecated)] // burn marks its LibTorch backend as deprecated
    fn tensors_of_libtorch_are_exchanged_where_they_lie() {
        let device = Device::libtorch();
        for bf16 in [false, true] {
            let make =
                |rank| BTreeMap::from([("a".to_owned(), values(rank, 70_001)), ("b".to_owned(), values(rank, 5))]);
            let work = |group: &mut dyn Collective, device: &Device| {
                let rank = group.rank();
                let tensors =
                    make(rank).into_iter().map(|(name, values)| (name, Tensor::from_data(values.as_slice(), device)));
                let lie = Bucket::pack(tensors.collect()).remove(0).all_reduce_mean(group, bf16).unwrap();
                let lie: Vec<Device> = lie.into_values().map(|tensor| tensor.device()).collect();
                (means(group, make(rank), device, bf16).unwrap(), lie)
            };
            for ranks in [2, 3] {
                let there = both(ranks, Duration::from_secs(30), |group| work(group, &device));
                let host = both(ranks, Duration::from_secs(30), |group| work(group, &Device::flex()));
                for ((there, lie), (host, lies)) in there.iter().zip(&host) {
                    assert!(there == host, "{ranks} ranks, {bf16}");
                    assert_eq!(
                        [&lie[..], &lies[..]].concat(),
                        [[device.clone(), device.clone()], [Device::flex(), Device::flex()]].concat()
                    );
                }
            }
            // What somebody else holds too stays as it is.
            let shared = both(2, Duration::from_secs(30), |group| {
                let mine = Tensor::<1>::from_data(values(group.rank(), 9).as_slice(), &device);
                group.all_reduce_mean_flat(Flat::new(mine.clone()), bf16).unwrap();
                host_values(mine)
            });
            assert!(shared == [values(0, 9), values(1, 9)]);
            // The embedded transport takes them over the host.
            let host = group(2, |group| work(group, &device));
            let expected = group(2, |group| work(group, &Device::flex()));
            assert!(host == expected, "{bf16}");
        }
    }

    #[test]
    fn a_gpu_needs_a_build_with_nccl() {
        if vlp::distributed::C10d::has_nccl() {
            eprintln!("SKIPPED: this build has NCCL");
            return;
        }
        let messages: Vec<String> = std::thread::scope(|scope| {
            let port = free_port();
            let join = move |rank| place(rank, 2, port).join(Transport::Nccl(rank)).err().unwrap().to_string();
            let ranks = [0, 1].map(|rank| scope.spawn(move || join(rank)));
            ranks.map(|rank| rank.join().unwrap()).to_vec()
        });
        for (rank, message) in messages.iter().enumerate() {
            let first = message.lines().next().unwrap();
            assert!(first.starts_with(&format!("rank {rank} could not join its group at 127.0.0.1:")), "{first}");
            assert!(first.ends_with(": this binary was built without NCCL (README.md, \"GPUs\")"), "{first}");
        }
    }

    #[test]
    fn work_of_rank_0_alone_has_no_time_limit_with_gloo() {
        let numbers = both(2, Duration::from_secs(2), |group| {
            if group.rank() == 0 {
                std::thread::sleep(Duration::from_secs(4));
            }
            group.wait_for_rank_0().unwrap();
            group.gather(group.rank() as f64).unwrap()
        });
        assert_eq!(numbers, [[0.0, 1.0], [0.0, 1.0]]);
    }

    #[test]
    fn a_dead_peer_is_an_error_with_gloo() {
        let messages = both(2, Duration::from_secs(30), |group| {
            group.barrier().unwrap();
            match group.rank() {
                1 => String::new(),
                _ => group.all_reduce_mean(&mut values(0, 1_000_000)).unwrap_err().to_string(),
            }
        });
        assert!(messages[0].starts_with("rank 0 lost its group during all-reduce: "), "{}", messages[0]);
    }

    #[test]
    fn a_rank_of_another_run_is_refused_by_gloo_too() {
        let port = free_port();
        std::thread::scope(|scope| {
            let zero = scope.spawn(move || place(0, 2, port).join(Transport::Gloo).map(|_| ()));
            let stale = Rendezvous { token: "run-0".into(), ..place(1, 2, port) };
            let message = stale.join(Transport::Gloo).err().unwrap().to_string();
            assert!(message.contains("refused: it belongs to another run, attempt or number of ranks\n"), "{message}");
            let one = place(1, 2, port).join(Transport::Gloo);
            assert!(one.is_ok());
            zero.join().unwrap().unwrap();
        });
    }
}
