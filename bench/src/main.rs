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
//! | [`report`] | records → tables and plots |
//!
//! Everything runs on one thread: the generator shares its processors with the servers, and its own time
//! for an operation stands in every record. `bench/run` calls it; nobody else needs to.

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

use clap::{Parser, Subcommand};
use std::{io, process::ExitCode};

#[derive(Parser)]
#[command(about = "Drives key-value servers and measures them; bench/run uses it")]
struct Arguments {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// One run; prints its record as a line of JSON
    Run(Box<plan::Plan>),
    /// Write all keys of a run once
    Fill(fill::Fill),
    /// Wait until every address takes a write
    Ready(fill::Ready),
    /// Print the place, from 0, of the address that leads an etcd cluster
    Leader(etcd::Leader),
    /// Print free ports of the loopback address
    Ports { count: usize },
    /// Print one median of records gathered so far
    Best(report::Best),
    /// Read a ring's `status --json` on standard input: succeed once a node is level
    Level(report::Level),
    /// Write report.md and its plots from a file of records
    Report(report::Report),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(what: What) -> io::Result<()> {
    match what {
        What::Run(plan) => {
            let record = alone(drive::run(*plan))?;
            println!("{}", serde_json::to_string(&record)?);
            Ok(())
        }
        What::Fill(fill) => alone(fill.run()),
        What::Ready(ready) => alone(ready.run()),
        What::Leader(leader) => {
            println!("{}", alone(leader.find())?);
            Ok(())
        }
        What::Ports { count } => ports(count),
        What::Best(best) => best.print(),
        What::Level(level) => level.look(),
        What::Report(report) => report.write(),
    }
}

/// Runs on this thread alone.
fn alone<T>(future: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

/// Ports that are free now. All are held until the last is known, so that no two are the same.
fn ports(count: usize) -> io::Result<()> {
    let bind = |_| std::net::TcpListener::bind(("127.0.0.1", 0));
    let held = (0..count).map(bind).collect::<io::Result<Vec<_>>>()?;
    for listener in held {
        println!("{}", listener.local_addr()?.port());
    }
    Ok(())
}
