//! Replies, byte by byte.

use super::{Front, Wire, settings};
use std::{fmt::Write, net::SocketAddr};

const GOLDEN: &str = include_str!("redis-7.0.golden");
const GOLDEN_PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/resp/tests/redis-7.0.golden");

/// Plays the golden file's commands and writes the file anew from what comes back.
async fn play(address: SocketAddr) -> String {
    let mut wire = Wire::connect(address).await;
    let mut played = String::new();
    for line in GOLDEN.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            let reply = wire.ask(command).await;
            let _ = writeln!(played, "> {command}");
            for line in reply.trim_end_matches("\r\n").split("\r\n") {
                let _ = writeln!(played, "{}", format!("< {}", line.escape_default()).trim_end());
            }
        } else if line.starts_with('#') || line.is_empty() {
            let _ = writeln!(played, "{line}");
        }
    }
    played
}

/// The file was recorded from a real Redis, see its head.
#[actix_rt::test]
async fn replies_are_those_of_redis() {
    let front = Front::start(settings()).await;
    let played = play(front.address).await;
    let mut command = "";
    let mut differ = Vec::new();
    for (ours, theirs) in played.lines().zip(GOLDEN.lines()) {
        if theirs.starts_with('>') {
            command = theirs;
        }
        if ours != theirs {
            differ.push(format!("{command}\n  ours   {ours}\n  Redis' {theirs}"));
        }
    }
    assert!(differ.is_empty(), "{} lines differ:\n{}", differ.len(), differ.join("\n"));
    assert_eq!(played.lines().count(), GOLDEN.lines().count());
}

/// Records the golden file from the empty Redis at `REDIS_ADDRESS`; see the file's head.
#[actix_rt::test]
#[ignore = "needs a redis-server"]
async fn record_the_golden_file() {
    let address = std::env::var("REDIS_ADDRESS").expect("REDIS_ADDRESS is host:port");
    let played = play(address.parse().unwrap()).await;
    std::fs::write(GOLDEN_PATH, played).unwrap();
}
