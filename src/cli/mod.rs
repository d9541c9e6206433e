//! The command line: one file per subcommand. The only place that prints results and decides exit codes.

mod bench;
mod check;
mod compare;
mod context;
mod convert;
mod dashboard;
mod data;
mod diff;
mod doctor;
mod equivalence;
mod eval;
mod explain;
mod facts;
mod graph;
mod heap;
mod list;
mod logs;
mod model;
mod places;
mod plan;
mod predict;
mod report;
mod repro;
mod run;
mod schema;
mod score;
mod selftest;
mod show;
mod status;
mod stop;
mod sweep;
mod table;
mod track;
mod tracking;
mod verify_resume;
mod worker;

use clap::{CommandFactory, Parser, Subcommand};

use context::{ColorChoice, Context, Failure, exit};

/// Reproduces, runs and improves the experiments of "Unified Vision-Language Pre-Training for Image Captioning and VQA".
#[derive(Debug, Parser)]
#[command(name = "vlp", version, max_term_width = 100)]
struct Cli {
    /// Colour: auto, always, never.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", value_enum, hide_possible_values = true)]
    color: ColorChoice,
    /// Only warnings and errors on stderr.
    #[arg(short, long, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the experiments of a folder.
    List(list::Args),
    /// Check experiment files: all problems of all files in one pass.
    Check(check::Args),
    /// Print the resolved configuration; with --origin, where each value comes from.
    Show(show::Args),
    /// Print the settings in which two experiments differ.
    Diff(diff::Args),
    /// Explain an option or a section: type, default, range, unit, meaning.
    Explain(explain::Args),
    /// Print the JSON Schema of experiment files.
    Schema(schema::Args),
    /// Print what a run would do and need, before anything runs.
    Plan(plan::Args),
    /// Draw what starts from what: experiments, their runs, states and scores.
    Graph(graph::Args),
    /// Run experiments and whatever they start from; resumes or reuses what is there.
    Run(run::Args),
    /// Search over options of an experiment.
    Sweep(sweep::Args),
    /// Ask a run to save and end.
    Stop(stop::Args),
    /// Run again what a lock file records, and refuse when something else has changed.
    Repro(repro::Args),
    /// Check that a killed and resumed run equals an uninterrupted one.
    VerifyResume(verify_resume::Args),
    /// List runs and how far they are.
    Status(status::Args),
    /// Print the log of a run.
    Logs(logs::Args),
    /// Print and write the tables of measured beside published scores.
    Table(table::Args),
    /// Compare runs: settings that differ, scores, significance.
    Compare(compare::Args),
    /// Write a report on runs as one HTML file: curves, scores, samples, lineage, settings.
    Report(report::Args),
    /// Show all runs in the user interface of MLflow; with --static, as a page with a link to each report.
    Dashboard(dashboard::Args),
    /// Tell an MLflow server what it lacks of runs.
    Track(track::Args),
    /// Make the demo world; verify data on disk.
    Data(data::Args),
    /// Score checkpoints on splits; nothing is trained.
    Eval(eval::Args),
    /// Caption images with a trained model.
    Caption(predict::CaptionArgs),
    /// Answer questions about images with a trained model.
    Answer(predict::AnswerArgs),
    /// Score a predictions file alone, as the COCO and VQA tools do.
    Score(score::Args),
    /// Rewrite a checkpoint as safetensors.
    Convert(convert::Args),
    /// Look at this machine: devices, memory, libraries, tools, and how to get what is missing.
    Doctor(doctor::Args),
    /// Compare what this machine computes with the reference.
    Selftest(selftest::Args),
    /// Time this machine: training step, decoding, self-critical step, data loading.
    Bench(bench::Args),
    /// Print the completion script of a shell.
    Completions {
        /// Shell.
        shell: clap_complete::Shell,
    },
    /// One process of a run; started by `vlp run`, or by a scheduler that sets RANK and WORLD_SIZE.
    #[command(hide = true)]
    Worker(worker::Args),
}

/// Parses the command line, runs the command, returns the exit code.
pub fn main() -> u8 {
    let cli = Cli::parse();
    let context = Context::new(cli.color, cli.quiet);
    if !matches!(cli.command, Command::Worker(_)) {
        log_to_stderr(&context);
    }
    let result = match &cli.command {
        Command::List(args) => list::execute(args, &context),
        Command::Check(args) => check::execute(args, &context),
        Command::Show(args) => show::execute(args, &context),
        Command::Diff(args) => diff::execute(args, &context),
        Command::Explain(args) => explain::execute(args, &context),
        Command::Schema(args) => schema::execute(args, &context),
        Command::Plan(args) => plan::execute(args, &context),
        Command::Graph(args) => graph::execute(args, &context),
        Command::Run(args) => run::execute(args, &context),
        Command::Sweep(args) => sweep::execute(args, &context),
        Command::Stop(args) => stop::execute(args, &context),
        Command::Repro(args) => repro::execute(args, &context),
        Command::VerifyResume(args) => verify_resume::execute(args, &context),
        Command::Status(args) => status::execute(args, &context),
        Command::Logs(args) => logs::execute(args, &context),
        Command::Table(args) => table::execute(args, &context),
        Command::Compare(args) => compare::execute(args, &context),
        Command::Report(args) => report::execute(args, &context),
        Command::Dashboard(args) => dashboard::execute(args, &context),
        Command::Track(args) => track::execute(args, &context),
        Command::Data(args) => data::execute(args, &context),
        Command::Eval(args) => eval::execute(args, &context),
        Command::Caption(args) => predict::caption(args, &context),
        Command::Answer(args) => predict::answer(args, &context),
        Command::Score(args) => score::execute(args, &context),
        Command::Convert(args) => convert::execute(args, &context),
        Command::Doctor(args) => doctor::execute(args, &context),
        Command::Selftest(args) => selftest::execute(args, &context),
        Command::Bench(args) => bench::execute(args, &context),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "vlp", &mut std::io::stdout());
            Ok(exit::OK)
        }
        Command::Worker(args) => worker::execute(args, &context),
    };
    result.unwrap_or_else(|Failure { code, report }| {
        eprintln!("{}", report.trim_end());
        code
    })
}

/// Log lines of the program itself: warnings, or what `RUST_LOG` asks for.
fn log_to_stderr(context: &Context) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(context.color)
        .with_target(false)
        .init();
}
