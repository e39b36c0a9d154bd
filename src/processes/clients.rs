//! Clients of real processes: each does one operation after the other, at nodes drawn at random from
//! those that are open, and notes what it saw.
//!
//! A connection lost to a node that was killed meanwhile is an unknown outcome, and no more. One
//! lost to a node that lives, an error, or no answer for [`SILENCE_MAX`] is noted besides, for
//! `Cluster::refused`.

use super::words::{spell, understand};
use crate::{
    cli::client::{Client, Reply as Answer},
    config::Cluster,
};
use simpledynamo_actors::harness::{Asker, Mix, Rng};
use simpledynamo_protocol::{
    command::{Command, Reply},
    history::{Operation, Outcome},
    record::Key,
};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::{Instant, sleep};

/// Longer than a node's deadline and any pause together: an answer that takes longer never comes.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Pause of a client that finds no node open.
const PAUSE: Duration = Duration::from_millis(5);
/// Operations that are remembered as refused.
const REFUSED_MAX: usize = 20;

/// A node as clients see it.
#[derive(Default)]
pub(super) struct Door {
    /// Whether it is there for clients: cleared before it is killed, set once it serves.
    pub(super) open: Cell<bool>,
    /// How often it was killed; raised before it is.
    pub(super) kills: Cell<u32>,
    /// Whether it has a process that does not stand still.
    pub(super) awake: Cell<bool>,
}

/// What all clients of a run share; all are on one thread.
pub(super) struct Noted {
    pub(super) cluster: Rc<Cluster>,
    pub(super) doors: Vec<Door>,
    start: Instant,
    /// Operations of the clients that have ended.
    pub(super) ended: Cell<u64>,
    pub(super) operations: RefCell<Vec<Operation>>,
    pub(super) refused: RefCell<Vec<String>>,
}

impl Noted {
    pub(super) fn new(cluster: Rc<Cluster>) -> Noted {
        Noted {
            doors: cluster.nodes.iter().map(|_| Door::default()).collect(),
            cluster,
            start: Instant::now(),
            ended: Cell::new(0),
            operations: RefCell::default(),
            refused: RefCell::default(),
        }
    }

    /// Microseconds since the start.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// An operation begins, with an outcome that is not known yet; gives its place.
    fn begin(&self, operation: Operation) -> usize {
        let mut operations = self.operations.borrow_mut();
        operations.push(operation);
        operations.len() - 1
    }

    /// An operation has ended.
    fn end(&self, place: usize, outcome: &Outcome) {
        let now = self.now();
        if let Some(operation) = self.operations.borrow_mut().get_mut(place) {
            operation.returned = Some(now).filter(|_| *outcome != Outcome::Unknown);
            operation.outcome = outcome.clone();
        }
    }

    pub(super) fn is_awake(&self, node: usize) -> bool {
        self.doors.get(node).is_some_and(|door| door.awake.get())
    }

    pub(super) fn is_open(&self, node: usize) -> bool {
        self.doors.get(node).is_some_and(|door| door.open.get())
    }

    pub(super) fn kills(&self, node: usize) -> u32 {
        self.doors.get(node).map_or(0, |door| door.kills.get())
    }

    fn refuse(&self, node: usize, what: &str) {
        let mut refused = self.refused.borrow_mut();
        if let Some(node) = self.cluster.nodes.get(node).filter(|_| refused.len() < REFUSED_MAX) {
            refused.push(format!("{}: {what}", node.id));
        }
    }

    /// The nodes that are open.
    fn open(&self) -> Vec<usize> {
        (0..self.doors.len()).filter(|node| self.is_open(*node)).collect()
    }
}

/// Connections to nodes, each as old as the life of its node at most.
#[derive(Default)]
pub(super) struct Connections(BTreeMap<usize, (Client, u32)>);

impl Connections {
    /// The connection to a node, made anew where there is none to this life of it.
    async fn to(&mut self, node: usize, noted: &Noted) -> io::Result<&mut Client> {
        let kills = noted.kills(node);
        let old = self.0.remove(&node).filter(|(_, of)| *of == kills);
        let client = match old {
            Some((client, _)) => client,
            None => {
                let password = noted.cluster.password.as_ref().map(|it| it.0.as_str());
                let described = noted.cluster.nodes.get(node).ok_or(io::ErrorKind::NotFound)?;
                Client::connect_patiently(described, password, SILENCE_MAX).await?
            }
        };
        Ok(&mut self.0.entry(node).or_insert((client, kills)).0)
    }

    /// Asks a node anything.
    pub(super) async fn call(
        &mut self,
        node: usize,
        noted: &Noted,
        words: &[&[u8]],
    ) -> io::Result<Answer> {
        let client = self.to(node, noted).await?;
        let answer = client.call(words, SILENCE_MAX).await;
        if answer.is_err() {
            self.0.remove(&node);
        }
        answer
    }

    /// One operation at a node, from its call to its end, noted in the history; with the error's text
    /// where it is one. None: there is no connection, and nothing was asked.
    pub(super) async fn operate(
        &mut self,
        client: u32,
        node: usize,
        noted: &Noted,
        (key, command): (Key, Command),
    ) -> io::Result<(Outcome, Option<String>)> {
        let words = spell(&key, &command)?;
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        self.to(node, noted).await?;
        let place = noted.begin(Operation {
            client,
            key,
            command,
            call: noted.now(),
            returned: None,
            outcome: Outcome::Unknown,
        });
        let (outcome, error) = understand(self.call(node, noted, &words).await);
        noted.end(place, &outcome);
        Ok((outcome, error))
    }
}

/// What clients that began together share.
pub(super) struct Batch {
    pub(super) noted: Rc<Noted>,
    pub(super) mix: Mix,
    /// Operations that may still begin.
    pub(super) left: Cell<u64>,
    /// Operations under way.
    pub(super) under_way: Cell<u64>,
}

fn wall_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// One client's work, until no operation is left to begin.
pub(super) async fn work(batch: Rc<Batch>, mut asker: Asker, mut rng: Rng) {
    let mut connections = Connections::default();
    loop {
        sleep(batch.mix.pause(&mut rng)).await;
        let Some(left) = batch.left.get().checked_sub(1) else { return };
        let noted = &batch.noted;
        let Some(node) = rng.pick(&noted.open()).copied() else {
            sleep(PAUSE).await;
            continue;
        };
        let kills = noted.kills(node);
        // A node that is being killed has its door closed by now.
        let lives = || noted.kills(node) == kills && noted.is_open(node);
        if let Err(error) = connections.to(node, noted).await {
            if lives() {
                noted.refuse(node, &format!("cannot be reached: {error}"));
            }
            continue;
        }
        batch.left.set(left);
        batch.under_way.set(batch.under_way.get() + 1);
        let (key, command) = asker.next(&batch.mix, wall_millis(), &mut rng);
        let asked = (key.clone(), command.clone());
        match connections.operate(asker.id, node, noted, asked).await {
            Ok((outcome, error)) => {
                asker.saw(&key, &outcome);
                let replied =
                    matches!(&outcome, Outcome::Reply(it) if !matches!(it, Reply::Error(_)));
                if !replied && lives() {
                    let why = error.unwrap_or_else(|| outcome.to_string());
                    noted.refuse(node, &format!("{command} of {key} → {why}"));
                }
            }
            Err(error) => noted.refuse(node, &format!("{command} of {key}: {error}")),
        }
        batch.under_way.set(batch.under_way.get() - 1);
        noted.ended.set(noted.ended.get() + 1);
    }
}
