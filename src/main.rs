//! The command `bulkhead`.

use bulkhead::cli::{Cli, run};
use clap::Parser as _;
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string()),
    };
    let done = runtime.block_on(run(cli));
    // A job that blocks its thread was told to stop, and cannot be made to: it holds up nobody for long.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match done {
        Ok(code) => code,
        Err(error) => fail(&bulkhead::error::explain(&error)),
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the one place where a command says why it failed"
)]
fn fail(message: &str) -> ExitCode {
    eprintln!("bulkhead: {message}");
    ExitCode::FAILURE
}
