//! Clients: each does one operation after the other through random nodes and notes what it saw.

use super::{
    chaos::Chaos,
    invariants::Violation,
    rng::Rng,
    world::{Event, WALL_START, World},
};
use simpledynamo_protocol::{
    checker::{self, expiring, register::Register},
    command::{Command, Condition, Expiry, Reply},
    history::{History, Operation, Outcome},
    recent::OpId,
    record::{Key, Value},
    ring::NodeId,
    routing::Verdict,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A key with many unknown writes can take for ever to decide; after so many configurations it is
/// left to the other rules. About one key in a hundred thousand.
const CONFIGURATIONS_MAX: usize = 500_000;

#[derive(Clone, Debug)]
struct Client {
    left: u32,
    /// Where its operation is under way, and its place in the history.
    at: Option<(NodeId, OpId, usize)>,
    done: u32,
    seen: BTreeMap<Key, Value>,
    /// What it has to do at the end.
    script: VecDeque<(NodeId, Key, Command)>,
}

/// All clients and what they saw.
pub struct Clients {
    clients: Vec<Client>,
    keys: Vec<Key>,
    time_to_live: u64,
    skew: u64,
    operations: Vec<Operation>,
    /// From here on every operation must succeed.
    peace: Option<usize>,
    /// Operations whose node crashed under the client.
    abandoned: BTreeSet<usize>,
}

impl Clients {
    pub fn new(chaos: &Chaos, keys: Vec<Key>) -> Clients {
        let client = Client {
            left: chaos.operations,
            at: None,
            done: 0,
            seen: BTreeMap::new(),
            script: VecDeque::new(),
        };
        Clients {
            clients: vec![client; chaos.clients as usize],
            keys,
            time_to_live: chaos.time_to_live,
            skew: chaos.skew,
            operations: Vec::new(),
            peace: chaos.single.then_some(0),
            abandoned: BTreeSet::new(),
        }
    }

    pub fn count(&self) -> u32 {
        self.clients.len() as u32
    }

    pub fn done(&self) -> bool {
        self.clients.iter().all(|client| client.at.is_none() && client.left == 0)
    }

    /// Gives every client its part of a last look: a write and a read of each key at each node.
    pub fn inspect(&mut self, keys: &[Key], nodes: Vec<NodeId>) {
        self.peace = self.peace.or(Some(self.operations.len()));
        let count = self.clients.len();
        let all = keys.iter().flat_map(|key| nodes.iter().map(move |node| (*node, key.clone())));
        for (place, (node, key)) in all.enumerate() {
            let write = if key == self.keys[0] {
                Command::IncrBy(1)
            } else {
                Command::Append(Value::from("."))
            };
            let client = &mut self.clients[place % count];
            client.script.push_back((node, key.clone(), write));
            client.script.push_back((node, key, Command::Get));
            client.left += 2;
        }
    }

    /// The client's next operation and where it asks.
    fn next(
        &mut self,
        client: u32,
        now: u64,
        up: &[NodeId],
        rng: &mut Rng,
    ) -> Option<(NodeId, Key, Command)> {
        let Client { left, at, script, done, seen, .. } = &mut self.clients[client as usize];
        if *left == 0 || at.is_some() {
            return None;
        }
        if let Some(next) = script.pop_front() {
            *left -= 1;
            return Some(next);
        }
        if up.is_empty() {
            return None;
        }
        *left -= 1;
        *done += 1;
        let node = *rng.pick(up);
        let key = rng.pick(&self.keys[..if self.time_to_live > 0 { 4 } else { 3 }]).clone();
        let fresh = Value::from(format!("{client}-{done}").as_str());
        let set = |condition, expiry| Command::Set {
            value: fresh.clone(),
            condition,
            expiry,
            get: false,
        };
        let command = if key == self.keys[0] {
            if rng.chance(700) { Command::IncrBy(1) } else { Command::Get }
        } else if key == self.keys[3] && rng.chance(400) {
            let at = WALL_START + now / 1000 + rng.below(self.time_to_live);
            set(Condition::Always, Expiry::At(at))
        } else {
            match rng.below(10) {
                0..4 => Command::Get,
                4 => set(Condition::Always, Expiry::Clear),
                5 => set(Condition::IfAbsent, Expiry::Clear),
                6 => {
                    let old = seen.get(&key).cloned().unwrap_or_else(|| fresh.clone());
                    set(Condition::IfEquals(old), Expiry::Clear)
                }
                7 => rng.pick(&[Command::Del, Command::GetDel]).clone(),
                8 => Command::Append(Value::from(format!("+{client}-{done}").as_str())),
                _ => set(Condition::IfPresent, Expiry::Keep),
            }
        };
        Some((node, key, command))
    }

    fn call(&mut self, client: u32, now: u64, node: NodeId, op: OpId, key: Key, command: Command) {
        let outcome = Outcome::Unknown;
        self.clients[client as usize].at = Some((node, op, self.operations.len()));
        self.operations.push(Operation {
            client,
            key,
            command,
            call: now,
            returned: None,
            outcome,
        });
    }

    /// Takes the end of an operation; gives the client it belongs to.
    pub fn finish(&mut self, now: u64, node: NodeId, op: OpId, verdict: Verdict) -> Option<u32> {
        let client = self
            .clients
            .iter()
            .position(|client| client.at.is_some_and(|(at, of, _)| (at, of) == (node, op)))?;
        let (_, _, place) = self.clients[client].at.take()?;
        let operation = &mut self.operations[place];
        operation.returned = Some(now);
        operation.outcome = match verdict {
            Verdict::Reply(reply) => Outcome::Reply(reply),
            Verdict::NotApplied(_) => Outcome::NotApplied,
            Verdict::Unknown => Outcome::Unknown,
        };
        if let Outcome::Reply(Reply::Bulk(value)) = &operation.outcome {
            self.clients[client].seen.insert(operation.key.clone(), value.clone());
        }
        Some(client as u32)
    }

    /// The node is gone: whoever waits there does not know.
    pub fn abandon(&mut self, now: u64, node: NodeId) -> Vec<u32> {
        let mut left = Vec::new();
        for (number, client) in self.clients.iter_mut().enumerate() {
            if client.at.is_some_and(|(at, _, _)| at == node) {
                let (_, _, place) = client.at.take().expect("just seen");
                self.operations[place].returned = Some(now);
                self.abandoned.insert(place);
                left.push(number as u32);
            }
        }
        left
    }

    pub fn history(&self) -> History {
        self.operations.iter().cloned().collect()
    }

    /// Linearizability of every key, and success of all that was asked in peace. Gives the number
    /// of keys left undecided.
    pub fn judge(&self) -> Result<usize, Violation> {
        let peace = self.peace.unwrap_or(self.operations.len());
        for (place, operation) in self.operations.iter().enumerate().skip(peace) {
            let replied = matches!(operation.outcome, Outcome::Reply(_));
            if !replied && !self.abandoned.contains(&place) {
                return Err(Violation { rule: "success", text: format!("{operation:?}") });
            }
        }
        let timed: BTreeSet<&Key> =
            self.operations.iter().filter(|o| expires(&o.command)).map(|o| &o.key).collect();
        let plain = self.operations.iter().filter(|o| !timed.contains(&o.key)).cloned().collect();
        let register = Register { value_bytes_max: checker::VALUE_BYTES_MAX };
        let report = checker::check_with(register, &plain, CONFIGURATIONS_MAX);
        if !report.wrong.is_empty() || !report.unchecked.is_empty() {
            return Err(Violation { rule: "linearizability", text: report.to_string() });
        }
        for key in timed {
            let of_key = self.operations.iter().filter(|o| o.key == *key);
            let wall = |at: u64| WALL_START + at / 1000;
            let shown = |at: u64| (wall(at), wall(at) + self.skew);
            if expiring::explains(of_key, shown) == Some(false) {
                let text = self
                    .operations
                    .iter()
                    .filter(|o| o.key == *key)
                    .map(|o| format!("{o:?}\n"))
                    .collect();
                return Err(Violation { rule: "linearizability", text });
            }
        }
        Ok(report.undecided.len())
    }
}

/// Whether a command makes a value expire.
fn expires(command: &Command) -> bool {
    matches!(command, Command::Set { expiry: Expiry::At(_), .. })
}

impl World {
    pub(super) fn client(&mut self, client: u32) -> Result<(), Violation> {
        let up: Vec<_> = self.nodes.values().filter(|node| node.up).map(|node| node.id).collect();
        let Some((node, key, command)) = self.clients.next(client, self.now, &up, &mut self.rng)
        else {
            if up.is_empty() {
                self.after(5_000, Event::Client(client));
            }
            return Ok(());
        };
        if self.paused.contains_key(&node) {
            // Its connection is open, but nobody reads it: the operation is asked later.
            self.clients.put_back(client);
            self.after(7_000, Event::Client(client));
            return Ok(());
        }
        let (of, asked) = (key.clone(), command.clone());
        // The operation is known before its first effects are judged.
        let op = self.with(node, |node, around| node.submit(&of, asked, around))?;
        self.clients.call(client, self.now, node, op, key, command);
        Ok(())
    }
}

impl Clients {
    fn put_back(&mut self, client: u32) {
        self.clients[client as usize].left += 1;
    }
}
