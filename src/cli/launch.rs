//! Node processes: started, waited for, described. Shared by `up` and `start`.
//!
//! A node's output goes to `DIR/ID/log`, appended; a log above [`LOG_BYTES_MAX`] is moved to
//! `log.old` when its node starts. What one run writes is not bounded: at level info a few lines an
//! event, never one a request.

use super::{
    Failure, Place,
    client::{Client, Reply},
    out::{BOLD, PLAIN},
};
use crate::{
    config::{Cluster, Node},
    pidfile::{holder, paused},
    serve::cannot_bind,
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    net::TcpListener,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};
use tokio::time::sleep;

/// A log above this is moved aside before its node starts.
const LOG_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// How much of the end of a log is read to show …
const TAIL_BYTES: u64 = 8 * 1024;
/// … so many lines.
const TAIL_LINES: usize = 10;
/// How often a starting node is asked.
const LOOK: Duration = Duration::from_millis(20);
/// How long a read of a starting node is waited for before another is tried: less than a deadline,
/// which a read spends that came before the other nodes.
const PROBE_TIME: Duration = Duration::from_millis(500);
/// Read to see whether a node serves data; no key of this name need exist.
const PROBE_KEY: &[u8] = b"dynamo:ready";

/// A process of a node that was started here.
pub(crate) struct Launched {
    pub(crate) node: Node,
    pub(crate) child: Child,
    log: PathBuf,
    /// Where this run's part of the log starts.
    log_start: u64,
}

/// How a started process is tied to this one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tie {
    /// It ends when this process does, but not with its Ctrl-C: that reaches this one's group only.
    Owned,
    /// It outlives this process and the terminal.
    Detached,
}

/// Starts a node's process, of this very program.
pub(super) fn launch(place: &Place, node: &Node, tie: Tie) -> Result<Launched, Failure> {
    launch_program(&std::env::current_exe()?, place, node, tie)
}

/// Starts a node's process of another `dynamo`.
pub(crate) fn launch_program(
    program: &Path,
    place: &Place,
    node: &Node,
    tie: Tie,
) -> Result<Launched, Failure> {
    let dir = place.of(node.id);
    let named = |path: PathBuf| {
        move |error: io::Error| {
            let what = "choose a directory that can be written with --data-dir DIR";
            Failure::new(format!("cannot write {}: {error}: {what}", path.display()))
        }
    };
    std::fs::create_dir_all(&dir).map_err(named(dir.clone()))?;
    let path = dir.join("log");
    let (log, log_start) = open_log(&path).map_err(named(path.clone()))?;
    let mut command = Command::new(program);
    command.arg("node").arg(node.id.to_string());
    command.arg("--config").arg(&place.config).arg("--data-dir").arg(&place.data_dir);
    match tie {
        Tie::Owned => command.arg("--owner").arg(std::process::id().to_string()).process_group(0),
        Tie::Detached => command.arg("--detached"),
    };
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let child = command
        .spawn()
        .map_err(|error| Failure::new(format!("cannot start node {}: {error}", node.id)))?;
    Ok(Launched { node: *node, child, log: path, log_start })
}

fn open_log(path: &PathBuf) -> io::Result<(File, u64)> {
    if std::fs::metadata(path).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
        std::fs::rename(path, path.with_extension("old"))?;
    }
    let log = OpenOptions::new().create(true).append(true).open(path)?;
    let start = log.metadata()?.len();
    Ok((log, start))
}

impl Launched {
    /// The last lines that this run has written to its log, indented.
    pub(crate) fn tail(&self) -> String {
        let read = || -> io::Result<Vec<u8>> {
            let mut log = File::open(&self.log)?;
            let end = log.metadata()?.len();
            log.seek(SeekFrom::Start(self.log_start.max(end.saturating_sub(TAIL_BYTES))))?;
            let mut bytes = Vec::new();
            log.take(TAIL_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<_> = text.lines().collect();
        let from = lines.len().saturating_sub(TAIL_LINES);
        lines.iter().skip(from).map(|line| format!("\n  {line}")).collect()
    }

    /// That the process has ended before its node answered, with the end of its log.
    pub(super) fn died(&self, status: ExitStatus) -> Failure {
        let Node { id, .. } = self.node;
        let (log, tail) = (self.log.display(), self.tail());
        let last = if tail.is_empty() { "it left no log" } else { "the end of its log" };
        Failure::new(format!("node {id} did not start, it {}; {last} ({log}):{tail}", how(status)))
    }
}

/// How a process ended.
pub(crate) fn how(status: ExitStatus) -> String {
    let signal = status.signal().map(nix::sys::signal::Signal::try_from);
    match (status.code(), signal) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(Ok(signal))) => format!("was ended by {signal}"),
        (None, _) => "was ended by a signal".to_owned(),
    }
}

/// Waits until a node serves data: PONG, and a read that is answered with a value or none.
pub(crate) async fn serves(cluster: &Cluster, node: &Node) {
    let password = cluster.password.as_ref().map(|password| password.0.as_str());
    loop {
        if let Ok(mut client) = Client::connect(node, password).await {
            // -LOADING and -NOQUORUM are errors: the others may not be there yet.
            while let Ok(reply) = client.call(&[b"GET", PROBE_KEY], PROBE_TIME).await {
                if matches!(reply, Reply::Bulk(_)) {
                    return;
                }
                sleep(LOOK).await;
            }
        }
        sleep(LOOK).await;
    }
}

/// Checks that a node is not running and that its addresses are free, so that what is in the way is
/// named before anything is started.
pub(super) fn free(place: &Place, node: &Node) -> Result<(), Failure> {
    let id = node.id;
    if let Some(pid) = holder(&place.pid_file(id)) {
        return Err(Failure::new(match paused(pid) {
            true => {
                let resume = place.command(&format!("resume {id}"));
                format!("node {id} is paused (pid {pid}); let it go on with: {resume}")
            }
            false => {
                format!("node {id} is already running (pid {pid}); stop it with: kill {pid}")
            }
        }));
    }
    for (purpose, address) in [("client", node.client), ("peer", node.peer), ("http", node.http)] {
        TcpListener::bind(address)
            .map_err(|error| Failure::new(cannot_bind(address, purpose, id, &error)))?;
    }
    Ok(())
}

/// The line that tells where a node is.
pub(super) fn describe(cluster: &Cluster, node: &Node, pid: u32) -> String {
    let share = 100.0 * cluster.ring().share(node.id);
    format!(
        "{BOLD}{}{PLAIN}  pid {pid:<7}  client {}  peer {}  http {}  {share:4.1} % of the ring",
        node.id, node.client, node.peer, node.http
    )
}
