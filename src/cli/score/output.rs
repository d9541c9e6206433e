//! Rows of text as a Markdown table or CSV. It does not round: cells come as text.

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{CellAlignment, ContentArrangement, Table};

/// A Markdown table; all columns but the first `left` are aligned to the right.
pub fn table(header: &[String], rows: &[Vec<String>], left: usize) -> String {
    let mut table = Table::new();
    table.load_preset(ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|cell| on_one_line(cell)));
    for row in rows {
        table.add_row(row.iter().map(|cell| on_one_line(cell)));
    }
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    lines.join("\n") + "\n"
}

fn on_one_line(cell: &str) -> String {
    cell.replace('|', "\\|").replace(char::is_control, " ")
}

/// Comma-separated values (RFC 4180 with `\n`).
pub fn csv(header: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: Vec<String>| cells.join(",") + "\n";
    let mut text = line(header.iter().map(|cell| quoted(cell)).collect());
    text.extend(rows.iter().map(|row| line(row.iter().map(|cell| quoted(cell)).collect())));
    text
}

fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_that_could_break_a_row() {
        let row = vec!["a,\"b\"\n".to_owned(), "x|y".to_owned()];
        assert_eq!(csv(&["k", "v"], std::slice::from_ref(&row)), "k,v\n\"a,\"\"b\"\"\n\",x|y\n");
        let header = ["key".to_owned(), "v".to_owned()];
        assert_eq!(table(&header, &[row], 1), "| key    |    v |\n|--------|------|\n| a,\"b\"  | x\\|y |\n");
    }
}
