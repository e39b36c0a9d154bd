//! What one flow record costs: `cargo run --release -p simpledynamo-actors --example flow_cost`.
//!
//! Prints nanoseconds a record for a message sent with everything off, in memory only (the default for
//! most requests), and written to files as well; of the last, the time of the node's thread.

use simpledynamo_actors::{
    clock::Clock,
    flow::{Cause, Recorder},
    settings::{Flow, FlowMode},
};
use simpledynamo_protocol::{
    ballot::{Ballot, Stamp},
    message::{Accepted, Message},
    ring::NodeId,
};
use std::{error::Error, hint::black_box, time::Instant};

/// Records of one measurement: some rounds through the memory.
const RECORDS: u32 = 300_000;

#[allow(clippy::print_stdout, reason = "it measures and tells")]
fn main() -> Result<(), Box<dyn Error>> {
    let me = NodeId(5554);
    let stamp = Stamp { ballot: Ballot { round: 3, node: me }, version: 9 };
    let message: Message = Accepted { key: "greeting".into(), stamp }.into();
    let directory = tempfile::tempdir()?;
    for (name, mode) in [("off", FlowMode::Off), ("memory", FlowMode::Sampled), ("all", FlowMode::All)]
    {
        let settings = Flow { mode, one_in: 0, ..Flow::default() };
        let (recorder, writer) =
            Recorder::start(me, 1, &settings, Some(directory.path()), Clock::system())?;
        let mut cause = Cause::NONE;
        let start = Instant::now();
        for _ in 0..RECORDS {
            let message = black_box(&message);
            cause = recorder.send(NodeId(5556), message, cause.into(), |trace| {
                black_box(trace);
                Ok(64)
            });
        }
        let took = start.elapsed();
        recorder.reader().close();
        if let Some(Err(_)) = writer.map(std::thread::JoinHandle::join) {
            return Err("the writer panicked".into());
        }
        let counts = recorder.reader().counts();
        println!("{name:8} {:6.1} ns a record, {counts:?}", took.as_nanos() as f64 / f64::from(RECORDS));
    }
    Ok(())
}
