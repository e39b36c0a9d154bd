//! A node that keeps everything in one map and answers at once, or when the test lets it.

use crate::resp::wall_millis;
use actix::{Actor, Context, Handler, MessageResult};
use simpledynamo_actors::flow::Reader;
use simpledynamo_actors::messages::{
    AskStatus, AskTable, AskTraffic, Completed, CountKeys, Execute, LocalGet, LocalPage, LocalRows,
    Member, NodeHandle, Page, Phase, ScanPage, Standing, Status, Table, Traffic, Verdict,
};
use simpledynamo_protocol::{
    ballot::{Ballot, Stamp},
    command::{Applied, Context as At, apply},
    message::Reason,
    recent::{OpId, Recent},
    record::{Key, Record},
    ring::{NodeId, Position, Ring},
};
use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};

/// What the stand-in holds, and how it is to behave; tests look into it.
#[derive(Default)]
pub(super) struct Shelf {
    pub(super) rows: BTreeMap<(u64, Key), Record>,
    pub(super) phase: Phase,
    /// Keys whose commands end with this verdict, unapplied.
    pub(super) verdicts: BTreeMap<Key, Verdict>,
    /// Whether commands are kept waiting in `waiting`.
    pub(super) hold: bool,
    pub(super) waiting: Vec<Execute>,
    pub(super) most_waiting: usize,
    operations: u64,
}

impl Shelf {
    fn live(&self, from: u64) -> impl Iterator<Item = (u64, Key)> + '_ {
        let wall = wall_millis();
        let live =
            move |record: &Record| record.datum.value().is_some() && !record.datum.expired(wall);
        let rows = self.rows.iter().filter(move |(_, record)| live(record));
        rows.filter(move |((at, _), _)| *at >= from).map(|(row, _)| row.clone())
    }

    fn execute(&mut self, execute: Execute) {
        let Execute { key, command, reply, .. } = execute;
        self.operations += 1;
        let op = OpId { router: NodeId(5554), incarnation: 1, seq: self.operations };
        if let Some(verdict) = self.verdicts.get(&key) {
            let _ = reply.send(Completed { op, verdict: verdict.clone() });
            return;
        }
        let row = (Position::of(&key).prefix(), key);
        let current = self.rows.get(&row);
        let at = At { wall: wall_millis(), value_bytes_max: 1024 * 1024 };
        let Applied { next, reply: said } =
            apply(&command, current.map(|record| &record.datum), at);
        if let Some(datum) = next {
            let version = current.map_or(0, |record| record.stamp.version) + 1;
            let stamp = Stamp { ballot: Ballot { round: 3, node: NodeId(5554) }, version };
            self.rows.insert(row, Record { stamp, datum, recent: Recent::default() });
        }
        let _ = reply.send(Completed { op, verdict: Verdict::Reply(said) });
    }

    /// Commands executed.
    pub(super) fn operations(&self) -> u64 {
        self.operations
    }

    /// Lets the oldest waiting commands end, so many.
    pub(super) fn release(&mut self, count: usize) {
        for execute in self.waiting.drain(..count).collect::<Vec<_>>() {
            self.execute(execute);
        }
    }
}

/// The actor before the shelf.
pub(super) struct Fake {
    shelf: Rc<RefCell<Shelf>>,
    ring: Ring,
}

impl Fake {
    pub(super) fn start(ring: Ring) -> (NodeHandle, Rc<RefCell<Shelf>>) {
        let shelf = Rc::new(RefCell::new(Shelf { phase: Phase::Serving, ..Shelf::default() }));
        let address = Actor::start(Fake { shelf: Rc::clone(&shelf), ring });
        let handle = NodeHandle {
            execute: address.clone().recipient().into(),
            scan: address.clone().recipient(),
            count: address.clone().recipient(),
            local_get: address.clone().recipient(),
            local_page: address.clone().recipient(),
            table: address.clone().recipient(),
            status: address.clone().recipient(),
            traffic: address.recipient(),
            metrics: Arc::default(),
            flow: Reader::default(),
        };
        (handle, shelf)
    }
}

impl Actor for Fake {
    type Context = Context<Fake>;
}

impl Handler<Execute> for Fake {
    type Result = ();
    fn handle(&mut self, message: Execute, _: &mut Self::Context) {
        let mut shelf = self.shelf.borrow_mut();
        if shelf.hold {
            shelf.waiting.push(message);
            shelf.most_waiting = shelf.most_waiting.max(shelf.waiting.len());
        } else {
            shelf.execute(message);
        }
    }
}

impl Handler<ScanPage> for Fake {
    type Result = Result<Page, Reason>;
    fn handle(&mut self, ScanPage { from, rows }: ScanPage, _: &mut Self::Context) -> Self::Result {
        let shelf = self.shelf.borrow();
        let mut found = shelf.live(from);
        let keys = found.by_ref().take(rows as usize).map(|(_, key)| key).collect();
        Ok(Page { keys, next: found.next().map(|(at, _)| at) })
    }
}

impl Handler<CountKeys> for Fake {
    type Result = Result<u64, Reason>;
    fn handle(&mut self, _: CountKeys, _: &mut Self::Context) -> Self::Result {
        Ok(self.shelf.borrow().live(0).count() as u64)
    }
}

impl Handler<LocalGet> for Fake {
    type Result = Option<Record>;
    fn handle(&mut self, LocalGet { key }: LocalGet, _: &mut Self::Context) -> Self::Result {
        self.shelf.borrow().rows.get(&(Position::of(&key).prefix(), key)).cloned()
    }
}

impl Handler<LocalPage> for Fake {
    type Result = MessageResult<LocalPage>;
    fn handle(&mut self, message: LocalPage, _: &mut Self::Context) -> Self::Result {
        let shelf = self.shelf.borrow();
        let mut rows = shelf.rows.iter().filter(|((at, _), _)| *at >= message.from);
        let page = rows.by_ref().take(message.rows as usize);
        let page = page.map(|((_, key), record)| (key.clone(), record.clone())).collect();
        MessageResult(LocalRows { rows: page, next: rows.next().map(|((at, _), _)| *at) })
    }
}

impl Handler<AskTable> for Fake {
    type Result = MessageResult<AskTable>;
    fn handle(&mut self, _: AskTable, _: &mut Self::Context) -> Self::Result {
        let me = NodeId(5554);
        let member = |id: NodeId| Member {
            id,
            peer: ([127, 0, 0, 1], 12108).into(),
            position: format!("{:?}", self.ring.position(id).unwrap()),
            share: self.ring.share(id),
            standing: if id == me { Standing::Me } else { Standing::Trusted },
        };
        MessageResult(Table { me, nodes: self.ring.nodes().map(member).collect() })
    }
}

impl Handler<AskTraffic> for Fake {
    type Result = MessageResult<AskTraffic>;
    fn handle(&mut self, _: AskTraffic, _: &mut Self::Context) -> Self::Result {
        MessageResult(Traffic::default())
    }
}

impl Handler<AskStatus> for Fake {
    type Result = MessageResult<AskStatus>;
    fn handle(&mut self, _: AskStatus, _: &mut Self::Context) -> Self::Result {
        let shelf = self.shelf.borrow();
        MessageResult(Status {
            phase: shelf.phase,
            incarnation: 1,
            store: 0xabc,
            rows: shelf.rows.len() as u64,
            live: shelf.live(0).count() as u64,
            level: true,
            operations: shelf.operations,
            ..Status::default()
        })
    }
}
