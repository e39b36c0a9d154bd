//! The recorder of a node: one record costs some tens of nanoseconds, and waits for nobody
//! but a reader on another thread (in production none but the hook of a panic).
//!
//! Where flow is off there is none, and everything here is one comparison. Otherwise each record is
//! filled in in memory, and, where it is to be written, copied to a list that the
//! writer thread takes ([`super::files`]).
//!
//! **What is written.** In mode `All` everything. In mode `Sampled`:
//! - One request in so many, and those of connections that ask for it, from their start: the flag
//!   `keep` travels with everything that they cause, to all nodes.
//! - A request that turns out slow, failed or tried again is known only then: its router writes what
//!   it remembers of it and tells the key's replicas ([`Keep`]), which write what they remember of
//!   the key in that time. What is not in memory any more by then is missing.
//! - What concerns the node as a whole: starts, suspicions, catch-up.
//!
//! **What is not taken down** in mode `Sampled`, unless the request is kept from its start:
//! - That a coordinator or router asks its own replica ([`Recorder::ask_own`]); the replica's answer is.
//! - The receipt of a message that at once led to a record which names it as its cause
//!   ([`Recorder::receipt`]): that record says it, and readers put the receipt before it.
//! - That replicas agree on a read of their router: the reply says it, with `type` and stamp.

use super::{
    files,
    hold::{self, Hold, Kept},
    memory::{ANCHOR_EVERY, Counts, Filter, Memory},
    outgoing::Outgoing,
    packed::{Draft, Packed},
    record::{Cause, Event, Record, RecordId, ShortKey},
    tables::Name,
};
use crate::{
    bridge::codec::{Told, Trace},
    clock::Clock,
    settings::{Flow, FlowMode},
};
use simpledynamo_protocol::{
    message::Message, recent::OpId, record::Key, ring::NodeId, time::Time,
};
use std::{
    cell::Cell,
    io::{self, Write},
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

/// How long a crashing node tries to get at its own memory.
const CRASH_PATIENCE: Duration = Duration::from_secs(1);

/// What the recorders, the writer and readers share.
pub(super) struct Shared {
    pub(super) node: NodeId,
    pub(super) incarnation: u64,
    memory: Hold,
    pub(super) outgoing: Arc<Outgoing>,
    directory: Option<PathBuf>,
}

/// Where a message comes from inside a node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin {
    /// What led to it.
    pub cause: Cause,
    /// Microseconds that its cause waited.
    pub queue: u32,
    /// Microseconds that its cause was worked on.
    pub handling: u32,
}

impl From<Cause> for Origin {
    fn from(cause: Cause) -> Origin {
        Origin { cause, queue: 0, handling: 0 }
    }
}

/// The receipt of a message that is being taken up, and the last record before that.
pub struct Receipt {
    record: Packed,
    after: u64,
}

/// Takes down what happens; cheap to clone, on one thread of the node ([`Recorder::twin`] for others). One pointer, because every
/// coordinator of a key has one, and what it points to is in the nearest cache.
#[derive(Clone)]
pub struct Recorder(Rc<Inner>);

struct Inner {
    common: Common,
    /// On another thread than the one that reads from peers.
    apart: bool,
    requests: Cell<u64>,
    /// The time of this turn of the thread.
    time: Cell<u64>,
}

/// What the recorders of all threads of a node have in common.
#[derive(Clone)]
struct Common {
    shared: Option<Arc<Shared>>,
    clock: Clock,
    all: bool,
    slow: u64,
    one_in: u64,
}

impl Common {
    fn open(self, apart: bool) -> Recorder {
        let (requests, time) = (Cell::default(), Cell::default());
        Recorder(Rc::new(Inner { common: self, apart, requests, time }))
    }
}

/// On its way to another thread of the node, which makes its recorder of it.
#[derive(Clone)]
pub struct Twin(Common);

impl Twin {
    /// The recorder of this thread.
    #[must_use]
    pub fn open(self) -> Recorder {
        self.0.open(true)
    }
}

impl Recorder {
    /// One that takes nothing down.
    #[must_use]
    pub fn off(clock: Clock) -> Recorder {
        Common { shared: None, clock, all: false, slow: u64::MAX, one_in: 0 }.open(false)
    }

    /// The recorder of this life of `node`, and its writer. Without a directory it keeps everything
    /// in memory only, and there is no writer.
    ///
    /// # Errors
    /// The directory cannot be made, or there is no thread.
    pub fn start(
        node: NodeId,
        incarnation: u64,
        settings: &Flow,
        directory: Option<&Path>,
        clock: Clock,
    ) -> io::Result<(Recorder, Option<JoinHandle<()>>)> {
        if settings.mode == FlowMode::Off {
            return Ok((Recorder::off(clock), None));
        }
        let outgoing = Arc::new(Outgoing::default());
        let shared = Arc::new(Shared {
            node,
            incarnation,
            memory: Hold::new(Memory::new(
                node,
                incarnation,
                settings.memory_bytes,
                directory.map(|_| outgoing.clone()),
            )),
            outgoing,
            directory: directory.map(Path::to_path_buf),
        });
        let all = settings.mode == FlowMode::All;
        let gather = if all { files::GATHER_ALL } else { files::GATHER };
        let bytes = settings.file_bytes;
        let spawn = |at: &Path| files::spawn(shared.clone(), at.to_path_buf(), bytes, gather);
        let writer = directory.map(spawn);
        let slow = u64::try_from(settings.slow.as_micros()).unwrap_or(u64::MAX);
        let (shared, one_in) = (Some(shared), settings.one_in);
        let recorder = Common { shared, clock, all, slow, one_in }.open(false);
        recorder.turn();
        recorder.record(|record| {
            record.event(Event::Start);
            record.keep(true);
        });
        Ok((recorder, writer.transpose()?))
    }

    /// For another thread of the node. From then on no thread keeps the lock of the memory.
    #[must_use]
    pub fn twin(&self) -> Twin {
        if let Some(shared) = &self.0.common.shared {
            shared.memory.share();
        }
        Twin(self.0.common.clone())
    }

    /// For http, the panic hook and whoever stops the node.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader(self.0.common.shared.clone())
    }

    /// Whether anything is taken down.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.common.shared.is_some()
    }

    /// Reads the clock: once for everything that then happens in one go. To be called where something
    /// comes in from outside the thread: bytes, a command, a commit, a timer.
    pub fn turn(&self) {
        if self.is_on() {
            self.turn_at(self.0.common.clock.mono());
        }
    }

    /// The same where a message comes in that another thread may have sent: else it belongs to a turn.
    pub fn turn_apart(&self) {
        if self.0.apart {
            self.turn();
        }
    }

    /// [`Recorder::turn`] with a time that was read for something else.
    pub fn turn_at(&self, now: Time) {
        self.0.time.set(now.0);
    }

    /// The time of this turn, microseconds since the node's start; 0 where nothing is taken down.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.0.time.get()
    }

    /// Takes a record down that `fill` fills in; gives its name.
    pub fn record(&self, fill: impl FnOnce(&mut Draft<'_>)) -> Name {
        let Some(shared) = &self.0.common.shared else { return Name::NONE };
        Name::own(self.record_at(shared, |record, _| fill(record)))
    }

    fn record_at(&self, shared: &Shared, fill: impl FnOnce(&mut Draft<'_>, u64)) -> u64 {
        let (mut memory, seq) = self.open(shared);
        if let Some(mut draft) = memory.draft() {
            fill(&mut draft, seq);
        }
        self.close(shared, memory);
        seq
    }

    #[inline(never)]
    fn open(&self, shared: &Shared) -> (Kept, u64) {
        let mono = self.now();
        let mut memory = shared.memory.take();
        if mono >= memory.anchored {
            memory.anchored = mono + ANCHOR_EVERY;
            // Not less the time of this turn: where little happens that was read milliseconds ago, and
            // the pictures of several nodes would show messages late by so much.
            let clock = &self.0.common.clock;
            memory.offset = clock.wall_micros().wrapping_sub(clock.mono().0);
        }
        let seq = memory.open(mono);
        (memory, seq)
    }

    #[inline(never)]
    fn close(&self, shared: &Shared, mut memory: Kept) {
        memory.close(self.0.common.all);
        shared.memory.keep(memory);
    }

    /// Lets those read who want to. To be called every few milliseconds: an idle node has no other
    /// occasion.
    pub fn rest(&self) {
        if self.is_on() {
            hold::give_back();
        }
    }

    /// Has `transmit` send `message` to a node, with the trace that is to travel with it, and takes
    /// down what came of it: the frame's size, or why it was dropped.
    pub fn send(
        &self,
        to: NodeId,
        message: &Message,
        Origin { cause, queue, handling }: Origin,
        transmit: impl FnOnce(Option<Trace>) -> Result<usize, &'static str>,
    ) -> Cause {
        let Some(shared) = &self.0.common.shared else {
            // Nobody asks what came of it.
            let _ = transmit(None);
            return Cause::NONE;
        };
        let keep = cause.keep;
        let seq = self.record_at(shared, |record, seq| {
            record.describe(shared.node, to, message);
            record.message(Name::own(seq));
            record.cause(cause.id);
            record.keep(keep);
            record.queue(queue.into());
            record.handling(handling.into());
            match transmit(Some(Trace { seq, keep, cause: record.tables.told(cause.id) })) {
                Ok(bytes) => record.bytes(bytes as u64),
                Err(why) => {
                    record.event(Event::Drop);
                    record.reason(why);
                }
            }
        });
        Cause { id: Name::own(seq), keep, at: self.now() }
    }

    /// Takes down that `message` goes to an actor of the own node.
    pub fn local(&self, message: &Message, origin: Origin) -> Cause {
        let Some(shared) = &self.0.common.shared else { return Cause::NONE };
        self.send(shared.node, message, origin, |_| Ok(0))
    }

    /// Takes down that the own replica is asked: where everything is recorded, or the request is kept.
    /// Else its answer alone says it, with how long it waited and was worked on, and is caused by what
    /// the question was: a record the less, and one that no picture shows.
    pub fn ask_own(&self, message: &Message, origin: Origin) -> Cause {
        if self.takes_all(origin.cause.keep) {
            return self.local(message, origin);
        }
        Cause { at: self.now(), ..origin.cause }
    }

    /// Takes down that messages of this life that were to be sent have been forgotten.
    pub fn forgotten(&self, sendings: &[u64], why: &'static str) {
        let Some(shared) = &self.0.common.shared else { return };
        for seq in sendings {
            let sent = shared.memory.lock().find(*seq);
            self.record_at(shared, |record, _| {
                if let Some(sent) = sent {
                    record.says(sent);
                }
                record.message(Name::own(*seq));
                record.event(Event::Drop);
                record.reason(why);
            });
        }
    }

    /// Takes down that `message` came in under the name and cause that travelled with it.
    pub fn received(
        &self,
        from: NodeId,
        incarnation: u64,
        message: &Message,
        trace: Option<Trace>,
        bytes: usize,
    ) -> Cause {
        let Some(shared) = &self.0.common.shared else { return Cause::NONE };
        let theirs = |seq| RecordId { node: from, incarnation, seq };
        let (id, cause, keep) = match trace {
            None => (RecordId::NONE, RecordId::NONE, false),
            Some(Trace { seq, keep, cause }) => match cause {
                Told::Nothing => (theirs(seq), RecordId::NONE, keep),
                Told::Own(cause) => (theirs(seq), theirs(cause), keep),
                Told::Other(cause) => (theirs(seq), cause, keep),
            },
        };
        if self.comes_later(message, keep) {
            let mut memory = shared.memory.take();
            let id = memory.tables().name(id);
            shared.memory.keep(memory);
            return Cause { id, keep, at: self.now() };
        }
        let mut name = Name::NONE;
        self.record_at(shared, |record, _| {
            record.describe(from, shared.node, message);
            record.event(Event::Receive);
            name = record.tables.name(id);
            record.message(name);
            let cause = record.tables.name(cause);
            record.cause(cause);
            record.keep(keep);
            record.bytes(bytes as u64);
        });
        Cause { id: name, keep, at: self.now() }
    }

    /// Whether the receipt is left to [`Recorder::receipt`]: of the messages of reads and of writes
    /// without rivals.
    fn comes_later(&self, message: &Message, keep: bool) -> bool {
        let frequent = matches!(
            message,
            Message::Request(_)
                | Message::Answer(_)
                | Message::Query(_)
                | Message::State(_)
                | Message::Accepted(_)
        );
        frequent && !self.takes_all(keep)
    }

    /// Whether everything is taken down of a request that is kept, or is not.
    #[must_use]
    pub fn takes_all(&self, keep: bool) -> bool {
        keep || self.0.common.all
    }

    /// To be called where a message of another node is taken up, before it is; then
    /// [`Recorder::taken_up`]. None where the receipt has been taken down, or nothing is.
    #[must_use]
    pub fn receipt(&self, from: NodeId, message: &Message, cause: Cause) -> Option<Receipt> {
        let shared = self.0.common.shared.as_ref()?;
        if from == shared.node || !self.comes_later(message, cause.keep) {
            return None;
        }
        let mut memory = shared.memory.take();
        let mut record = Packed::at(0);
        let mut draft = Draft { packed: &mut record, tables: memory.tables() };
        draft.describe(from, shared.node, message);
        draft.event(Event::Receive);
        draft.message(cause.id);
        let after = memory.seq();
        shared.memory.keep(memory);
        Some(Receipt { record, after })
    }

    /// Takes the receipt down unless a record since then says it: one that the message led to.
    pub fn taken_up(&self, receipt: Option<Receipt>) {
        let (Some(shared), Some(receipt)) = (&self.0.common.shared, receipt) else { return };
        let memory = shared.memory.take();
        let said = memory.names_since(receipt.after, receipt.record.message);
        shared.memory.keep(memory);
        if !said {
            self.record_at(shared, |record, _| record.says(receipt.record));
        }
    }

    /// Takes down that a message of another node came in and is not taken up by anybody, or later.
    pub fn put_aside(&self, from: NodeId, message: &Message, cause: Cause) {
        self.taken_up(self.receipt(from, message, cause));
    }

    /// Whether the request that now begins is one of those that are written anyhow.
    #[must_use]
    pub fn sample(&self) -> bool {
        if self.0.common.shared.is_none() || self.0.common.one_in == 0 {
            return false;
        }
        let requests = self.0.requests.get();
        self.0.requests.set(requests + 1);
        requests.is_multiple_of(self.0.common.one_in)
    }

    /// Whether a request that took so long, microseconds, is slow.
    #[must_use]
    pub fn is_slow(&self, micros: u64) -> bool {
        micros >= self.0.common.slow
    }

    /// A request turned out to be worth keeping: writes what is remembered of it and of its key.
    /// Whether the key's replicas are to be told too; there is a bound a second.
    pub fn keep(&self, request: OpId, key: &Key, since: u64) -> bool {
        let Some(shared) = self.0.common.shared.as_ref().filter(|_| !self.0.common.all) else {
            return false;
        };
        let now = self.now();
        let mut memory = shared.memory.lock();
        let may = memory.may_keep(now);
        if may {
            memory.keep(request, ShortKey::of(key), since);
        }
        may
    }

    /// A fact about the node as a whole, always written.
    pub fn node_fact(
        &self,
        event: Event,
        about: NodeId,
        fill: impl FnOnce(&mut Draft<'_>),
    ) -> Name {
        self.record(|record| {
            record.event(event);
            record.keep(true);
            record.to(about, super::Actor::Router);
            fill(record);
        })
    }
}

/// The records in memory, for other threads.
#[derive(Clone, Default)]
pub struct Reader(Option<Arc<Shared>>);

impl Reader {
    /// Whether anything is taken down.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The records in memory that `filter` takes, as lines of JSON, oldest first.
    #[must_use]
    pub fn lines(&self, filter: &Filter) -> Vec<u8> {
        let Some(shared) = &self.0 else { return Vec::new() };
        let records = shared.memory.lock().filtered(filter, shared.incarnation);
        let mut out = Vec::new();
        for record in &records {
            super::line::write(record, shared.node.0, shared.incarnation, &mut out);
        }
        out
    }

    /// The commands and replies in memory, at most so many of the newest, oldest first, as lines of
    /// JSON: the node's requests in short.
    #[must_use]
    pub fn requests(&self, most: usize) -> Vec<u8> {
        let Some(shared) = &self.0 else { return Vec::new() };
        let wanted = |record: &Record| matches!(record.event, Event::Command | Event::Reply);
        let records = shared.memory.lock().select(most, wanted);
        let mut out = Vec::new();
        for record in &records {
            super::line::write(record, shared.node.0, shared.incarnation, &mut out);
        }
        out
    }

    /// What was done since the start.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.0.as_ref().map_or_else(Counts::default, |shared| shared.memory.lock().counts())
    }

    /// Writes everything in memory to `crash-INCARNATION.jsonl` and says why. To be called when the
    /// process is about to end by accident; it gives up where the memory stays locked.
    pub fn crash(&self, why: &'static str) {
        let Some(shared) = &self.0 else { return };
        let Some(directory) = &shared.directory else { return };
        let Some(mut memory) = shared.memory.try_lock(CRASH_PATIENCE) else { return };
        let mut crash = Record { mono: memory.last_mono(), reason: why, ..Record::BLANK };
        let text = memory.dump(shared.node, shared.incarnation, &mut crash);
        let path = directory.join(format!("crash-{:020}.jsonl", shared.incarnation));
        let written = std::fs::File::create(&path).and_then(|mut file| file.write_all(&text));
        if let Err(error) = written {
            log::error!("flow records cannot be written to {}: {error}", path.display());
        }
    }

    /// Ends the writer once it has written what waits.
    pub fn close(&self) {
        let Some(shared) = &self.0 else { return };
        shared.outgoing.close();
    }
}
