//! `status`: every node, as each says itself on `/status`.
//!
//! All are asked at once, and one that does not answer within [`ANSWER_TIME`] is shown as that; why
//! is told where this machine knows: its pid file is held by a process that runs, or is stopped, or
//! by none.
//!
//! The exit code is 0 if at least one node answers. The http client is twenty lines of own: one GET,
//! read to the end, bounded.

use super::{
    Failure, Place,
    out::{self, BOLD, GREEN, PLAIN, RED, YELLOW},
};
use crate::{
    config::{Cluster, Node},
    http::StatusPage,
    pidfile::{holder, paused},
};
use clap::Args;
use futures::future::join_all;
use nix::unistd::Pid;
use serde::Serialize;
use std::{io, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long a node may take to answer.
const ANSWER_TIME: Duration = Duration::from_millis(500);
/// Bytes of an answer: a page of thousands of nodes.
const PAGE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// `status`
#[derive(Args, Debug)]
pub(super) struct StatusArguments {
    /// As JSON: one array, one object a node, in ring order.
    #[arg(long)]
    json: bool,
}

/// One node. Fields are added, never renamed or given another meaning.
#[derive(Debug, Serialize)]
struct Seen {
    /// Its id.
    id: u32,
    /// `starting`, `learning`, `serving`, or `no answer`, `paused`, `down`.
    state: &'static str,
    /// Its process, where it runs on this machine with this data directory.
    pid: Option<i32>,
    client: String,
    peer: String,
    http: String,
    /// The part of the ring it coordinates, 0 to 1.
    share: f64,
    /// Why there is no answer.
    error: Option<String>,
    /// What it says.
    status: Option<StatusPage>,
}

/// Asks every node and prints what they say.
pub(super) async fn run(
    cluster: &Cluster,
    place: &Place,
    arguments: &StatusArguments,
) -> Result<(), Failure> {
    let ring = cluster.ring();
    let nodes = ring.nodes().map(|id| cluster.node(id)).collect::<Result<Vec<_>, _>>()?;
    let seen = join_all(nodes.into_iter().map(|node| look(cluster, place, node))).await;
    if arguments.json {
        let json = serde_json::to_string_pretty(&seen)
            .map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?;
        out::line(json)?;
    } else {
        table(&seen)?;
    }
    if seen.iter().all(|node| node.status.is_none()) {
        let start = place.command("up");
        return Err(Failure::new(format!("no node answers; start them with: {start}")));
    }
    Ok(())
}

async fn look(cluster: &Cluster, place: &Place, node: &Node) -> Seen {
    let answer = timeout(ANSWER_TIME, ask(cluster, node)).await;
    let answer = answer.unwrap_or_else(|_| {
        let what = format!("nothing within {} ms", ANSWER_TIME.as_millis());
        Err(io::Error::new(io::ErrorKind::TimedOut, what))
    });
    let pid = holder(&place.pid_file(node.id));
    let state = match (&answer, pid) {
        (Ok(page), _) => phase(&page.phase),
        (Err(_), Some(pid)) if paused(pid) => "paused",
        (Err(error), None) if error.kind() == io::ErrorKind::ConnectionRefused => "down",
        (Err(_), _) => "no answer",
    };
    let error = answer.as_ref().err().map(ToString::to_string);
    Seen {
        id: node.id.0,
        state,
        pid: pid.map(Pid::as_raw),
        client: node.client.to_string(),
        peer: node.peer.to_string(),
        http: node.http.to_string(),
        share: cluster.ring().share(node.id),
        error,
        status: answer.ok(),
    }
}

/// The states this version knows; a newer node's word is not printed unseen.
fn phase(name: &str) -> &'static str {
    match name {
        "starting" => "starting",
        "learning" => "learning",
        "serving" => "serving",
        _ => "unknown",
    }
}

/// What a node says of itself, as long as the connection takes.
pub(crate) async fn ask(cluster: &Cluster, node: &Node) -> io::Result<StatusPage> {
    let strange = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut stream = TcpStream::connect(node.http).await?;
    let proof = cluster
        .password
        .as_ref()
        .map_or_else(String::new, |password| format!("Authorization: Bearer {}\r\n", password.0));
    let request = format!("GET /status HTTP/1.0\r\nHost: {}\r\n{proof}\r\n", node.http);
    stream.write_all(request.as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.take(PAGE_BYTES_MAX).read_to_end(&mut bytes).await?;
    let text = String::from_utf8(bytes).map_err(|_| strange("an answer that is not text"))?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| strange("half an answer"))?;
    let first = head.lines().next().unwrap_or_default();
    match first.split(' ').nth(1) {
        Some("200") => serde_json::from_str(body).map_err(io::Error::from),
        _ => Err(strange(&format!("{first}: {}", body.trim_end()))),
    }
}

fn table(seen: &[Seen]) -> io::Result<()> {
    out::line(format!(
        "{BOLD}{:<10} {:<9} {:>7} {:<21} {:>6} {:>9} {:>9} {:<5} {:>10} {:>7} {:>7}  {}{PLAIN}",
        "NODE",
        "STATE",
        "PID",
        "CLIENT",
        "SHARE",
        "KEYS",
        "ROWS",
        "LEVEL",
        "OPERATIONS",
        "REFUSED",
        "UNKNOWN",
        "SUSPECTS"
    ))?;
    seen.iter().try_for_each(|node| out::line(row(node)))
}

fn row(node: &Seen) -> String {
    let colour = match node.state {
        "serving" => GREEN,
        "starting" | "learning" | "paused" => YELLOW,
        _ => RED,
    };
    let pid = node.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    let share = format!("{:.1} %", 100.0 * node.share);
    let start = format!(
        "{:<10} {colour}{:<9}{PLAIN} {pid:>7} {:<21} {share:>6}",
        node.id, node.state, node.client
    );
    let Some(page) = &node.status else {
        return format!("{start} {}", node.error.as_deref().unwrap_or_default());
    };
    let suspects: Vec<_> = page
        .nodes
        .iter()
        .filter(|row| row.standing == "suspected")
        .map(|row| row.id.to_string())
        .collect();
    format!(
        "{start} {:>9} {:>9} {:<5} {:>10} {:>7} {:>7}  {}",
        page.live,
        page.rows,
        if page.level { "yes" } else { "no" },
        page.operations,
        page.refused,
        page.unknown,
        if suspects.is_empty() { "-".to_owned() } else { suspects.join(" ") }
    )
}
