//! Stands between a sink and a real server, and fails calls that record points, in the order that a test asks for.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What becomes of one call that records points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Not passed on; 500.
    Before,
    /// Passed on; 500 all the same.
    After,
    /// Passed on; the connection is closed without an answer.
    Close,
    /// Passed on and answered after this time.
    Slow(Duration),
}

/// The proxy; it lives as long as the test.
pub struct Proxy {
    pub uri: String,
    faults: Arc<Mutex<VecDeque<Fault>>>,
}

impl Proxy {
    /// In front of the server at `uri`.
    pub fn start(uri: &str, faults: &[Fault]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = uri.strip_prefix("http://").unwrap().to_owned();
        let faults = Arc::new(Mutex::new(faults.iter().copied().collect::<VecDeque<_>>()));
        let shared = Arc::clone(&faults);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (server, faults) = (server.clone(), Arc::clone(&shared));
                // A client that has gone away is no concern of the test.
                std::thread::spawn(move || serve(stream, &server, &faults));
            }
        });
        Self { uri: address, faults }
    }

    /// Faults that have not happened yet.
    pub fn left(&self) -> usize {
        self.faults.lock().unwrap().len()
    }
}

/// One call; the connection is closed after it.
fn serve(mut client: TcpStream, server: &str, faults: &Mutex<VecDeque<Fault>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
        if !lower.starts_with("connection:") && !lower.starts_with("host:") {
            head.push_str(&line);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let points = head.contains("runs/log-batch") && String::from_utf8_lossy(&body).contains("\"timestamp\"");
    let fault = if points { faults.lock().unwrap().pop_front() } else { None };
    let failure = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfail";
    if fault == Some(Fault::Before) {
        return client.write_all(failure);
    }
    if let Some(Fault::Slow(time)) = fault {
        std::thread::sleep(time);
    }
    let mut upstream = TcpStream::connect(server)?;
    upstream.write_all(format!("{head}Host: {server}\r\nConnection: close\r\n\r\n").as_bytes())?;
    upstream.write_all(&body)?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer)?;
    match fault {
        Some(Fault::After) => client.write_all(failure),
        Some(Fault::Close) => client.shutdown(std::net::Shutdown::Both),
        _ => client.write_all(&answer),
    }
}
