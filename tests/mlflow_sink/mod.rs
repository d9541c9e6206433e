//! A tiny server that speaks the part of MLflow's REST interface that the sink uses, keeps every point it takes (the same one
//! twice, when it is sent twice), and fails on demand.

#![allow(dead_code)] // each test file uses its part

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// What happens to one batch with metrics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// Taken and answered.
    None,
    /// 500, nothing taken.
    Before,
    /// Taken, then 500.
    After,
    /// Taken, then the connection is closed without an answer.
    Close,
    /// The first half is taken, then 500.
    Half,
    /// Taken and answered after this time.
    Slow(Duration),
    /// 400, nothing taken.
    Refuse,
}

/// What the server was told.
#[derive(Debug, Default)]
pub struct Told {
    pub runs: Vec<Value>,
    pub points: Vec<(String, i64, i64, Value)>,
    pub params: Vec<(String, String)>,
    pub tags: Vec<(String, String)>,
    pub statuses: Vec<String>,
    pub files: Vec<(String, Vec<u8>)>,
    pub authorizations: Vec<String>,
    pub largest: [usize; 2],
    pub histories: usize,
    pub faults: VecDeque<Fault>,
}

/// The server; it lives as long as the test.
pub struct Tiny {
    pub address: String,
    pub told: Arc<Mutex<Told>>,
}

impl Tiny {
    pub fn start(faults: &[Fault]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let told = Arc::new(Mutex::new(Told { faults: faults.iter().copied().collect(), ..Told::default() }));
        let shared = Arc::clone(&told);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &shared);
            }
        });
        Self { address, told }
    }

    /// Key, step and value of all points, sorted.
    pub fn points(&self) -> Vec<(String, i64, Value)> {
        let told = self.told.lock().unwrap();
        let mut points: Vec<_> = told.points.iter().map(|(k, s, _, v)| (k.clone(), *s, v.clone())).collect();
        points.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        points
    }
}

fn answer(stream: TcpStream, told: &Mutex<Told>) {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    let mut length = 0;
    let mut told = told.lock().unwrap();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => told.authorizations.push(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let mut words = first.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let reply = if let ("PUT", Some(name)) = (method, path.strip_prefix("/api/2.0/mlflow-artifacts/artifacts/")) {
        told.files.push((name.to_owned(), body));
        Some((200, json!({})))
    } else {
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        called(&mut told, path.strip_prefix("/api/2.0/mlflow/").unwrap_or(path), query, &body)
    };
    let Some((status, reply)) = reply else { return };
    let reply = reply.to_string();
    let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}", reply.len());
    // A client that has given up is part of the tests.
    let _ = reader.get_mut().write_all(format!("{head}\r\nConnection: close\r\n\r\n{reply}").as_bytes());
}

/// Status and answer; none closes the connection.
fn called(told: &mut Told, call: &str, query: &str, body: &Value) -> Option<(u16, Value)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    Some((
        200,
        match call {
            "experiments/get-by-name" => {
                return Some((404, json!({ "error_code": "RESOURCE_DOES_NOT_EXIST", "message": "none" })));
            }
            "experiments/create" => json!({ "experiment_id": "7" }),
            "runs/search" => {
                let filter = text(&body["filter"]);
                let has = |run: &&Value| {
                    let tags = run["tags"].as_array().unwrap();
                    tags.iter().any(|t| filter == format!("tags.`{}` = '{}'", text(&t["key"]), text(&t["value"])))
                };
                let found = told.runs.iter().position(|run| has(&run));
                json!({ "runs": found.map(|at| json!({ "info": { "run_id": format!("run-{at}") } })).into_iter().collect::<Vec<_>>() })
            }
            "runs/create" => {
                told.runs.push(body.clone());
                json!({ "run": { "info": { "run_id": format!("run-{}", told.runs.len() - 1) } } })
            }
            "runs/get" => json!({ "run": { "info": { "artifact_uri": "mlflow-artifacts:/7/run-0/artifacts" } } }),
            "runs/update" => {
                told.statuses.push(text(&body["status"]));
                json!({})
            }
            "metrics/get-history" => {
                told.histories += 1;
                let key = query.split('&').find_map(|pair| pair.strip_prefix("metric_key=")).unwrap();
                let key = key.replace("%2F", "/");
                let of_key = told.points.iter().filter(|point| point.0 == key);
                let point = |(k, s, t, v): &(String, i64, i64, Value)| json!({ "key": k, "step": s, "timestamp": t.to_string(), "value": v });
                json!({ "metrics": of_key.map(point).collect::<Vec<_>>() })
            }
            "runs/log-batch" => return batch(told, body),
            other => panic!("unknown call {other}"),
        },
    ))
}

fn batch(told: &mut Told, body: &Value) -> Option<(u16, Value)> {
    let list = |name: &str| body[name].as_array().unwrap().clone();
    let (metrics, params, tags) = (list("metrics"), list("params"), list("tags"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    told.params.extend(params.iter().map(|param| (text(&param["key"]), text(&param["value"]))));
    told.tags.extend(tags.iter().map(|tag| (text(&tag["key"]), text(&tag["value"]))));
    told.largest = [told.largest[0].max(metrics.len()), told.largest[1].max(params.len())];
    let fault = if metrics.is_empty() { Fault::None } else { told.faults.pop_front().unwrap_or(Fault::None) };
    let taken = match fault {
        Fault::Before | Fault::Refuse => 0,
        Fault::Half => metrics.len() / 2,
        _ => metrics.len(),
    };
    let point = |m: &Value| {
        (text(&m["key"]), m["step"].as_i64().unwrap(), m["timestamp"].as_i64().unwrap(), m["value"].clone())
    };
    told.points.extend(metrics[..taken].iter().map(point));
    match fault {
        Fault::None => Some((200, json!({}))),
        Fault::Before | Fault::After | Fault::Half => Some((500, json!({ "message": "disk full" }))),
        Fault::Refuse => Some((400, json!({ "error_code": "INVALID_PARAMETER_VALUE", "message": "no tok-en here" }))),
        Fault::Close => None,
        Fault::Slow(time) => {
            std::thread::sleep(time);
            Some((200, json!({})))
        }
    }
}
