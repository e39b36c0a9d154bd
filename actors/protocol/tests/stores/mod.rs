//! Three replicas in memory that answer anti-entropy's questions as production's do: the real
//! acceptor and digests around a map in order of position.

use simpledynamo_protocol::{
    ballot::{Ballot, Stamp},
    effect::{Effect, Effects, Write},
    message::{self, Listed, Message, Records, Row},
    recent::Recent,
    record::{Datum, Key, Record, Value},
    register::{
        acceptor::{Acceptor, Durable, Standing},
        digest::Digests,
    },
    ring::{NodeId, Position, Ring},
};
use std::collections::BTreeMap;

pub const A: NodeId = NodeId(5554);
pub const B: NodeId = NodeId(5558);
pub const C: NodeId = NodeId(5560);

pub fn ring() -> Ring {
    Ring::new([A, B, C], 3)
}

pub fn stamp(round: u64, version: u64) -> Stamp {
    Stamp { ballot: Ballot { round, node: B }, version }
}

pub fn live(round: u64, version: u64) -> Record {
    let datum = Datum::Live { value: Value::from("v"), expires_at: None };
    Record { stamp: stamp(round, version), datum, recent: Recent::default() }
}

pub fn tombstone(round: u64, version: u64, at: u64) -> Record {
    Record { datum: Datum::Tombstone { at }, ..live(round, version) }
}

/// One replica.
pub struct Store {
    rows: BTreeMap<(u64, Key), Record>,
    pub acceptor: Acceptor,
    digests: Digests,
    /// Rows and records an answer has room for.
    pub rows_max: usize,
    pub records_max: usize,
}

impl Store {
    fn new(id: NodeId) -> Store {
        Store {
            rows: BTreeMap::new(),
            acceptor: Acceptor::new(id, Durable::default(), Standing::Voter),
            digests: Digests::new(ring()),
            rows_max: usize::MAX,
            records_max: usize::MAX,
        }
    }

    pub fn get(&self, key: &Key) -> Option<&Record> {
        self.rows.get(&(Position::of(key).prefix(), key.clone()))
    }

    pub fn set(&mut self, key: &Key, new: Option<Record>) {
        let place = (Position::of(key).prefix(), key.clone());
        let old = self.rows.remove(&place);
        self.digests.change(key, old.as_ref(), new.as_ref());
        if let Some(new) = new {
            self.rows.insert(place, new);
        }
    }

    pub fn install(&mut self, key: &Key, record: Record) {
        let (stored, mut out) = (self.get(key).cloned(), Effects::new());
        self.acceptor.install(key.clone(), record, stored.as_ref(), &mut out);
        self.persist(out);
    }

    fn persist(&mut self, out: Effects) {
        for effect in out {
            match effect {
                Effect::Persist(Write::Put(key, record)) => self.set(&key, Some(record)),
                Effect::Persist(Write::Remove(key)) => self.set(&key, None),
                _ => {}
            }
        }
    }

    fn list(&self, ask: &message::AskList) -> Listed {
        let most = self.rows_max.min(ask.rows as usize);
        let (mut rows, mut next, mut last) = (Vec::new(), None, None);
        for ((prefix, key), record) in &self.rows {
            let within = (ask.from..=ask.to).contains(prefix) && ring().range_of(key) == ask.range;
            if !within {
                continue;
            }
            if rows.len() >= most && last != Some(*prefix) {
                next = Some(*prefix);
                break;
            }
            last = Some(*prefix);
            let (expires_at, deleted_at) = match record.datum {
                Datum::Live { expires_at, .. } => (expires_at, None),
                Datum::Tombstone { at } => (None, Some(at)),
            };
            rows.push(Row { key: key.clone(), stamp: record.stamp, expires_at, deleted_at });
        }
        let votes = self.acceptor.standing() == Standing::Voter;
        Listed { ask: ask.ask, rows, next, votes, absent_floor: self.acceptor.absent_floor() }
    }

    /// What it answers, if anything.
    pub fn answer(&mut self, message: &Message) -> Option<Message> {
        match message {
            Message::AskDigests(ask) => {
                let tally = self.digests.of(ask.range)?;
                let votes = self.acceptor.standing() == Standing::Voter;
                let (ask, range, live) = (ask.ask, ask.range, tally.live);
                let buckets = tally.buckets.clone();
                Some(message::Digests { ask, range, buckets, votes, live }.into())
            }
            Message::AskList(ask) => Some(self.list(ask).into()),
            Message::Fetch(ask) => {
                let held = |key: &Key| Some((key.clone(), self.get(key)?.clone()));
                let records = ask.keys.iter().filter_map(held).take(self.records_max).collect();
                Some(Records { ask: ask.ask, records }.into())
            }
            Message::Collect(ask) => {
                let (stored, mut out) = (self.get(&ask.key).cloned(), Effects::new());
                self.acceptor.collect(ask, stored.as_ref(), &mut out);
                self.persist(out);
                None
            }
            other => panic!("no question of anti-entropy: {other}"),
        }
    }
}

/// The three of them.
pub type Stores = BTreeMap<NodeId, Store>;

pub fn stores() -> Stores {
    [A, B, C].into_iter().map(|id| (id, Store::new(id))).collect()
}

/// Makes `ids` hold this.
pub fn hold(stores: &mut Stores, ids: &[NodeId], key: &Key, record: &Record) {
    for id in ids {
        stores.get_mut(id).expect("one of three").set(key, Some(record.clone()));
    }
}
