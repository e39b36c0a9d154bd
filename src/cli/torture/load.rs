//! Clients that work in closed loops and record what they saw.
//!
//! Each is a task with one connection. It goes to the next node when it loses its connection or is
//! told that nothing could be done, and now and then to any node, so that all five have clients
//! again after a fault. A lost connection, or no answer in time, is an unknown outcome.
//!
//! What they ask is the harness's own mix: counters and texts, and every value written blindly is
//! written once only. An error, or a lost connection, is expected only of a node that was disturbed
//! at some time of the operation.

use super::{super::client::Client, Shared, slices::key};
use crate::processes::words::{spell, understand};
use simpledynamo_actors::harness::{Asker, Mix, Rng};
use simpledynamo_protocol::{
    command::{Command, Condition, Reply},
    history::{Operation, Outcome},
    record::Key,
};
use std::{io, rc::Rc, time::Duration};
use tokio::time::{Instant, sleep};

/// How long a client waits for an answer beyond the cluster's deadline.
const SPARE: Duration = Duration::from_secs(1);
/// Pause after every node has refused a connection.
const PAUSE: Duration = Duration::from_millis(20);
/// A client changes its node once in so many operations.
const CHANGE_ONE_IN: u64 = 200;

/// A client.
pub(super) struct Worker {
    asker: Asker,
    node: usize,
    shared: Rc<Shared>,
    connection: Option<Client>,
    rng: Rng,
}

impl Worker {
    /// Client `id`, which begins at some node.
    pub(super) fn new(id: u32, shared: Rc<Shared>) -> Worker {
        let rng = Rng::new(shared.seed, u64::from(id) + 1);
        let node = usize::try_from(id).unwrap_or(0) % shared.doors.len();
        Worker { asker: Asker::new(id), node, shared, connection: None, rng }
    }

    /// Works until it is told to stop.
    pub(super) async fn work(mut self) {
        let mix = Mix::default();
        while self.shared.running() && self.connected().await {
            let slice = self.shared.slices.borrow_mut().begin();
            let index = usize::try_from(self.rng.below(self.shared.keys as u64)).unwrap_or(0);
            let (key, counts) = key(slice, index);
            let command = self.asker.command(&key, counts, &mix, &mut self.rng);
            let operation = match self.lost(&key, &command) {
                Some(lost) => lost,
                None => self.perform(key, command).await,
            };
            self.asker.saw(&operation.key, &operation.outcome);
            let noted = self.shared.slices.borrow_mut().end(slice, operation);
            if let Err(failure) = noted {
                self.shared.fail(failure);
            }
            if self.rng.below(CHANGE_ONE_IN) == 0 {
                let node = self.rng.below(self.shared.doors.len() as u64);
                self.go_to(usize::try_from(node).unwrap_or(0));
            }
        }
    }

    /// A write that is acknowledged and never sent, where a test of the judge wants it so.
    fn lost(&mut self, key: &Key, command: &Command) -> Option<Operation> {
        let unconditional = matches!(command, Command::Set { condition: Condition::Always, .. });
        let one_in = self.shared.lose_one_in.filter(|_| unconditional)?;
        (self.rng.below(one_in) == 0).then(|| Operation {
            client: self.asker.id,
            key: key.clone(),
            command: command.clone(),
            call: self.shared.now(),
            returned: Some(self.shared.now()),
            outcome: Outcome::Reply(Reply::Ok),
        })
    }

    /// Talks to another node from now on.
    pub(super) fn go_to(&mut self, node: usize) {
        self.node = node % self.shared.doors.len();
        self.connection = None;
    }

    /// Waits for a connection to a node, its own first; false where the run ends before.
    pub(super) async fn connected(&mut self) -> bool {
        let shared = Rc::clone(&self.shared);
        let password = shared.cluster.password.as_ref().map(|password| password.0.as_str());
        let mut refused = 0;
        while self.connection.is_none() {
            if shared.given_up() {
                return false;
            }
            let Some(node) = shared.cluster.nodes.get(self.node) else { return false };
            let before = shared.standing(self.node);
            match Client::connect(node, password).await {
                Ok(client) => self.connection = Some(client),
                Err(error) => {
                    if !shared.excused(self.node, before) {
                        shared.unexpected(format!("node {} cannot be reached: {error}", node.id));
                    }
                    self.go_to(self.node + 1);
                    refused += 1;
                    if refused % shared.doors.len() == 0 {
                        sleep(PAUSE).await;
                    }
                }
            }
        }
        true
    }

    /// Does one operation on the connection there is, and tells the figures.
    pub(super) async fn perform(&mut self, key: Key, command: Command) -> Operation {
        let shared = Rc::clone(&self.shared);
        let before = shared.standing(self.node);
        let patience = shared.cluster.deadline + SPARE;
        let (began, call) = (Instant::now(), shared.now());
        let answer = match (&mut self.connection, spell(&key, &command)) {
            (Some(client), Ok(words)) => {
                let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
                client.call(&words, patience).await
            }
            (None, _) => Err(io::ErrorKind::NotConnected.into()),
            (_, Err(error)) => Err(error),
        };
        let at = shared.now();
        let (outcome, error) = understand(answer);
        let excused = shared.excused(self.node, before);
        let coordinator = shared.coordinator(&key);
        shared.figures.borrow_mut().operation(coordinator, &outcome, began.elapsed(), excused);
        if let Some(text) = error {
            if outcome == Outcome::Unknown || outcome == Outcome::NotApplied {
                self.go_to(self.node + 1);
            }
            shared
                .figures
                .borrow_mut()
                .error(text, excused && !matches!(outcome, Outcome::Reply(_)));
        }
        let returned = Some(at).filter(|_| outcome != Outcome::Unknown);
        Operation { client: self.asker.id, key, command, call, returned, outcome }
    }
}
