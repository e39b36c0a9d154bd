//! `torture`: a ring of five of its own under load and faults, and a verdict.
//!
//! ```text
//! faults ─ kill, stop ─▸ ring (five processes) ◂─ proxies ◂─ hold, slow down, cut ─ faults
//!                          ▴
//!   load (clients) ────────┘ ─ operations ─▸ slices ─ complete ones ─▸ judge (checker)
//! ```
//!
//! | module | its one duty |
//! |---|---|
//! | `faults` | which node suffers what, when |
//! | `load` | clients, and what they were told |
//! | `slices` | the history, in parts of bounded size |
//! | `judge` | checker, last reads, equal replicas |
//! | `figures` | counters, and the printed report |
//!
//! Caveats. The seed decides the faults and what clients ask, not how operations, processes and the
//! machine's other work interleave: a second run of a seed is another run. Clients, proxies and nodes
//! share this machine, so its times are upper bounds. Clocks and disks are left alone.

mod faults;
mod figures;
mod judge;
mod load;
mod slices;

use super::{Failure, Strategy, out, up::StopSignals};
use crate::{
    config::Cluster,
    processes::fleet::{Fleet, IDS, Plan},
};
use clap::Args;
use faults::{Fault, Kind};
use figures::Figures;
use judge::Judged;
use load::Worker;
use simpledynamo_protocol::record::Key;
use slices::{SLICE_OPERATIONS, Slice, Slices, WAITING_MAX};
use std::{
    cell::{Cell, RefCell},
    fs::OpenOptions,
    io::{self, Write},
    path::PathBuf,
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, LocalSet, spawn_local},
    time::{Instant, sleep},
};

/// How often the line on the terminal is written anew.
const PROGRESS: Duration = Duration::from_millis(500);

/// The end of the help.
pub(super) const CAVEATS: &str = "\
An error counts as expected only where the node asked was disturbed at some time of the operation.
History is checked in slices of 20,000 operations with fresh keys each, so memory stays bounded; a
file written with --record can be judged again by `dynamo check`.

Exit codes: 0 linearizable, replicas equal, no unexpected error; 1 not so, or something failed: the
directory with logs, data and faults.txt is then kept and named.";

/// `torture`
#[derive(Args, Debug)]
pub(super) struct TortureArguments {
    /// For how long; it goes on until each kind of fault has come once.
    #[arg(long, value_name = "N", value_parser = minutes)]
    minutes: Duration,
    /// How many clients work at a time.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1000))]
    clients: u32,
    /// How many keys they share at a time.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    keys: u32,
    /// Decides faults and operations; by default another each time, and printed.
    #[arg(long)]
    seed: Option<u64>,
    /// How the nodes of a key agree.
    #[arg(long, value_enum, default_value = "quorum")]
    replication: Strategy,
    /// Threads of each node that its keys are spread over; 0: none.
    #[arg(long, value_name = "N", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u32).range(0..=64))]
    workers: u32,
    /// Write every operation to FILE, a line of JSON each.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Which kinds of faults.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "kill,pause,partition,delay,cut"
    )]
    faults: Vec<Kind>,
    /// For tests of the judge, in debug builds only: one in N writes is acknowledged and never sent,
    /// as by a ring that loses what it has acknowledged.
    #[cfg(debug_assertions)]
    #[arg(long, hide = true, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    lose_one_in: Option<u64>,
}

impl TortureArguments {
    /// How seldom a write is lost on purpose; none where it is not a test of the judge.
    fn lose_one_in(&self) -> Option<u64> {
        #[cfg(debug_assertions)]
        return self.lose_one_in;
        #[cfg(not(debug_assertions))]
        None
    }
}

fn minutes(text: &str) -> Result<Duration, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..=100_000.0).contains(number));
    let wrong = || format!("\"{text}\" is no number of minutes: write one such as 2 or 0.5");
    number.map(|number| Duration::from_secs_f64(60.0 * number)).ok_or_else(wrong)
}

/// A node as the faults leave it.
#[derive(Default)]
struct Door {
    disturbed: Cell<bool>,
    /// Counts beginnings and ends of faults.
    changes: Cell<u64>,
}

/// What the tasks of a run share; all are on one thread.
struct Shared {
    seed: u64,
    clients: u32,
    keys: usize,
    lose_one_in: Option<u64>,
    cluster: Rc<Cluster>,
    ring: simpledynamo_protocol::ring::Ring,
    dir: PathBuf,
    start: Instant,
    end: Cell<Instant>,
    stopping: Cell<bool>,
    failure: RefCell<Option<Failure>>,
    doors: Vec<Door>,
    /// What happens at the moment, for the terminal.
    now_at: RefCell<String>,
    checked: Cell<u32>,
    slices: RefCell<Slices>,
    figures: RefCell<Figures>,
}

impl Shared {
    /// Whether clients and faults go on.
    fn running(&self) -> bool {
        !self.stopping.get()
    }

    fn time_is_over(&self) -> bool {
        Instant::now() >= self.end.get()
    }

    /// Whether something failed, so that waiting for a node makes no sense.
    fn given_up(&self) -> bool {
        self.failure.borrow().is_some()
    }

    /// Ends the run because of `failure`; the first is told.
    fn fail(&self, failure: Failure) {
        self.stopping.set(true);
        self.failure.borrow_mut().get_or_insert(failure);
    }

    /// Microseconds since the start.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn is_disturbed(&self, node: usize) -> bool {
        self.doors.get(node).is_some_and(|door| door.disturbed.get())
    }

    /// To be given to [`Shared::excused`] later.
    fn standing(&self, node: usize) -> u64 {
        self.doors.get(node).map_or(0, |door| door.changes.get())
    }

    /// Whether a node is disturbed, or was at some time since `before`.
    fn excused(&self, node: usize, before: u64) -> bool {
        self.is_disturbed(node) || self.standing(node) != before
    }

    fn unexpected(&self, text: String) {
        self.figures.borrow_mut().error(text, false);
    }

    /// Index of the first coordinator of a key.
    fn coordinator(&self, key: &Key) -> usize {
        let first = self.ring.replicas_of(key).first().copied();
        let is_first = |node: &crate::config::Node| Some(node.id) == first;
        self.cluster.nodes.iter().position(is_first).unwrap_or(0)
    }

    /// A fault begins at a node.
    fn disturb(&self, node: usize, fault: Fault) -> Result<(), Failure> {
        self.figures.borrow_mut().fault(fault.to_string(), node);
        self.change(node, true, &fault.to_string())
    }

    /// A node is level again.
    fn calm(&self, node: usize) -> Result<(), Failure> {
        self.change(node, false, "level again")
    }

    fn change(&self, node: usize, disturbed: bool, what: &str) -> Result<(), Failure> {
        let (Some(door), Some(described)) = (self.doors.get(node), self.cluster.nodes.get(node))
        else {
            return Ok(());
        };
        door.disturbed.set(disturbed);
        door.changes.set(door.changes.get() + 1);
        let text = format!("{}: {what}", described.id);
        let file = self.dir.join("faults.txt");
        let mut file = OpenOptions::new().create(true).append(true).open(file)?;
        writeln!(file, "{:>12} µs  {text}", self.now())?;
        self.now_at.replace(text);
        Ok(())
    }
}

/// Runs all of it.
pub(super) async fn run(arguments: &TortureArguments) -> Result<(), Failure> {
    LocalSet::new().run_until(supervise(arguments)).await
}

/// A session from its directory to its end, however it ends.
async fn supervise(arguments: &TortureArguments) -> Result<(), Failure> {
    let mut signals = StopSignals::new()?;
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_micros());
    let seed = arguments.seed.unwrap_or_else(|| u64::try_from(clock() % 1_000_000).unwrap_or(0));
    let program = std::env::current_exe()?;
    let replication = match arguments.replication {
        Strategy::Quorum => "quorum",
        Strategy::Chain => "chain",
    };
    let settings = format!("replication = \"{replication}\"\nworkers = {}\n", arguments.workers);
    let (name, ids) = ("torture", IDS.to_vec());
    let mut ring = Fleet::new(Plan { name, program, ids, settings, seed })?;
    let end = match share(arguments, seed, &ring) {
        Ok((shared, complete)) => {
            let end = tokio::select! {
                end = session(&shared, &mut ring, arguments, complete) => Some(end),
                () = interrupts(&shared, &mut signals) => None,
            };
            match end {
                Some(end) => {
                    ring.stop().await;
                    end
                }
                None => Err(Failure::new("stopped by a second signal")),
            }
        }
        Err(failure) => Err(failure),
    };
    ring.kill_all();
    out::progress("");
    match &end {
        Ok(()) => ring.remove()?,
        Err(_) => {
            out::note(format!("logs, data and faults.txt are kept in {}", ring.dir.display()))
        }
    }
    end
}

fn share(
    arguments: &TortureArguments,
    seed: u64,
    ring: &Fleet,
) -> Result<(Rc<Shared>, mpsc::Receiver<Slice>), Failure> {
    let (sender, complete) = mpsc::channel(WAITING_MAX);
    let nodes = ring.cluster.nodes.len();
    let start = Instant::now();
    let shared = Shared {
        seed,
        clients: arguments.clients,
        keys: usize::try_from(arguments.keys).unwrap_or(usize::MAX),
        lose_one_in: arguments.lose_one_in(),
        cluster: Rc::clone(&ring.cluster),
        ring: ring.cluster.ring(),
        dir: ring.dir.clone(),
        start,
        end: Cell::new(start),
        stopping: Cell::new(false),
        failure: RefCell::new(None),
        doors: (0..nodes).map(|_| Door::default()).collect(),
        now_at: RefCell::new("starting".to_owned()),
        checked: Cell::new(0),
        slices: RefCell::new(Slices::new(sender, arguments.record.as_deref())?),
        figures: RefCell::new(Figures::new(nodes)),
    };
    Ok((Rc::new(shared), complete))
}

/// The first signal ends the run early, with its figures; this returns at the second.
async fn interrupts(shared: &Shared, signals: &mut StopSignals) {
    let name = signals.next().await;
    shared.stopping.set(true);
    out::note(format!("{name}: ending early, the figures follow; once more to stop at once"));
    signals.next().await;
}

/// Load and faults until the time is over, then the verdict.
async fn session(
    shared: &Rc<Shared>,
    ring: &mut Fleet,
    arguments: &TortureArguments,
    complete: mpsc::Receiver<Slice>,
) -> Result<(), Failure> {
    ring.start().await?;
    let nodes = shared.doors.len();
    out::line(format!(
        "{nodes} nodes, {} clients, {} keys at a time, seed {}, directory {}",
        shared.clients,
        shared.keys,
        shared.seed,
        shared.dir.display()
    ))?;
    let began = Instant::now();
    shared.end.set(began + arguments.minutes);
    shared.figures.borrow_mut().begin();
    let clients: Vec<JoinHandle<()>> =
        (0..shared.clients).map(|id| spawn_local(Worker::new(id, shared.clone()).work())).collect();
    let judge = spawn_local(judge::judge(Rc::clone(shared), complete));
    let progress = spawn_local(progress(Rc::clone(shared), began));
    if let Err(failure) = faults::conduct(shared, ring, &arguments.faults).await {
        shared.fail(failure);
    }
    shared.stopping.set(true);
    for client in clients {
        client.await.map_err(io::Error::other)?;
    }
    let ran = began.elapsed();
    shared.slices.borrow_mut().finish()?;
    let judged = judge.await.map_err(io::Error::other)??;
    progress.abort();
    out::progress("");
    shared.slices.borrow_mut().flush()?;
    shared.figures.borrow().print(ran, &judged)?;
    if let Some(first) = &judged.first {
        out::line(first)?;
    }
    if let Some(failure) = shared.failure.borrow_mut().take() {
        return Err(failure);
    }
    for node in 0..nodes {
        ring.ready(node).await?;
    }
    let (compared, different) = judge::compare(shared, judged.slices).await?;
    figures::print_compared(compared, &different)?;
    let unexpected = shared.figures.borrow().unexpected();
    let wrong = objections(&judged, different.len(), unexpected);
    if wrong.is_empty() {
        return Ok(out::line("verdict       linearizable, nothing lost, three replicas equal")?);
    }
    out::line(format!("verdict       FAILED: {}", wrong.join(", ")))?;
    Err(Failure::new(wrong.join(", ")))
}

/// What speaks against a run; nothing where all is as it must be.
fn objections(judged: &Judged, different: usize, unexpected: u64) -> Vec<String> {
    let found = [
        (judged.wrong, "keys are not linearizable"),
        (judged.undecided, "keys are undecided"),
        (judged.unread, "keys could not be read at the end"),
        (different, "keys have replicas that differ"),
        (usize::try_from(unexpected).unwrap_or(usize::MAX), "errors are unexpected"),
    ];
    let wrong = found.iter().filter(|(count, _)| *count > 0);
    wrong.map(|(count, what)| format!("{count} {what}")).collect()
}

/// The line on the terminal.
async fn progress(shared: Rc<Shared>, began: Instant) {
    loop {
        {
            let figures = shared.figures.borrow();
            out::progress(format!(
                "{} s of {} s  {} operations  {:.3} %  {} slices checked  {}",
                began.elapsed().as_secs(),
                (shared.end.get() - began).as_secs(),
                figures.operations(),
                figures.availability(),
                shared.checked.get(),
                shared.now_at.borrow()
            ));
        }
        sleep(PROGRESS).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_is_an_objection() {
        let none = Judged::default;
        assert_eq!(objections(&none(), 0, 0), Vec::<String>::new());
        for judged in [
            Judged { wrong: 1, ..none() },
            Judged { undecided: 1, ..none() },
            Judged { unread: 1, ..none() },
        ] {
            assert_eq!(objections(&judged, 0, 0).len(), 1);
        }
        assert_eq!(objections(&none(), 2, 3).len(), 2);
    }
}
