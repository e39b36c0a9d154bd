//! `up`: every node of the cluster on this machine, in the foreground.
//!
//! Nothing is started before the file, the pid files and every port have been looked at. From then on
//! one loop waits for whichever comes first: all nodes answer, a child ends, a signal. Whatever ends
//! `up`, the nodes end with it: it stops them on SIGINT, SIGTERM and SIGHUP
//! (unless under `nohup`), and the kernel does
//! (`--owner`) should it be killed itself.
//!
//! Caveat: a node that was killed and then brought back by `dynamo start` is no child of this
//! process; it is found by its pid file and stopped with the others.

use super::{
    Failure, Place,
    launch::{Launched, Tie, describe, free, how, launch, serves},
    out::{self, BOLD, PLAIN, YELLOW},
};
use crate::{
    config::Cluster,
    pidfile::{Claimed, PidFile, holder},
};
use futures::{StreamExt, stream::FuturesUnordered};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use simpledynamo_protocol::ring::NodeId;
use std::{collections::BTreeSet, time::Duration};
use tokio::{
    signal::unix::{self, SignalKind, signal},
    time::{Instant, sleep, timeout},
};

/// How long all nodes may take to open their stores and find each other.
const START_TIME: Duration = Duration::from_secs(60);
/// How long a node may take to stop before it is killed.
const STOP_TIME: Duration = Duration::from_secs(10);
/// How often a stopping node is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Runs the cluster until a signal.
pub(super) async fn run(cluster: &Cluster, place: &Place) -> Result<(), Failure> {
    let _only = claim(place)?;
    for node in &cluster.nodes {
        free(place, node)?;
        // A peer address that nobody can connect to is found before the first node is started.
        cluster.settings(node.id, &place.data_dir)?;
    }
    let mut signals = Signals::new()?;
    let mut ring = Ring { cluster, place, launched: Vec::new(), gone: BTreeSet::new() };
    let end = ring.live(&mut signals).await;
    tokio::select! {
        () = ring.stop() => return end,
        _ = signals.stop.next() => {}
    }
    out::note("a second signal: killing what is left");
    ring.kill().await;
    end
}

/// Keeps a second `up` off the same data directory.
fn claim(place: &Place) -> Result<PidFile, Failure> {
    let dir = &place.data_dir;
    let path = dir.join("up.pid");
    let cannot = |error| {
        let what = "choose a directory that can be written with --data-dir DIR";
        Failure::new(format!("cannot write {}: {error}: {what}", path.display()))
    };
    std::fs::create_dir_all(dir).map_err(cannot)?;
    PidFile::claim(&path).map_err(|claimed| match claimed {
        Claimed::By(pid) => Failure::new(format!(
            "another `up` runs in {}{}: stop that one first, or choose another directory with \
             --data-dir DIR",
            dir.display(),
            pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
        )),
        Claimed::Io(error) => cannot(error),
    })
}

struct Ring<'a> {
    cluster: &'a Cluster,
    place: &'a Place,
    launched: Vec<Launched>,
    /// Children that have ended and of which it has been told.
    gone: BTreeSet<NodeId>,
}

impl Ring<'_> {
    /// From the first start to the signal, or to the failure that ends the start.
    async fn live(&mut self, signals: &mut Signals) -> Result<(), Failure> {
        let began = Instant::now();
        for node in &self.cluster.nodes {
            self.launched.push(launch(self.place, node, Tie::Owned)?);
        }
        if !self.start(signals).await? {
            out::note("stopping before all nodes were up");
            return Ok(());
        }
        // Err: nobody reads the lines; a ring does not stop for that.
        let _ = self.announce(began);
        loop {
            tokio::select! {
                _ = signals.child.recv() => self.tell_the_gone()?,
                name = signals.stop.next() => {
                    out::note(format!("{name}: stopping {} nodes", self.alive().len()));
                    return Ok(());
                }
            }
        }
    }

    /// Waits until every node serves; false where a signal came first.
    async fn start(&mut self, signals: &mut Signals) -> Result<bool, Failure> {
        let cluster = self.cluster;
        let total = cluster.nodes.len();
        let mut waiting: BTreeSet<_> = cluster.nodes.iter().map(|node| node.id).collect();
        let mut answers: FuturesUnordered<_> = cluster
            .nodes
            .iter()
            .map(|node| async move {
                serves(cluster, node).await;
                node.id
            })
            .collect();
        let late = sleep(START_TIME);
        tokio::pin!(late);
        while !waiting.is_empty() {
            out::progress(format!("starting: {} of {total} nodes answer", total - waiting.len()));
            tokio::select! {
                Some(id) = answers.next() => {
                    waiting.remove(&id);
                }
                _ = signals.child.recv() => {
                    for launched in &mut self.launched {
                        if let Some(status) = launched.child.try_wait()? {
                            out::progress("");
                            return Err(launched.died(status));
                        }
                    }
                }
                _ = signals.stop.next() => {
                    out::progress("");
                    return Ok(false);
                }
                () = &mut late => {
                    out::progress("");
                    return Err(self.late(&waiting));
                }
            }
        }
        out::progress("");
        Ok(true)
    }

    /// That some nodes do not answer, with the ends of their logs.
    fn late(&self, waiting: &BTreeSet<NodeId>) -> Failure {
        let mut message = format!("not all nodes answer after {} s", START_TIME.as_secs());
        for launched in self.launched.iter().filter(|one| waiting.contains(&one.node.id)) {
            message.push_str(&format!("\nnode {}:{}", launched.node.id, launched.tail()));
        }
        Failure::new(message)
    }

    fn announce(&self, began: Instant) -> Result<(), Failure> {
        for launched in &self.launched {
            out::line(describe(self.cluster, &launched.node, launched.child.id()))?;
        }
        let Some(first) = self.cluster.nodes.first() else { return Ok(()) };
        let seconds = began.elapsed().as_secs_f64();
        let host = match first.client.ip() {
            ip if ip == std::net::Ipv4Addr::LOCALHOST || ip.is_unspecified() => String::new(),
            ip => format!("-h {ip} "),
        };
        let password = if self.cluster.password.is_some() { "--askpass " } else { "" };
        out::line(format!("all {} nodes are up after {seconds:.1} s; try:", self.launched.len()))?;
        out::line(format!(
            "{BOLD}redis-cli {host}-p {} {password}set greeting hello{PLAIN}",
            first.client.port()
        ))?;
        out::note("Ctrl-C stops all nodes");
        Ok(())
    }

    /// One line for each child that has ended since the last look.
    fn tell_the_gone(&mut self) -> Result<(), Failure> {
        for launched in &mut self.launched {
            let id = launched.node.id;
            if self.gone.contains(&id) {
                continue;
            }
            if let Some(status) = launched.child.try_wait()? {
                self.gone.insert(id);
                out::note(format!(
                    "{YELLOW}node {id}{PLAIN} (pid {}) {}; bring it back with: {}",
                    launched.child.id(),
                    how(status),
                    self.place.command(&format!("start {id}"))
                ));
            }
        }
        Ok(())
    }

    /// Stops every node: SIGTERM, and SIGKILL for those still there after [`STOP_TIME`].
    async fn stop(&mut self) {
        self.send(Signal::SIGTERM);
        // A paused one has the SIGTERM pending until it goes on.
        self.send(Signal::SIGCONT);
        if timeout(STOP_TIME, self.ended()).await.is_err() {
            let left: Vec<_> = self.alive().iter().map(|(id, _)| id.to_string()).collect();
            let seconds = STOP_TIME.as_secs();
            out::note(format!("still there after {seconds} s, killed: {}", left.join(", ")));
            self.kill().await;
        }
    }

    async fn kill(&mut self) {
        self.send(Signal::SIGKILL);
        // Err: one waits for its disk in the kernel; it will end without us.
        let _ = timeout(STOP_TIME, self.ended()).await;
    }

    async fn ended(&mut self) {
        while !self.alive().is_empty() {
            sleep(LOOK).await;
        }
    }

    fn send(&mut self, signal: Signal) {
        for (id, pid) in self.alive() {
            if let Err(error) = kill(pid, signal) {
                out::note(format!("cannot send {signal} to node {id} (pid {pid}): {error}"));
            }
        }
    }

    /// The processes that run: children that have not been reaped, whose pids cannot be another's,
    /// and those that took the place of a child.
    fn alive(&mut self) -> Vec<(NodeId, Pid)> {
        let mut alive = Vec::new();
        for launched in &mut self.launched {
            let id = launched.node.id;
            let child = i32::try_from(launched.child.id()).ok().map(Pid::from_raw);
            let pid = match launched.child.try_wait() {
                Ok(None) => child,
                _ => holder(&self.place.pid_file(id)),
            };
            alive.extend(pid.map(|pid| (id, pid)));
        }
        alive
    }
}

/// What may happen from outside.
struct Signals {
    stop: StopSignals,
    /// A child has ended, stopped or gone on.
    child: unix::Signal,
}

/// The signals that ask to stop.
pub(super) struct StopSignals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    /// None under `nohup`, which asks that it be ignored.
    hangup: Option<unix::Signal>,
}

impl Signals {
    fn new() -> std::io::Result<Signals> {
        Ok(Signals { stop: StopSignals::new()?, child: signal(SignalKind::child())? })
    }
}

impl StopSignals {
    /// From now on they no longer end the process by themselves.
    pub(super) fn new() -> std::io::Result<StopSignals> {
        Ok(StopSignals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: if hangup_ignored() { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    /// Waits for a signal that asks to stop; its name.
    pub(super) async fn next(&mut self) -> &'static str {
        let hangup = async {
            match &mut self.hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = hangup => "SIGHUP",
        }
    }
}

/// Whether this process was started with SIGHUP ignored: `SigIgn:` is a mask, signal 1 its last bit.
fn hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|m| m & 1 == 1)
}
