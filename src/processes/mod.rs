//! The harness's second backend: a ring of real processes of `dynamo`, on real time, sockets and
//! disks, for the scenarios that [`simpledynamo_actors::harness`] also simulates.
//!
//! ```no_run
//! use simpledynamo::processes::processes;
//! use simpledynamo_actors::harness::{Cluster, Failure, Faults, Mix, ms, play};
//!
//! fn main() -> Result<(), Failure> {
//!     play(processes(7), |t| {
//!         t.after(ms(60), |t| t.pause("5560", ms(200)));
//!         let history = t.clients(5).run(Mix::default()).operations(500)?;
//!         t.heal_and_settle()?;
//!         Ok(history.assert_linearizable()?)
//!     })
//! }
//! ```
//!
//! | module | its one duty |
//! |---|---|
//! | `fleet` | directory, ports, configurations, processes, signals |
//! | `proxy` | the bytes of each directed peer link |
//! | `words` | commands and answers as bytes, and as a history has them |
//! | `clients` | what is asked, and the history of it |
//! | `looks` | what nodes say of themselves; what must be so in the end |
//! | `faults` | crashes, restarts, pauses, links; what is planned |
//!
//! `dynamo torture` works on the same fleet, with clients of its own that measure besides.
//!
//! A crash is SIGKILL, a pause SIGSTOP and SIGCONT, a wiped disk an empty directory; links are cut and
//! slowed down by proxies. A run that fails keeps its directory, with logs and data, and says where.
//!
//! Caveats: the seed decides what clients ask and where, not how processes and the machine's other
//! work interleave: a second run of a seed is another run. One ring lives at a time in a test
//! process, since two would wait for each other's processor and disk: whoever makes a second one
//! while the first lives, in one thread, waits for ever. Between the calls of a scenario the
//! processes go on, its clients and plans do not.

mod clients;
mod faults;
pub(crate) mod fleet;
mod looks;
pub(crate) mod proxy;
pub(crate) mod words;

use crate::cli::out;
use clients::{Batch, Connections, work};
pub use faults::Ring;
use fleet::{Fleet, IDS, LOOK, PATIENCE, Plan};
use simpledynamo_actors::harness::{
    Asker, Cluster, Disk, Failure, Faults, Held, Id, Mix, Pairs, Rng, seed_or,
};
use simpledynamo_protocol::{
    checker,
    command::Command,
    history::{History, Outcome},
    record::Key,
    ring::NodeId,
};
use std::{
    cell::Cell,
    future::Future,
    ops::Range,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    runtime::{Builder, Runtime},
    task::LocalSet,
    time::{Instant, sleep, timeout},
};

/// The number that single operations have as a client.
const NOBODY: u32 = u32::MAX;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// What a run is made of. The default is the shipped ring of five with shipped settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Decides what clients ask, where, and how late slow links are.
    pub seed: u64,
    /// The nodes' ids.
    pub nodes: Vec<u32>,
    /// Lines of `cluster.toml` above the nodes, such as `request_timeout = "50ms"`.
    pub settings: String,
    /// The binary `dynamo`. None: `DYNAMO` in the environment, or the one that Cargo has built beside
    /// the running test.
    pub program: Option<PathBuf>,
}

impl Config {
    /// The default, with this seed.
    #[must_use]
    pub fn new(seed: u64) -> Config {
        Config { seed, nodes: IDS.to_vec(), settings: String::new(), program: None }
    }

    /// Starts the ring and waits until every node serves.
    ///
    /// # Panics
    /// If the ring does not come up: nothing a scenario does would mean anything.
    #[must_use]
    pub fn start(self) -> Processes {
        match Processes::start(self) {
            Ok(processes) => processes,
            Err(failure) => panic!("{failure}"),
        }
    }
}

/// The shipped ring of five, up and serving, as real processes. `SEED` in the environment replaces
/// the seed.
#[must_use]
pub fn processes(seed: u64) -> Processes {
    Config::new(seed_or(seed)).start()
}

/// The binary of which nodes are made.
fn program(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let beside = || {
        let me = std::env::current_exe().ok()?;
        // A test lies in `deps` beside the binary, an example in `examples`.
        me.ancestors().skip(1).take(2).map(|dir| dir.join("dynamo")).find(|path| path.is_file())
    };
    let found = named.or_else(|| std::env::var_os("DYNAMO").map(PathBuf::from)).or_else(beside);
    found.filter(|path| path.is_file()).ok_or_else(|| Failure {
        text: "there is no binary of dynamo: build it with `cargo build`, or name one with \
               DYNAMO=PATH"
            .to_owned(),
    })
}

/// A ring of real processes.
pub struct Processes {
    ring: Ring,
    seed: u64,
    batch: Option<Rc<Batch>>,
    /// Clients so far.
    clients: u32,
    connections: Connections,
    rng: Rng,
    local: LocalSet,
    runtime: Runtime,
    /// Whether something failed, so that what is left of the run is kept.
    failed: Cell<bool>,
    _turn: MutexGuard<'static, ()>,
}

impl Processes {
    fn start(config: Config) -> Result<Processes, Failure> {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let Config { seed, nodes, settings, program: named } = config;
        let program = program(named)?;
        let text = |error: &dyn ToString| Failure { text: error.to_string() };
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(|error| text(&error))?;
        let plan = Plan { name: "scenario", program, ids: nodes, settings, seed };
        let ring = Ring::new(Fleet::new(plan).map_err(|error| text(&error))?);
        let mut processes = Processes {
            ring,
            seed,
            batch: None,
            clients: 0,
            connections: Connections::default(),
            rng: Rng::new(seed, 6),
            local: LocalSet::new(),
            runtime,
            failed: Cell::new(false),
            _turn: turn,
        };
        for node in processes.ids() {
            processes.boot(node, Disk::Kept);
        }
        processes.until_serving()?;
        Ok(processes)
    }

    /// Where configurations, logs and data are.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.ring.fleet.dir
    }

    /// A failure of this run: what is left of it is kept.
    fn failure(&self, what: &str) -> Failure {
        self.failed.set(true);
        let (seed, dir) = (self.seed, self.ring.fleet.dir.display());
        Failure {
            text: format!(
                "{what}\nagain: SEED={seed} and the same test, though processes interleave anew; \
                 logs and data are kept in {dir}"
            ),
        }
    }

    /// Lets time pass until `work` has ended, at most for `span`; none where it has not.
    fn during<T>(
        &mut self,
        span: Duration,
        work: impl Future<Output = T>,
    ) -> Result<Option<T>, Failure> {
        let Processes { runtime, local, ring, .. } = self;
        let end = Instant::now() + span;
        let all = async {
            tokio::pin!(work);
            loop {
                ring.step()?;
                let left = end.saturating_duration_since(Instant::now());
                if let Ok(done) = timeout(LOOK.min(left), &mut work).await {
                    return Ok(Some(done));
                }
                if left.is_zero() {
                    return Ok(None);
                }
            }
        };
        let end: Result<Option<T>, String> = runtime.block_on(local.run_until(all));
        end.map_err(|what| self.failure(&what))
    }

    /// Lets time pass until `work` has ended, which it must.
    fn through<T>(&mut self, what: &str, work: impl Future<Output = T>) -> Result<T, Failure> {
        let done = self.during(PATIENCE, work)?;
        done.ok_or_else(|| {
            self.failure(&format!("waited {} s in vain until {what}", PATIENCE.as_secs()))
        })
    }

    fn index(&self, node: impl Id) -> usize {
        self.ring.index(node)
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        self.ring.fleet.kill_all();
        let good = || checker::check(&self.history()).wrong.is_empty();
        let keep = self.failed.get() || std::thread::panicking() || !good();
        let dir = &self.ring.fleet.dir;
        if keep {
            out::note(format!("seed {}: logs and data are kept in {}", self.seed, dir.display()));
        } else if let Err(error) = self.ring.fleet.remove() {
            out::note(format!("{} cannot be removed: {error}", dir.display()));
        }
    }
}

impl Faults for Processes {
    fn ids(&self) -> Vec<NodeId> {
        self.ring.ids()
    }

    fn is_running(&self, node: impl Id) -> bool {
        self.ring.is_running(node)
    }

    fn crash(&mut self, node: impl Id) {
        self.ring.crash(node);
    }

    fn boot(&mut self, node: NodeId, disk: Disk) {
        self.ring.boot(node, disk);
    }

    fn suspend(&mut self, node: impl Id) {
        self.ring.suspend(node);
    }

    fn resume(&mut self, node: impl Id) {
        self.ring.resume(node);
    }

    fn pause(&mut self, node: impl Id, span: Duration) {
        self.ring.pause(node, span);
    }

    fn cut(&mut self, from: NodeId, to: NodeId, cut: bool) {
        self.ring.cut(from, to, cut);
    }

    fn latency(&mut self, from: impl Id, to: impl Id, range: Range<Duration>) {
        self.ring.latency(from, to, range);
    }

    fn heal(&mut self) {
        self.ring.heal();
    }
}

impl Cluster for Processes {
    type Later = Ring;

    fn seed(&self) -> u64 {
        self.seed
    }

    fn after(&mut self, span: Duration, what: impl FnOnce(&mut Ring) + 'static) {
        self.ring.after(span, what);
    }

    fn advance(&mut self, span: Duration) -> Result<(), Failure> {
        self.during(span, std::future::pending::<()>()).map(|_| ())
    }

    fn until_serving(&mut self) -> Result<(), Failure> {
        let noted = Rc::clone(&self.ring.noted);
        self.through("every node that is up serves", looks::serving(noted))
    }

    fn heal_and_settle(&mut self) -> Result<(), Failure> {
        self.ring.mend();
        let noted = Rc::clone(&self.ring.noted);
        self.until_serving()?;
        self.through("every node is level again", looks::level(Rc::clone(&noted)))?;
        let last = Rc::default();
        let equal = looks::equal(noted, Rc::clone(&last));
        if self.during(PATIENCE, equal)?.is_none() {
            let differs = last.take();
            return Err(self.failure(&format!("long after all was mended, {differs}")));
        }
        Ok(())
    }

    fn begin(&mut self, clients: u32, mix: Mix, operations: u64) {
        let batch = Rc::new(Batch {
            noted: Rc::clone(&self.ring.noted),
            mix,
            left: Cell::new(operations),
            under_way: Cell::new(0),
        });
        for _ in 0..clients {
            let rng = Rng::new(self.rng.any(), u64::from(self.clients));
            let client = work(Rc::clone(&batch), Asker::new(self.clients), rng);
            self.local.spawn_local(client);
            self.clients += 1;
        }
        if let Some(before) = self.batch.replace(batch) {
            before.left.set(0);
        }
    }

    fn progress(&mut self, operations: u64) -> Result<(), Failure> {
        let noted = Rc::clone(&self.ring.noted);
        let goal = noted.ended.get().saturating_add(operations);
        let what = format!("{operations} more operations have ended");
        let (mut before, mut reached) = (u64::MAX, false);
        // Patience is for the next operation, not for all of them.
        while !reached {
            let now = noted.ended.get();
            if now == before {
                return Err(self.failure(&format!("nothing happens any more until {what}")));
            }
            before = now;
            let noted = Rc::clone(&noted);
            let all = async move {
                while noted.ended.get() < goal {
                    sleep(LOOK).await;
                }
            };
            reached = self.during(PATIENCE, all)?.is_some();
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<History, Failure> {
        if let Some(batch) = self.batch.take() {
            batch.left.set(0);
            let done = async move {
                while batch.under_way.get() > 0 {
                    sleep(LOOK).await;
                }
            };
            self.through("every operation has ended", done)?;
        }
        Ok(self.history())
    }

    fn history(&self) -> History {
        History { operations: self.ring.noted.operations.borrow().clone() }
    }

    fn refused(&self) -> Vec<String> {
        self.ring.noted.refused.borrow().clone()
    }

    fn ask(&mut self, node: NodeId, key: &str, command: Command) -> Result<Outcome, Failure> {
        let index = self.index(node);
        if !self.ring.is_running(node) {
            return Ok(Outcome::Unknown);
        }
        let (noted, asked) = (Rc::clone(&self.ring.noted), (Key::from(key), command));
        let mut connections = std::mem::take(&mut self.connections);
        let ask = async move {
            let end = connections.operate(NOBODY, index, &noted, asked).await;
            (end, connections)
        };
        let (end, connections) = self.through("an operation has ended", ask)?;
        self.connections = connections;
        match end {
            Ok((outcome, _)) => Ok(outcome),
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
                Err(self.failure(&error.to_string()))
            }
            // No connection, nothing asked: the node is dying or not there yet.
            Err(_) => Ok(Outcome::Unknown),
        }
    }

    fn held(&mut self, node: impl Id, key: &str) -> Result<Option<Held>, Failure> {
        let node = node.id();
        if !self.ring.is_running(node) {
            return Ok(None);
        }
        let answer = self.say(node, &[b"DYNAMO", b"LOCAL", key.as_bytes()])?;
        looks::held(&answer).map_err(|what| self.failure(&what))
    }

    fn local(&mut self, node: impl Id) -> Result<Pairs, Failure> {
        let answer = self.say(node.id(), &[b"DYNAMO", b"LOCAL"])?;
        looks::pairs(&answer).map_err(|what| self.failure(&what))
    }

    fn all(&mut self, node: impl Id) -> Result<Pairs, Failure> {
        let answer = self.say(node.id(), &[b"DYNAMO", b"ALL"])?;
        looks::pairs(&answer).map_err(|what| self.failure(&what))
    }

    fn holders(&mut self, key: &str) -> Result<Vec<NodeId>, Failure> {
        let node = self.ids().into_iter().find(|node| self.ring.is_running(*node));
        let node =
            node.ok_or_else(|| self.failure("no node is up that could say who keeps a key"))?;
        let answer = self.say(node, &[b"DYNAMO", b"WHERE", key.as_bytes()])?;
        looks::ids(&answer).map_err(|what| self.failure(&what))
    }

    fn explain(&mut self, failure: Failure) -> Failure {
        let dir = self.ring.fleet.dir.display().to_string();
        if failure.text.contains(&dir) { failure } else { self.failure(&failure.text) }
    }
}
