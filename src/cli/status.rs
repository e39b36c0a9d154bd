//! `status`: every node, as each says itself on `/status`.
//!
//! All are asked at once, and one that does not answer within [`ANSWER_TIME`] is shown as that; why
//! is told where this machine knows: its pid file is held by a process that runs, or is stopped, or
//! by none.
//!
//! The exit code is 0 if at least one node answers.

use super::{
    Failure, Place,
    out::{self, BOLD, GREEN, PLAIN, RED, YELLOW},
};
use crate::{
    config::{Cluster, Node},
    http::{StatusPage, ask::get},
    pidfile::{holder, paused},
};
use clap::Args;
use futures::future::join_all;
use nix::unistd::Pid;
use serde::Serialize;
use std::{
    io::{self, IsTerminal},
    time::Duration,
};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How long a node may take to answer.
const ANSWER_TIME: Duration = Duration::from_millis(500);

/// `status`
#[derive(Args, Debug)]
pub(super) struct StatusArguments {
    /// As JSON: one array, one object a node, in ring order; with --watch one line a look.
    #[arg(long)]
    json: bool,
    /// Look again and again, every so many seconds (1 without a number), until Ctrl-C.
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "1",
        value_parser = clap::value_parser!(u64).range(1..=3600)
    )]
    watch: Option<u64>,
}

/// One node. Fields are added, never renamed or given another meaning.
#[derive(Debug, Serialize)]
pub(super) struct Seen {
    /// Its id.
    pub(super) id: u32,
    /// `starting`, `learning`, `serving`, or `no answer`, `paused`, `down`.
    pub(super) state: &'static str,
    /// Its process, where it runs on this machine with this data directory.
    pid: Option<i32>,
    client: String,
    peer: String,
    http: String,
    /// The part of the ring it coordinates, 0 to 1.
    share: f64,
    /// Why there is no answer.
    pub(super) error: Option<String>,
    /// What it says.
    pub(super) status: Option<StatusPage>,
}

impl Seen {
    /// Whether its replica votes.
    pub(super) fn votes(&self) -> bool {
        self.state == "serving"
    }
}

/// Asks every node and prints what they say. Whoever reads may leave when it has seen enough.
pub(super) async fn run(
    cluster: &Cluster,
    place: &Place,
    arguments: &StatusArguments,
) -> Result<(), Failure> {
    let end = match arguments.watch {
        None => once(cluster, place, arguments.json).await,
        Some(seconds) => watch(cluster, place, arguments.json, seconds).await,
    };
    end.or_else(|failure| if failure.unread { Ok(()) } else { Err(failure) })
}

async fn once(cluster: &Cluster, place: &Place, json: bool) -> Result<(), Failure> {
    let seen = all(cluster, place).await?;
    if json {
        let json = serde_json::to_string_pretty(&seen)
            .map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?;
        out::line(json)?;
    } else {
        table(&seen)?;
    }
    if seen.iter().all(|node| node.status.is_none()) {
        let turned_away = |node: &Seen| node.error.as_ref().is_some_and(|it| it.contains(" 401 "));
        if seen.iter().any(turned_away) {
            let why = "the nodes do not take this password; give the ring's in DYNAMO_PASSWORD";
            return Err(Failure::new(format!("{why} or `password`")));
        }
        let start = place.command("up");
        return Err(Failure::new(format!("no node answers; start them with: {start}")));
    }
    Ok(())
}

/// On a terminal each table takes the place of the one before; elsewhere they follow one another.
async fn watch(cluster: &Cluster, place: &Place, json: bool, seconds: u64) -> Result<(), Failure> {
    let mut ticks = interval(Duration::from_secs(seconds));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let seen = all(cluster, place).await?;
        if json {
            let json = serde_json::to_string(&seen)
                .map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?;
            out::line(json)?;
            continue;
        }
        if io::stdout().is_terminal() {
            out::line(out::CLEAR)?;
        }
        table(&seen)?;
        loads(&seen)?;
    }
}

/// Every node, in ring order.
pub(super) async fn all(cluster: &Cluster, place: &Place) -> Result<Vec<Seen>, Failure> {
    let ring = cluster.ring();
    let nodes = ring.nodes().map(|id| cluster.node(id)).collect::<Result<Vec<_>, _>>()?;
    Ok(join_all(nodes.into_iter().map(|node| look(cluster, place, node))).await)
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
    let text = get(node.http, "/status", cluster.password.as_ref()).await?;
    serde_json::from_str(&text).map_err(io::Error::from)
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

/// What each did in the last five seconds.
fn loads(seen: &[Seen]) -> io::Result<()> {
    let titles = LOAD_COLUMNS.map(|(title, _)| format!("{title:>9}")).join(" ");
    out::line(format!("\n{BOLD}{:<10}{titles}{PLAIN}", "NODE"))?;
    for node in seen {
        let cells = LOAD_COLUMNS.map(|(_, words)| {
            let words = node.status.as_ref().map_or_else(|| "-".to_owned(), words);
            format!("{words:>9}")
        });
        out::line(format!("{:<10}{}", node.id, cells.join(" ")))?;
    }
    out::line("")
}

/// What a column shows of a node that answers.
pub(super) type Words = fn(&StatusPage) -> String;

/// Load, latency, queues and syncs of a node, for `status --watch` and `top`.
pub(super) const LOAD_COLUMNS: [(&str, Words); 10] = [
    ("OP/S", |page| format!("{:.0}", page.load.operations_per_second)),
    ("P50", |page| span(page.load.p50_micros)),
    ("P99", |page| span(page.load.p99_micros)),
    ("FAILED/S", |page| format!("{:.0}", page.load.failures_per_second)),
    ("IN FLIGHT", |page| page.in_flight.to_string()),
    ("QUEUE", |page| page.queued.to_string()),
    ("SYNC P50", |page| span(page.load.sync_p50_micros)),
    ("SYNC P99", |page| span(page.load.sync_p99_micros)),
    ("OPS/SYNC", |page| {
        page.load.operations_per_commit.map_or_else(|| "-".to_owned(), |ops| format!("{ops:.1}"))
    }),
    ("KEYS", |page| page.live.to_string()),
];

/// Microseconds as people read them.
fn span(micros: Option<u64>) -> String {
    micros.map_or_else(|| "-".to_owned(), crate::flow::diagram::micros)
}
