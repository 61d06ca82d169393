//! The `worker-orcd` command.

fn main() -> std::process::ExitCode {
    worker_orcd::cli::main()
}
