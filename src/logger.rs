//! The log for people: one line an event, with time, level and node.
//!
//! `2026-01-31T12:00:00.123Z INFO  5554 simpledynamo::serve: clients on 127.0.0.1:11108`, to
//! standard error; colours only on a terminal. A record costs 6 to 7 µs, so nothing is logged per
//! request at level info. Libraries log from level warn on; `RUST_LOG` can ask for more.

use log::LevelFilter;
use simpledynamo_protocol::ring::NodeId;
use std::io::Write;

/// Starts the log of one node. `RUST_LOG` wins over `level`. The first call of a process counts.
pub fn init(level: LevelFilter, id: NodeId) {
    let mut builder = env_logger::Builder::new();
    // Libraries tell of their inner life at info; of this program's, "simpledynamo" is the prefix.
    builder.filter_level(level.min(LevelFilter::Warn)).filter_module("simpledynamo", level);
    builder.parse_default_env();
    builder.format(move |to, record| {
        let level = record.level();
        let style = to.default_level_style(level);
        let time = to.timestamp_millis();
        let target = record.target();
        writeln!(to, "{time} {style}{level:<5}{style:#} {id} {target}: {}", record.args())
    });
    // Err: a logger is there already, as in a test that starts several nodes.
    let _ = builder.try_init();
}
