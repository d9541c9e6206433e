//! The `vlp` program; everything is in the library.

fn main() -> std::process::ExitCode {
    vlp::cli::main().into()
}
