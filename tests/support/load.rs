//! Clients that work and record what they saw.
//!
//! Each client is a thread with one connection. It moves on to the next open node only when its own
//! was killed; then what was in flight is unknown. Every other error, and a connection lost to a
//! node that nobody killed, is a failure of the ring and fails the test.
//!
//! Keys are of three kinds by their first letter, so that replies say much about the state: `r`
//! registers (GET, SET, SET IFEQ, DEL), `n` numbers (GET, INCR, SET, DEL), `l` lists of letters
//! (GET, APPEND, DEL). Every value written blindly is written once only.

use super::{
    resp::{Answer, Client},
    ring::{Door, Processes},
    wait,
};
use simpledynamo_protocol::{
    checker,
    command::{Command, Condition, Expiry, Reply},
    history::{History, Operation, Outcome},
};
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

/// One client's recorder: does one operation after another, and notes each.
pub struct Worker {
    id: u32,
    node: usize,
    doors: Arc<[Door]>,
    connection: Option<(Client, u32)>,
    start: Instant,
    pub history: Vec<Operation>,
    written: u64,
    chance: u64,
}

impl Worker {
    /// Client `id`, which begins at node `node`. All of one history have the same `start`.
    pub fn new(id: u32, node: usize, doors: Arc<[Door]>, start: Instant) -> Worker {
        let chance = 0x9e37_79b9_7f4a_7c15 ^ u64::from(id);
        let history = Vec::new();
        Worker { id, node, doors, connection: None, start, history, written: 0, chance }
    }

    /// Talks to another node from now on.
    pub fn move_to(&mut self, node: usize) {
        self.node = node;
        self.connection = None;
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap()
    }

    /// Does one operation.
    ///
    /// # Errors
    /// What the ring did that it must not do.
    pub fn run(&mut self, key: &str, command: Command) -> Result<Outcome, String> {
        self.connect()?;
        let arguments = spell(key, &command);
        let call = self.now();
        let (client, kills) = self.connection.as_mut().unwrap();
        let (kills, answer) = (*kills, client.call(&arguments));
        let at = self.now();
        let outcome = match answer {
            Ok(answer) => Outcome::Reply(understand(answer).map_err(|error| {
                format!("{} answered {command} of {key}: {error}", self.doors[self.node].id)
            })?),
            Err(error) => {
                self.connection = None;
                self.lost(kills, &error)?;
                Outcome::Unknown
            }
        };
        let returned = Some(at).filter(|_| outcome != Outcome::Unknown);
        let key = key.into();
        let client = self.id;
        let operation = Operation { client, key, command, call, returned, outcome };
        self.history.push(operation.clone());
        Ok(operation.outcome)
    }

    /// A connection to an open node, its own first.
    fn connect(&mut self) -> Result<(), String> {
        while self.connection.is_none() {
            self.node = wait("a node is open", || {
                let order = (0..self.doors.len()).map(|i| (self.node + i) % self.doors.len());
                order.into_iter().find(|node| self.doors[*node].is_open())
            });
            let door = &self.doors[self.node];
            let kills = door.kills.load(Ordering::SeqCst);
            match Client::connect(door.address) {
                Ok(client) => self.connection = Some((client, kills)),
                Err(error) => self.lost(kills, &error)?,
            }
        }
        Ok(())
    }

    /// A lost connection is as it must be only where the node was killed.
    fn lost(&self, kills: u32, error: &std::io::Error) -> Result<(), String> {
        let door = &self.doors[self.node];
        // A node that was being killed when the connection was made had its door closed by now.
        if door.kills.load(Ordering::SeqCst) == kills && door.is_open() {
            return Err(format!("client {} lost {}, which lives: {error}", self.id, door.id));
        }
        Ok(())
    }

    fn below(&mut self, end: u64) -> u64 {
        // xorshift64: the mix of operations needs chance, not quality.
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance % end
    }

    /// A value nobody else writes.
    fn fresh(&mut self) -> String {
        self.written += 1;
        format!("{}{:06}", self.id + 100, self.written)
    }

    /// Any operation that suits the kind of key.
    pub fn any_command(&mut self, key: &str) -> Command {
        let last = self.history.iter().rev().take(50).find_map(|operation| {
            match (*operation.key == *key.as_bytes(), &operation.outcome) {
                (true, Outcome::Reply(Reply::Bulk(value))) => Some(value.clone()),
                _ => None,
            }
        });
        let fresh = self.fresh();
        let set = |condition| Command::Set {
            value: fresh.as_str().into(),
            condition,
            expiry: Expiry::Clear,
            get: false,
        };
        match (key.as_bytes()[0], self.below(20)) {
            (_, 0..8) => Command::Get,
            (_, 8) => Command::Del,
            (b'r', 9..14) => set(last.map_or(Condition::IfAbsent, Condition::IfEquals)),
            (b'n', 9..17) => Command::IncrBy(1),
            (b'l', _) => Command::Append(fresh.as_str().into()),
            _ => set(Condition::Always),
        }
    }
}

/// The command as clients send it.
fn spell(key: &str, command: &Command) -> Vec<Vec<u8>> {
    let mut words: Vec<Vec<u8>> = vec![command.name().into(), key.into()];
    match command {
        Command::Get | Command::Del => {}
        Command::IncrBy(by) => words.push(by.to_string().into()),
        Command::Append(value) => words.push(value.to_vec()),
        Command::Set { value, condition, .. } => {
            words.push(value.to_vec());
            match condition {
                Condition::Always => {}
                Condition::IfAbsent => words.push("NX".into()),
                Condition::IfPresent => words.push("XX".into()),
                Condition::IfEquals(old) => words.extend(["IFEQ".into(), old.to_vec()]),
            }
        }
        other => panic!("the load has no {other}"),
    }
    words
}

/// The reply as the checker takes it; an error that is no effect of the command is a failure.
fn understand(answer: Answer) -> Result<Reply, String> {
    match answer {
        Answer::Simple(text) if text == "OK" => Ok(Reply::Ok),
        Answer::Int(number) => Ok(Reply::Int(number)),
        Answer::Bulk(bytes) => Ok(Reply::Bulk(bytes.into())),
        Answer::Nil => Ok(Reply::Nil),
        other => Err(format!("{other:?}")),
    }
}

/// What many clients do at once, beside the test's own thread.
pub struct Load {
    start: Instant,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    failures: Arc<Mutex<Vec<String>>>,
    workers: Vec<JoinHandle<Vec<Operation>>>,
    keys: BTreeSet<String>,
}

impl Load {
    /// Starts a client for each list of keys, spread over the nodes.
    pub fn start(ring: &Processes, keys_by_client: Vec<Vec<String>>) -> Load {
        let keys = keys_by_client.iter().flatten().cloned().collect();
        let mut load = Load {
            start: Instant::now(),
            stop: Arc::default(),
            done: Arc::default(),
            failures: Arc::default(),
            workers: Vec::new(),
            keys,
        };
        for (id, keys) in keys_by_client.into_iter().enumerate() {
            let (stop, done) = (Arc::clone(&load.stop), Arc::clone(&load.done));
            let failures = Arc::clone(&load.failures);
            let doors = ring.doors();
            let mut worker =
                Worker::new(u32::try_from(id).unwrap(), id % doors.len(), doors, load.start);
            load.workers.push(thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let key = &keys[worker.below(keys.len() as u64) as usize];
                    let command = worker.any_command(key);
                    if let Err(failure) = worker.run(key, command) {
                        failures.lock().unwrap().push(failure);
                        break;
                    }
                    done.fetch_add(1, Ordering::SeqCst);
                }
                worker.history
            }));
        }
        load
    }

    /// Waits until so many more operations are done: the ring is at work.
    pub fn progress(&self, operations: u64) {
        let goal = self.done.load(Ordering::SeqCst) + operations;
        wait(&format!("{operations} more operations are done"), || {
            let failures = self.failures.lock().unwrap();
            assert!(failures.is_empty(), "{failures:#?}");
            (self.done.load(Ordering::SeqCst) >= goal).then_some(())
        });
    }

    /// Stops the clients, reads every key once more at each node, and checks all: no failure, a
    /// linearizable history, equal replicas.
    pub fn finish(mut self, ring: &Processes) -> History {
        self.stop.store(true, Ordering::SeqCst);
        let mut history = History::default();
        for worker in self.workers.drain(..) {
            history.extend(worker.join().unwrap());
        }
        let failures = self.failures.lock().unwrap().clone();
        assert!(failures.is_empty(), "{failures:#?}");
        let mut reader = Worker::new(99, 0, ring.doors(), self.start);
        for key in &self.keys {
            reader.move_to((reader.node + 1) % ring.doors().len());
            reader.run(key, Command::Get).unwrap();
        }
        history.extend(reader.history);
        settle(ring, &history);
        history
    }
}

/// A history must be linearizable, and the replicas of its keys equal in the end.
pub fn settle(ring: &Processes, history: &History) {
    let report = checker::check(history);
    assert!(report.is_linearizable(), "{report}");
    let keys: BTreeSet<String> =
        history.operations.iter().map(|op| String::from_utf8(op.key.to_vec()).unwrap()).collect();
    ring.wait_equal(&keys);
}
