//! The command: flags in `args`, one file for each subcommand, exit codes in `error`.

mod args;
mod bench;
mod chat;
mod error;
mod generate;
mod inspect;
mod interrupt;
mod logits;
mod output;
mod progress;
mod reply;
mod source;
mod synth;
mod tokenize;
mod values;
mod verify;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use args::{Cli, Command};
use error::CliError;

/// Runs the command that the process's arguments describe.
pub fn main() -> ExitCode {
    start_logging();
    let cli = match Cli::try_parse_from(values::spelled_out(std::env::args_os())) {
        Ok(cli) => cli,
        // Help and version come this way too; it ends the process with 0 or 2.
        Err(error) => error.exit(),
    };
    match run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !error.is_quiet() {
                output::note(format_args!("error: {error}"));
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(command: &Command) -> Result<(), CliError> {
    match command {
        Command::Generate(args) => generate::run(args),
        Command::Chat(args) => chat::run(args),
        Command::Tokenize(args) => tokenize::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Logits(args) => logits::run(args),
        Command::Synth(args) => synth::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Verify(args) => verify::run(args),
    }
}

/// Warnings on stderr, or what `RUST_LOG` asks for.
fn start_logging() {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::WARN.into())
        .from_env_lossy();
    let is_colored = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(is_colored)
        .without_time()
        .init();
}
