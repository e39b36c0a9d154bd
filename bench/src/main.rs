//! `load`: drives key-value servers, measures what they do, and writes the report.
//!
//! One generator for every server that is compared: the same keys, values, clients and clocks, so that
//! what differs is the server. It speaks the Redis protocol ([`redis`]) and etcd's version 3 ([`etcd`]).
//!
//! | module | its one duty |
//! |---|---|
//! | [`plan`] | what a run is made of: clients, keys, values, pace |
//! | [`drive`] | one run from the first connection to its [`meter::Record`] |
//! | [`meter`] | what was measured: latencies, gaps, errors |
//! | [`redis`], [`etcd`] | one protocol's clients each |
//! | [`fill`] | keys written beforehand, and waiting until servers take writes |
//! | [`machine`] | processor time of processes, a timer finer than a millisecond, signals |
//! | [`suite`] | all that is measured: servers started and ended, runs in turn, records kept |
//! | [`report`] | records → tables and plots |
//!
//! Everything runs on one thread: the generator shares its processors with the servers, and its own time
//! for an operation stands in every record. `bench/run` calls `load suite`; `load run` is for drivers of
//! one's own, such as a profiler.

mod drive;
mod etcd;
mod fill;
mod grpc;
mod machine;
mod meter;
mod plan;
mod redis;
mod report;
mod resp;
mod suite;

use clap::{Args, Parser, Subcommand};
use std::{io, net::SocketAddr, process::ExitCode};

#[derive(Parser)]
#[command(about = "Drives key-value servers and measures them; bench/run uses it")]
struct Arguments {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Measure etcd, Redis and this ring and write the report; bench/run calls it
    Suite(Box<suite::Suite>),
    /// One run against servers that are up; prints its record as a line of JSON
    Run(Box<plan::Plan>),
    /// Write all keys of a run once
    Fill(Fill),
}

/// `load fill`
#[derive(Args)]
struct Fill {
    #[arg(long, value_enum, default_value = "redis")]
    protocol: plan::Protocol,
    #[arg(long, value_delimiter = ',', required = true)]
    address: Vec<SocketAddr>,
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            eprintln!(
                "load: interrupted; what was measured is kept, the next run goes on from there"
            );
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(what: What) -> io::Result<()> {
    match what {
        What::Suite(suite) => suite.run(),
        What::Run(plan) => {
            let record = alone(drive::run(*plan))?;
            println!("{}", serde_json::to_string(&record)?);
            Ok(())
        }
        What::Fill(Fill { protocol, address, keys, value_bytes }) => {
            alone(fill::Fill { protocol, address, keys, value_bytes }.run())
        }
    }
}

/// Runs on this thread alone.
fn alone<T>(future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, future)
}
