//! `vlp list [DIR]`: the experiments below a folder. Fragments, which have no name, and sweeps are left out.

use std::path::{Path, PathBuf};

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use walkdir::WalkDir;

use super::context::{Context, Failure, exit};
use crate::config::{self, Outline};

/// List the experiments below a folder.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder that is searched.
    #[arg(value_name = "DIR", default_value = "experiments")]
    folder: PathBuf,
    /// Form of the list.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Form of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// An array of objects.
    Json,
}

/// Prints name, upstream, file and description of each experiment to stdout, by file.
pub fn execute(args: &Args, context: &Context) -> Result<u8, Failure> {
    let mut found: Vec<(PathBuf, Outline)> = Vec::new();
    for entry in WalkDir::new(&args.folder).sort_by_file_name() {
        let entry = entry.map_err(|e| Failure::new(exit::CONFIG, unreadable(&args.folder, &e)))?;
        let is_toml = entry.file_type().is_file() && entry.path().extension().is_some_and(|e| e == "toml");
        if is_toml && !config::is_sweep(entry.path()) {
            let outline = config::outline(entry.path());
            if outline.errors > 0 {
                let file = entry.path().display();
                eprintln!("warning: `{file}` has errors\n  help: `vlp check {file}` shows them");
            }
            if !outline.name.is_empty() {
                found.push((entry.into_path(), outline));
            }
        }
    }
    match args.format {
        Format::Json => println!("{:#}", as_json(&found)),
        Format::Table if found.is_empty() => {
            if !context.quiet {
                eprintln!("no experiments below `{}`", args.folder.display());
            }
        }
        Format::Table => {
            let header = ["name", "upstream", "file", "description"].map(String::from);
            let row = |(file, o): &(PathBuf, Outline)| {
                let upstream = if o.upstream.is_empty() { "-" } else { &o.upstream };
                [o.name.clone(), upstream.to_string(), file.display().to_string(), o.description.clone()]
            };
            print!("{}", columns(&header, &found.iter().map(row).collect::<Vec<_>>()));
        }
    }
    Ok(exit::OK)
}

fn as_json(found: &[(PathBuf, Outline)]) -> serde_json::Value {
    let entry = |(file, o): &(PathBuf, Outline)| {
        let upstream = (!o.upstream.is_empty()).then_some(&o.upstream);
        serde_json::json!({ "name": o.name, "upstream": upstream, "file": file, "description": o.description })
    };
    found.iter().map(entry).collect()
}

fn unreadable(folder: &Path, error: &walkdir::Error) -> String {
    let reason = error.io_error().map_or_else(|| error.to_string(), |e| e.to_string());
    format!(
        "cannot list `{}`: {reason}\n  help: name the folder that holds the experiment files: `vlp list DIR`",
        folder.display()
    )
}

/// Rows under a header in aligned columns, two spaces apart, each line ended.
pub(super) fn columns<const N: usize>(header: &[String; N], rows: &[[String; N]]) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(header).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
