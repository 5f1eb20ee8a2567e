//! The command `bulkhead`.

use bulkhead::cli::{Cli, run};
use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string()),
    };
    match runtime.block_on(run(cli)) {
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
