//! Measurements as Markdown tables or JSON.

use serde_json::{Value, json};

use super::super::score::output::table;
use super::Measurements;
use super::reference::Reference;

const TIMES: [&str; 10] =
    ["Part", "Work", "Batch", "Median s", "Least", "Most", "Per second", "GFLOP", "Of matrix rate", "Of copy rate"];

/// What the machine can do, the times, the memory; with a reference, its numbers and how many times faster this is.
pub fn tables(found: &Measurements, reference: Option<&Reference>) -> String {
    let text = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
    let machine = [
        ("Device", found.device.clone()),
        ("Threads", found.threads.to_string()),
        ("Training steps", training(found)),
        ("Matrix products, GFLOP/s", format!("{:.0}", found.rates.matrix_gflops)),
        ("Copies, GB/s", format!("{:.1}", found.rates.copy_gb_per_s)),
        ("Copies by one thread, GB/s", format!("{:.1}", found.rates.copy_gb_per_s_one_thread)),
    ];
    let machine: Vec<Vec<String>> = machine.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();

    let mut header = text(&TIMES);
    if reference.is_some() {
        header.extend(text(&["Reference s", "Times as fast"]));
    }
    let rows: Vec<Vec<String>> = found
        .rows
        .iter()
        .map(|row| {
            let (median, [least, most]) = (row.median(), row.range());
            let mut cells = vec![row.part.name().to_owned(), row.work.clone(), batch(row.batch, row.beams)];
            cells.extend([median, least, most].map(seconds));
            cells.push(format!("{:.1}", row.items as f64 / median));
            cells.push(row.flops.map_or(String::new(), |flops| format!("{:.1}", flops / 1e9)));
            let share = row.flops.map(|flops| flops / median / 1e9 / found.rates.matrix_gflops);
            let of_copies = row.bytes.map(|bytes| bytes / median / 1e9 / found.rates.copy_gb_per_s);
            cells.extend(
                [share, of_copies].map(|share| share.map_or(String::new(), |share| format!("{:.0} %", share * 100.0))),
            );
            if let Some(reference) = reference {
                let theirs = reference.sum(&row.reference);
                cells.push(theirs.map_or(String::new(), seconds));
                cells.push(theirs.map_or(String::new(), |theirs| format!("{:.2}", theirs / median)));
            }
            cells
        })
        .collect();

    let mut header_of_memory = text(&["Part", "Work", "Batch", "Before MiB", "Peak MiB"]);
    if reference.is_some() {
        header_of_memory.extend(text(&["Reference MiB", "Share"]));
    }
    let memory: Vec<Vec<String>> = found
        .memory
        .iter()
        .map(|memory| {
            let mut cells = vec![memory.part.name().to_owned(), memory.work.clone(), batch(memory.batch, memory.beams)];
            cells.extend([memory.start_mib, memory.mib].map(|mib| mib.to_string()));
            if let Some(reference) = reference {
                let theirs = reference.sum(memory.reference.as_slice());
                cells.push(theirs.map_or(String::new(), |theirs| format!("{theirs:.0}")));
                cells.push(theirs.map_or(String::new(), |theirs| format!("{:.2}", memory.mib as f64 / theirs)));
            }
            cells
        })
        .collect();
    [table(&text(&["Machine", ""]), &machine, 1), table(&header, &rows, 2), table(&header_of_memory, &memory, 2)]
        .join("\n")
}

/// In which numbers training steps computed.
fn training(found: &Measurements) -> String {
    let again = if found.gradient_checkpointing { ", gradient checkpointing" } else { "" };
    format!("{}{again}", json!(found.precision).as_str().unwrap_or_default())
}

/// Images per batch, and rows of each.
fn batch(batch: Option<usize>, beams: Option<usize>) -> String {
    match (batch, beams) {
        (Some(batch), Some(beams)) => format!("{batch} × {beams}"),
        (Some(batch), None) => batch.to_string(),
        _ => String::new(),
    }
}

/// Four digits that count.
fn seconds(value: f64) -> String {
    let places = (3 - value.log10().floor() as i32).clamp(0, 9) as usize;
    format!("{value:.places$}")
}

/// The same with all digits.
pub fn json(found: &Measurements, reference: Option<&Reference>) -> String {
    let times: Vec<Value> = found
        .rows
        .iter()
        .map(|row| {
            let (median, [least, most]) = (row.median(), row.range());
            let theirs = reference.and_then(|reference| reference.sum(&row.reference));
            json!({
                "part": row.part.name(),
                "work": row.work,
                "items": row.items,
                "batch": row.batch,
                "beams": row.beams,
                "seconds": { "median": median, "least": least, "most": most, "all": row.seconds },
                "items_per_s": row.items as f64 / median,
                "flops": row.flops,
                "of_matrix_rate": row.flops.map(|flops| flops / median / 1e9 / found.rates.matrix_gflops),
                "of_copy_rate": row.bytes.map(|bytes| bytes / median / 1e9 / found.rates.copy_gb_per_s),
                "reference_s": theirs,
                "times_as_fast": theirs.map(|theirs| theirs / median),
            })
        })
        .collect();
    let memory: Vec<Value> = found
        .memory
        .iter()
        .map(|memory| {
            let theirs = reference.and_then(|reference| reference.sum(memory.reference.as_slice()));
            json!({
                "part": memory.part.name(),
                "work": memory.work,
                "batch": memory.batch,
                "beams": memory.beams,
                "start_mib": memory.start_mib,
                "peak_mib": memory.mib,
                "reference_mib": theirs,
                "share": theirs.map(|theirs| memory.mib as f64 / theirs),
            })
        })
        .collect();
    let all = json!({
        "device": found.device,
        "threads": found.threads,
        "size": found.size.name(),
        "precision": found.precision,
        "gradient_checkpointing": found.gradient_checkpointing,
        "matrix_gflops": found.rates.matrix_gflops,
        "copy_gb_per_s": found.rates.copy_gb_per_s,
        "copy_gb_per_s_one_thread": found.rates.copy_gb_per_s_one_thread,
        "times": times,
        "memory": memory,
    });
    format!("{all:#}\n")
}
