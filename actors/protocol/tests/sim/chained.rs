//! A simulated node whose keys are kept by chains: the production [`Chain`] in place of coordinators
//! and acceptor.

use super::{
    disk::Origin,
    invariants::Fact,
    mutant::Mutant,
    node::{Around, Node, Out, Strategy},
};
use simpledynamo_protocol::{
    chain::{self, Chain, wire::RegisterMessage},
    effect::{Effects, Write},
    message::{self, AskDigests, AskList, Digests, Fetch, Listed, Message, Records, Row},
    record::{Datum, Key, Record},
    register::{
        acceptor::{Durable, Standing},
        digest,
    },
    ring::{NodeId, Position, RangeId},
};

/// The register's key of a range's configuration, as the rules see it.
pub fn config_key(range: RangeId) -> Key {
    Key::from(format!("chain {}", range.0).as_str())
}

impl Node {
    pub(super) fn start_chain(
        &mut self,
        durable: Durable,
        standing: Standing,
        step: &mut Around<'_>,
    ) {
        if self.setup.strategy != Strategy::Chain {
            return;
        }
        let settings = chain::Settings {
            me: self.id,
            ring: self.setup.ring.clone(),
            request_timeout: self.setup.routing.request_timeout,
            value_bytes_max: self.setup.value_bytes_max,
        };
        let mut kept = self.disk.kept().chain.clone();
        if self.tamper.is(Mutant::VolatileSeat) {
            kept.seats = chain::Kept::first(&self.setup.ring, self.id).seats;
        }
        let now = step.now.mono;
        self.chain = Some(Chain::new(settings, self.life, durable, &kept, standing, now));
        self.act(step, |chain, now, rows, out| chain.start(now, rows, out));
    }

    /// Lets the chain do something with what is stored, and carries out what it wants.
    pub(super) fn act(
        &mut self,
        step: &mut Around<'_>,
        act: impl FnOnce(&mut Chain, simpledynamo_protocol::time::Now, chain::Rows<'_>, &mut Effects),
    ) {
        let Some(chain) = &mut self.chain else { return };
        let (disk, mut effects) = (&self.disk, Effects::new());
        let mut rows = |key: &Key| disk.get(key).cloned();
        act(chain, step.now, &mut rows, &mut effects);
        self.settle(effects, step);
        let Some(chain) = &mut self.chain else { return };
        let (disk, mut effects) = (&self.disk, Effects::new());
        let mut rows = |key: &Key| disk.get(key).cloned();
        chain.flush(step.now, &mut rows, &mut effects);
        self.settle(effects, step);
    }

    fn settle(&mut self, effects: Effects, step: &mut Around<'_>) {
        let effects = self.tamper.chain_effects(effects, &self.disk, self.id);
        self.replicate(effects, Origin::Accepted, step);
    }

    /// Takes what is for chains; gives back what is not.
    pub(super) fn for_chain(
        &mut self,
        from: NodeId,
        message: Message,
        step: &mut Around<'_>,
    ) -> Option<Message> {
        if self.chain.is_none() {
            return Some(message);
        }
        match message {
            Message::Answer(_)
            | Message::Probe(_)
            | Message::Alive(_)
            | Message::Greet(_)
            | Message::Welcome(_) => return Some(message),
            Message::AskDigests(ask) => self.digests(from, &ask, step),
            Message::AskList(ask) => self.list(from, &ask, step),
            Message::Fetch(ask) => self.fetch(from, &ask, step),
            Message::Request(ref request) if !self.is_replica_of(&request.key) => {}
            message => {
                if let Message::Announce(announce) = &message {
                    self.routing.announced(announce.range, &announce.config);
                }
                for (from, message) in self.chain_incoming(from, message, step) {
                    self.act(step, |chain, now, rows, out| {
                        chain.message(now, from, message, rows, out);
                    });
                }
            }
        }
        None
    }

    fn is_replica_of(&self, key: &Key) -> bool {
        self.setup.ring.replicas_of(key).contains(&self.id)
    }

    pub(super) fn wake_chain(&mut self, step: &mut Around<'_>) {
        let due = |chain: &Chain| chain.next_wake().is_some_and(|at| at <= step.now.mono);
        if self.chain.as_ref().is_some_and(due) {
            self.act(step, |chain, now, rows, out| chain.wake(now, rows, out));
        }
    }

    // --- the store ------------------------------------------------------------------------------

    fn rows_of(&self, range: RangeId) -> Vec<Row> {
        let ring = &self.setup.ring;
        let rows = self.disk.view().rows.iter().filter(|(key, _)| ring.range_of(key) == range);
        let mut rows: Vec<_> = rows.map(|(key, record)| row(key, record)).collect();
        rows.sort_by_key(|row| Position::of(&row.key).prefix());
        rows
    }

    fn lists_all(&self, range: RangeId) -> bool {
        let seat = self.chain.as_ref().and_then(|chain| chain.seat(range));
        seat.is_some_and(|seat| seat.is_level(self.id))
    }

    pub(super) fn buckets(&self, ask: &AskDigests) -> Vec<u64> {
        let mut digests = digest::Digests::new(self.setup.ring.clone());
        self.rows_of(ask.range).iter().for_each(|row| digests.add_row(row));
        digests.of(ask.range).map(|tally| tally.buckets.clone()).unwrap_or_default()
    }

    fn digests(&mut self, from: NodeId, ask: &AskDigests, step: &mut Around<'_>) {
        let buckets = self.buckets(ask);
        let message::AskDigests { ask, range } = *ask;
        let votes = self.lists_all(range);
        self.release(from, Digests { ask, range, buckets, votes, live: 0 }.into(), step);
    }

    fn list(&mut self, from: NodeId, ask: &AskList, step: &mut Around<'_>) {
        let within = |row: &Row| (ask.from..=ask.to).contains(&Position::of(&row.key).prefix());
        let rows = self.rows_of(ask.range).into_iter().filter(within).collect();
        let votes = self.lists_all(ask.range);
        let listed = Listed { ask: ask.ask, rows, next: None, votes, absent_floor: 0 };
        self.release(from, listed.into(), step);
    }

    fn fetch(&mut self, from: NodeId, ask: &Fetch, step: &mut Around<'_>) {
        let held = |key: &Key| Some((key.clone(), self.disk.get(key)?.clone()));
        let records = ask.keys.iter().filter_map(held).collect();
        self.release(from, Records { ask: ask.ask, records }.into(), step);
    }

    // --- facts ----------------------------------------------------------------------------------

    /// Something became durable.
    pub(super) fn chain_synced(&mut self, write: Write, step: &mut Around<'_>) {
        let (at, ring) = (self.id, &self.setup.ring);
        let is_tail = |range: &RangeId| {
            let seat = self.disk.kept().chain.seats.get(range);
            seat.is_some_and(|seat| seat.config.tail() == Some(at))
        };
        match write {
            Write::Put(key, record) => {
                step.facts.push(Fact::Stored { key: key.clone(), record: record.clone() });
                if is_tail(&ring.range_of(&key)) {
                    step.facts.push(Fact::Committed { key, record });
                }
            }
            Write::Config(range, record) => {
                step.facts.push(Fact::Accepted { at, key: config_key(range), record });
            }
            Write::Seat(range, seat) => {
                let tail = seat.is_level(at) && seat.config.tail() == Some(at);
                step.facts.push(Fact::Seated { at, range, config: seat.config });
                // All that a new tail holds is committed.
                let rows = self.disk.kept().rows.iter();
                let held = rows.filter(|(key, _)| tail && ring.range_of(key) == range);
                step.facts.extend(held.map(|(key, record)| Fact::Committed {
                    key: key.clone(),
                    record: record.clone(),
                }));
            }
            Write::Remove(_) | Write::Ceiling(_) | Write::AbsentFloor(_) => {}
        }
    }

    pub(super) fn leave_chain(&mut self, to: NodeId, message: Message, step: &mut Around<'_>) {
        if let Message::ConfigRound(round) = &message {
            let (by, key) = (self.id, config_key(round.range));
            match &round.body {
                RegisterMessage::Promise(m) => {
                    if to == by {
                        step.facts.push(Fact::Began { ballot: m.ballot });
                    }
                    step.facts.push(Fact::Told { by, to, key, ballot: m.ballot });
                }
                RegisterMessage::Accepted(m) => {
                    step.facts.push(Fact::Told { by, to, key, ballot: m.stamp.ballot });
                }
                RegisterMessage::Accept(m) => {
                    step.facts.push(Fact::Proposed { by, key, record: m.record.clone() });
                }
                _ => {}
            }
        }
        if !self.unasked(to, &message, step) {
            step.out.push(Out::Send { to, message });
        }
    }

    pub(super) fn chain_stands(&self, facts: &mut Vec<Fact>) {
        let Some(chain) = &self.chain else { return };
        for range in self.setup.ring.ranges_of(self.id) {
            let (key, promise) = (config_key(range), chain.promised(range));
            facts.push(Fact::Stands { at: self.id, key, promise });
        }
    }
}

fn row(key: &Key, record: &Record) -> Row {
    let (expires_at, deleted_at) = match &record.datum {
        Datum::Live { expires_at, .. } => (*expires_at, None),
        Datum::Tombstone { at } => (None, Some(*at)),
    };
    Row { key: key.clone(), stamp: record.stamp, expires_at, deleted_at }
}
