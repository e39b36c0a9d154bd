//! What counting costs: nanoseconds for one counter, one histogram, one whole operation.
//!
//! `cargo run --release -p simpledynamo-actors --example metrics_cost`

#![allow(clippy::print_stdout, reason = "its result")]

use simpledynamo_actors::metrics::{CommandKind, Metrics};
use simpledynamo_protocol::{
    command::{Command, Reply},
    routing::Verdict,
};
use std::{
    hint::black_box,
    time::{Duration, Instant},
};

const TIMES: u32 = 20_000_000;

fn main() {
    let metrics = Metrics::default();
    let get = CommandKind::from(&Command::Get);
    let verdict = Verdict::Reply(Reply::Nil);
    measure("a counter", |_| metrics.suspicions.increment());
    measure("a histogram", |i| metrics.commit_time.record(u64::from(i & 0xffff)));
    measure("an operation", |i| {
        metrics.ended(get, black_box(&verdict), Duration::from_micros(u64::from(i & 0xffff)));
    });
    let begun = Instant::now();
    let latencies = metrics.latencies().map(|(_, reading)| reading.count()).sum::<u64>();
    println!("reading all latencies: {} µs ({latencies} operations)", begun.elapsed().as_micros());
}

fn measure(what: &str, mut work: impl FnMut(u32)) {
    let begun = Instant::now();
    for i in 0..TIMES {
        work(black_box(i));
    }
    let nanos = begun.elapsed().as_nanos() as f64 / f64::from(TIMES);
    println!("{what}: {nanos:.1} ns");
}
