//! Histories for tests: written by hand, or recorded from a true atomic register that a random
//! schedule drives.

use simpledynamo_protocol::{
    command::{Command, Condition, Context, Expiry, Reply, apply},
    history::{History, Operation, Outcome},
    record::Datum,
};
use std::collections::BTreeMap;

pub fn set(value: &str) -> Command {
    set_if(value, Condition::Always)
}

pub fn set_if(value: &str, condition: Condition) -> Command {
    Command::Set { value: value.into(), condition, expiry: Expiry::Clear, get: false }
}

pub fn cas(old: &str, new: &str) -> Command {
    set_if(new, Condition::IfEquals(old.into()))
}

pub fn bulk(value: &str) -> Reply {
    Reply::Bulk(value.into())
}

/// An operation with a reply.
pub fn saw(client: u32, times: (u64, u64), command: Command, reply: Reply) -> Operation {
    Operation {
        client,
        key: "x".into(),
        command,
        call: times.0,
        returned: Some(times.1),
        outcome: Outcome::Reply(reply),
    }
}

/// An operation without one.
pub fn lost(client: u32, call: u64, command: Command) -> Operation {
    Operation { client, key: "x".into(), command, call, returned: None, outcome: Outcome::Unknown }
}

pub const CONTEXT: Context = Context { wall: 0, value_bytes_max: 1024 * 1024 };

/// The content after a command, and its reply.
pub fn step(state: Option<&Datum>, command: &Command) -> (Option<Datum>, Reply) {
    let applied = apply(command, state, CONTEXT);
    (applied.next.or_else(|| state.cloned()), applied.reply)
}

/// SplitMix64: tests need chance, not a dependency.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    /// A command; `tag` makes the values of blind writes unlike each other.
    pub fn command(&mut self, tag: u64) -> Command {
        match self.below(12) {
            0..=3 => Command::Get,
            4..=5 => set(&tag.to_string()),
            6..=7 => Command::IncrBy(1),
            8 => Command::Del,
            9 => set_if(&tag.to_string(), Condition::IfAbsent),
            10 => cas(&self.below(tag + 1).to_string(), &tag.to_string()),
            _ => Command::Append("7".into()),
        }
    }
}

/// What drives [`record`].
pub struct Run {
    pub seed: u64,
    pub clients: u64,
    pub keys: u64,
    pub operations: u64,
    /// Of a hundred operations, how many are given up by their client.
    pub lost: u64,
    /// Whether blind writes all write something else.
    pub unlike: bool,
}

/// A history of true atomic registers under a random schedule: at each tick one client calls, one
/// operation takes effect, or one returns.
pub fn record(run: &Run) -> History {
    let mut chance = Chance(run.seed);
    let mut registers: BTreeMap<u64, Datum> = BTreeMap::new();
    // By client: the operation in flight, its key, and its reply once it took effect.
    let mut flying: BTreeMap<u64, (usize, u64, Option<Reply>)> = BTreeMap::new();
    let mut wandering: Vec<(usize, u64)> = Vec::new();
    let mut history = History::default();
    let mut tick = 0;
    while (history.operations.len() as u64) < run.operations || !flying.is_empty() {
        tick += 1;
        if !wandering.is_empty() && chance.below(8) == 0 {
            let (op, key) = wandering.swap_remove(chance.below(wandering.len() as u64) as usize);
            // Half of what was given up never takes effect.
            if chance.below(2) == 0 {
                take_effect(&mut registers, key, &history.operations[op].command);
            }
            continue;
        }
        let client = chance.below(run.clients);
        match flying.remove(&client) {
            None if (history.operations.len() as u64) < run.operations => {
                let key = chance.below(run.keys);
                let tag = if run.unlike { tick } else { chance.below(3) };
                let mut operation = lost(client as u32, tick, chance.command(tag));
                operation.key = format!("k{key}").as_str().into();
                flying.insert(client, (history.operations.len(), key, None));
                history.operations.push(operation);
            }
            None => {}
            Some((op, key, None)) if chance.below(100) < run.lost => wandering.push((op, key)),
            Some((op, key, None)) => {
                let reply = take_effect(&mut registers, key, &history.operations[op].command);
                flying.insert(client, (op, key, Some(reply)));
            }
            Some((op, _, Some(reply))) => {
                history.operations[op].returned = Some(tick);
                history.operations[op].outcome = Outcome::Reply(reply);
            }
        }
    }
    history
}

fn take_effect(registers: &mut BTreeMap<u64, Datum>, key: u64, command: &Command) -> Reply {
    let (next, reply) = step(registers.get(&key), command);
    if let Some(next) = next {
        registers.insert(key, next);
    }
    reply
}

/// Whether any permutation explains the history of one key: nothing left out, nothing remembered.
pub fn some_permutation(history: &History) -> bool {
    let required: Vec<&Operation> = history.operations.iter().collect();
    permute(None, &required)
}

fn permute(state: Option<&Datum>, left: &[&Operation]) -> bool {
    if left.iter().all(|operation| !matches!(operation.outcome, Outcome::Reply(_))) {
        return true;
    }
    left.iter().enumerate().any(|(index, operation)| {
        let too_late = left.iter().any(|other| {
            matches!(other.outcome, Outcome::Reply(_))
                && other.returned.is_some_and(|end| end < operation.call)
        });
        let (next, reply) = step(state, &operation.command);
        let fits = match &operation.outcome {
            Outcome::Reply(saw) => *saw == reply,
            Outcome::NotApplied => false,
            Outcome::Unknown => true,
        };
        let mut rest = left.to_vec();
        rest.remove(index);
        fits && !too_late && permute(next.as_ref(), &rest)
    })
}
