//! The `dynamo` command: arguments, dispatch, exit code. The log belongs to `dynamo node` alone and
//! starts there, once the configuration has said how much it says.

use clap::Parser;
use simpledynamo::cli::{self, Arguments};
use std::process::ExitCode;

/// Messages are made on one thread and dropped on another all day, which glibc's allocator pays for
/// with a fifth of the node's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Where it does not parse, clap prints why and exits with 2.
    match cli::run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell();
            failure.code()
        }
    }
}
