//! Clients that work in closed loops and record what they saw.
//!
//! Each is a task with one connection. It goes to the next node when it loses its connection or is
//! told that nothing could be done, and now and then to any node, so that all five have clients
//! again after a fault. A lost connection, or no answer in time, is an unknown outcome.
//!
//! Keys are of three kinds, so that replies say much about the state; every value written blindly is
//! written once only. An error, or a lost connection, is expected only of a node that was disturbed
//! at some time of the operation.

use super::{
    super::client::{Client, Reply as Answer},
    Shared,
    chance::Chance,
    slices::key,
};
use simpledynamo_protocol::{
    command::{Command, Condition, Expiry, Reply},
    history::{Operation, Outcome},
    record::{Key, Value},
};
use std::{collections::VecDeque, io, rc::Rc, time::Duration};
use tokio::time::{Instant, sleep};

/// How long a client waits for an answer beyond the cluster's deadline.
const SPARE: Duration = Duration::from_secs(1);
/// Pause after every node has refused a connection.
const PAUSE: Duration = Duration::from_millis(20);
/// A client changes its node once in so many operations.
const CHANGE_ONE_IN: u64 = 200;
/// Values seen that conditions are made of.
const SEEN_MAX: usize = 50;

/// A client.
pub(super) struct Worker {
    id: u32,
    node: usize,
    shared: Rc<Shared>,
    connection: Option<Client>,
    chance: Chance,
    written: u64,
    seen: VecDeque<(Key, Value)>,
}

impl Worker {
    /// Client `id`, which begins at some node.
    pub(super) fn new(id: u32, shared: Rc<Shared>) -> Worker {
        let chance = Chance(shared.seed ^ (u64::from(id) << 32));
        let node = usize::try_from(id).unwrap_or(0) % shared.doors.len();
        Worker { id, node, shared, connection: None, chance, written: 0, seen: VecDeque::new() }
    }

    /// Works until it is told to stop.
    pub(super) async fn work(mut self) {
        while self.shared.running() && self.connected().await {
            let slice = self.shared.slices.borrow_mut().begin();
            let key = key(slice, self.chance.index(self.shared.keys));
            let command = self.any_command(&key);
            let operation = self.perform(key, command).await;
            if let Outcome::Reply(Reply::Bulk(value)) = &operation.outcome {
                self.seen.push_front((operation.key.clone(), value.clone()));
                self.seen.truncate(SEEN_MAX);
            }
            let noted = self.shared.slices.borrow_mut().end(slice, operation);
            if let Err(failure) = noted {
                self.shared.fail(failure);
            }
            if self.chance.below(CHANGE_ONE_IN) == 0 {
                self.go_to(self.chance.0 as usize);
            }
        }
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
        let words = spell(&key, &command);
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        let patience = shared.cluster.deadline + SPARE;
        let (began, call) = (Instant::now(), shared.now());
        let answer = match &mut self.connection {
            Some(client) => client.call(&words, patience).await,
            None => Err(io::ErrorKind::NotConnected.into()),
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
        Operation { client: self.id, key, command, call, returned, outcome }
    }

    /// A value nobody else writes: digits, so that numbers can be set to it.
    fn fresh(&mut self) -> String {
        self.written += 1;
        format!("{}{:07}", self.id + 100, self.written)
    }

    /// Any operation that suits the kind of key.
    fn any_command(&mut self, key: &Key) -> Command {
        let fresh = self.fresh();
        let set = |condition| Command::Set {
            value: fresh.as_str().into(),
            condition,
            expiry: Expiry::Clear,
            get: false,
        };
        match (key.first(), self.chance.below(20)) {
            (_, 0..8) => Command::Get,
            (_, 8) => Command::Del,
            (Some(b'r'), 9..14) => {
                let seen = self.seen.iter().find(|(of, _)| of == key);
                set(seen
                    .map_or(Condition::IfAbsent, |(_, value)| Condition::IfEquals(value.clone())))
            }
            (Some(b'n'), 9..17) => Command::IncrBy(1),
            (Some(b'l'), _) => Command::Append(fresh.as_str().into()),
            _ => set(Condition::Always),
        }
    }
}

/// The command as clients send it; the load has no others.
fn spell(key: &Key, command: &Command) -> Vec<Vec<u8>> {
    let mut words: Vec<Vec<u8>> = vec![command.name().into(), key.to_vec()];
    match command {
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
        _ => {}
    }
    words
}

/// What an answer says about the outcome, and the error's text where it is one.
fn understand(answer: io::Result<Answer>) -> (Outcome, Option<String>) {
    let reply = match answer {
        Ok(Answer::Simple(text)) if text == "OK" => Reply::Ok,
        Ok(Answer::Simple(text)) => Reply::Status(text),
        Ok(Answer::Integer(number)) => Reply::Int(number),
        Ok(Answer::Bulk(Some(bytes))) => Reply::Bulk(bytes.into()),
        Ok(Answer::Bulk(None)) => Reply::Nil,
        Ok(Answer::Error(text)) => {
            let code = text.split(' ').next().unwrap_or_default();
            let outcome = match code {
                "NOQUORUM" | "BUSY" | "LOADING" => Outcome::NotApplied,
                "UNKNOWN" => Outcome::Unknown,
                _ => Outcome::Reply(Reply::Error(text.clone())),
            };
            return (outcome, Some(without_id(&text)));
        }
        Ok(Answer::Array(_)) => return (Outcome::Unknown, Some("an array as answer".to_owned())),
        Err(error) => return (Outcome::Unknown, Some(format!("connection: {error}"))),
    };
    (Outcome::Reply(reply), None)
}

/// An error's text without the operation's id, so that equal errors count together.
fn without_id(text: &str) -> String {
    let is_id =
        |word: &&str| word.split('-').all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    text.split(' ').filter(|word| !is_id(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_is_known() {
        let outcome = |text: &str| understand(Ok(Answer::Error(text.to_owned())));
        let (no, text) = outcome("NOQUORUM 5554-17-203 not applied: too few");
        assert_eq!(
            (no, text.as_deref()),
            (Outcome::NotApplied, Some("NOQUORUM not applied: too few"))
        );
        assert_eq!(outcome("UNKNOWN 5554-17-203 x").0, Outcome::Unknown);
        assert!(matches!(outcome("ERR x").0, Outcome::Reply(Reply::Error(_))));
        let lost = understand(Err(io::ErrorKind::UnexpectedEof.into()));
        assert_eq!(lost.0, Outcome::Unknown);
    }
}
