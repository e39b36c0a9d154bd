//! Golden scripts of chains: scenarios as one reads them, one a file, as in `scripts.rs`.
//!
//! A script drives the three nodes of one range, whose chain is 5554, 5558, 5560. Nothing arrives and
//! no time passes unless the script says so; what concerns other ranges is left out.
//!
//! | command | what it does |
//! |---|---|
//! | `request NODE COMMAND [op=N] [attempt=N]` | a router's request for the key `x`, at once there |
//! | `deliver`, `settle`, `drop`, `duplicate` `[from=N] [to=N] [name=NAME]` | as in `scripts.rs` |
//! | `wait MS` | time passes; every node that is up does what is due |
//! | `crash NODE`, `restart NODE` | memory is lost, what was stored is not |
//! | `pause NODE`, `resume NODE` | what is sent to it waits, and so does what it would do |
//! | `wipe NODE` | comes back with an empty store, which the others know to be another |
//! | `relearn NODE` | comes back with its store, of which it was still a learner |
//! | `clock MS` | the wall clocks show this from now on |
//! | `show` | what each node holds of `x`, and its seat |
//!
//! COMMAND is `get`, `incr`, `del`, `set VALUE [nx] [until=MS]`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use goldenscript::{ArgumentConsumer, Command, Context, Runner};
use simpledynamo_protocol::{
    chain::{self, Chain},
    command::{self, Condition, Expiry},
    effect::{Effect, Effects, Write},
    message::{Digests, Envelope, Listed, Message, Records, Request, Row},
    recent::OpId,
    record::{Datum, Key, Record, Value},
    register::{
        acceptor::{Durable, Standing},
        digest,
    },
    ring::{NodeId, Position, RangeId, Ring},
    time::{Now, Time},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    error::Error,
    fmt::Write as _,
    path::Path,
    time::Duration,
};

const NODES: [NodeId; 3] = [NodeId(5554), NodeId(5558), NodeId(5560)];

/// The node whose router asks; it is no replica.
const ROUTER: NodeId = NodeId(5562);

type Failure = Box<dyn Error>;

struct Node {
    up: bool,
    rows: BTreeMap<Key, Record>,
    durable: Durable,
    kept: chain::Kept,
    chain: Chain,
    lives: u64,
}

fn ring() -> Ring {
    Ring::new(NODES, 3)
}

/// A key of the range whose chain is that of [`NODES`].
fn key() -> Key {
    let fits = |key: &Key| ring().replicas_of(key) == NODES;
    (0..).map(|n: u32| Key::from(format!("x{n}").as_str())).find(fits).expect("one of many")
}

fn range() -> RangeId {
    ring().range_of(&key())
}

fn chain_of(me: NodeId, node: Option<&Node>, standing: Standing, now: Time) -> Chain {
    let request_timeout = Duration::from_millis(100);
    let settings = chain::Settings { me, ring: ring(), request_timeout, value_bytes_max: 1 << 20 };
    let durable = node.map_or(Durable::default(), |node| node.durable);
    let first = || chain::Kept::first(&ring(), me);
    let kept = node.map_or_else(first, |node| node.kept.clone());
    let lives = node.map_or(1, |node| node.lives);
    Chain::new(settings, lives, durable, &kept, standing, now)
}

/// Which messages a command is about.
#[derive(Default)]
struct Which {
    from: Option<NodeId>,
    to: Option<NodeId>,
    name: Option<String>,
}

impl Which {
    fn parse(args: &mut ArgumentConsumer<'_>) -> Result<Which, Failure> {
        Ok(Which {
            from: args.take_key("from").map(str::parse).transpose()?,
            to: args.take_key("to").map(str::parse).transpose()?,
            name: args.take_key("name").map(str::to_owned),
        })
    }

    fn is(&self, envelope: &Envelope) -> bool {
        self.from.is_none_or(|from| from == envelope.from)
            && self.to.is_none_or(|to| to == envelope.to)
            && self.name.as_ref().is_none_or(|name| name == envelope.message.name())
    }
}

struct Cluster {
    nodes: BTreeMap<NodeId, Node>,
    wire: VecDeque<Envelope>,
    now: Now,
    seq: u64,
    shown: String,
    paused: BTreeSet<NodeId>,
}

impl Cluster {
    fn new() -> Cluster {
        let node = |id| Node {
            up: true,
            rows: BTreeMap::new(),
            durable: Durable::default(),
            kept: chain::Kept::first(&ring(), id),
            chain: chain_of(id, None, Standing::Voter, Time(0)),
            lives: 1,
        };
        let mut cluster = Cluster {
            nodes: NODES.into_iter().map(|id| (id, node(id))).collect(),
            wire: VecDeque::new(),
            now: Now { mono: Time(0), wall: 1_000 },
            seq: 0,
            shown: String::new(),
            paused: BTreeSet::new(),
        };
        // Members compare themselves once with their predecessors.
        cluster.wait(0);
        cluster.settle(&Which::default());
        cluster.shown.clear();
        cluster
    }

    fn say(&mut self, text: impl std::fmt::Display) {
        let text = text.to_string().replace(&key().to_string(), "x");
        writeln!(self.shown, "{text}").expect("a string takes all");
    }

    fn node(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<NodeId, Failure> {
        let id = args.next_pos().ok_or("which node?")?.parse()?;
        if self.nodes.contains_key(&id) { Ok(id) } else { Err("no such node".into()) }
    }

    fn take(&mut self, which: &Which) -> Vec<Envelope> {
        let paused = &self.paused;
        let (taken, left): (VecDeque<_>, VecDeque<_>) = self
            .wire
            .drain(..)
            .partition(|envelope| which.is(envelope) && !paused.contains(&envelope.to));
        self.wire = left;
        taken.into()
    }

    fn settle(&mut self, which: &Which) {
        loop {
            let taken = self.take(which);
            if taken.is_empty() {
                return;
            }
            taken.into_iter().for_each(|envelope| self.deliver(envelope));
        }
    }

    fn deliver(&mut self, envelope: Envelope) {
        let Envelope { from, to, message } = envelope.clone();
        let Some(node) = self.nodes.get(&to) else { return self.say(envelope) };
        if !node.up {
            if concerns(&message) {
                self.say(format!("{envelope} (lost: {to} is down)"));
            }
            return;
        }
        if concerns(&message) {
            self.say(&envelope);
        }
        match message {
            Message::AskDigests(_) | Message::AskList(_) | Message::Fetch(_) => {
                let message = self.look_up(to, &message);
                self.wire.push_back(Envelope { from: to, to: from, message });
            }
            message => {
                self.act(to, |chain, now, rows, out| chain.message(now, from, message, rows, out));
            }
        }
    }

    fn look_up(&self, id: NodeId, message: &Message) -> Message {
        let node = &self.nodes[&id];
        let votes = node.chain.seat(range()).is_some_and(|seat| seat.is_level(id));
        let rows: Vec<_> = node.rows.iter().map(|(key, record)| row(key, record)).collect();
        match message {
            Message::AskDigests(ask) => {
                let mut digests = digest::Digests::new(ring());
                rows.iter().for_each(|row| digests.add_row(row));
                let buckets = digests.of(ask.range).map(|tally| tally.buckets.clone());
                let (ask, range, buckets) = (ask.ask, ask.range, buckets.unwrap_or_default());
                Digests { ask, range, buckets, votes, live: 0 }.into()
            }
            Message::AskList(ask) => {
                let within =
                    |row: &Row| (ask.from..=ask.to).contains(&Position::of(&row.key).prefix());
                let rows = rows.into_iter().filter(within).collect();
                Listed { ask: ask.ask, rows, next: None, votes, absent_floor: 0 }.into()
            }
            Message::Fetch(ask) => {
                let held = |key: &Key| Some((key.clone(), node.rows.get(key)?.clone()));
                Records { ask: ask.ask, records: ask.keys.iter().filter_map(held).collect() }.into()
            }
            other => unreachable!("{} asks for nothing stored", other.name()),
        }
    }

    fn act(
        &mut self,
        id: NodeId,
        act: impl FnOnce(&mut Chain, Now, chain::Rows<'_>, &mut Effects),
    ) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let (rows, chain, mut effects) = (&node.rows, &mut node.chain, Effects::new());
        act(chain, self.now, &mut |key| rows.get(key).cloned(), &mut effects);
        self.carry_out(id, effects);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let (rows, chain, mut effects) = (&node.rows, &mut node.chain, Effects::new());
        chain.flush(self.now, &mut |key| rows.get(key).cloned(), &mut effects);
        self.carry_out(id, effects);
    }

    fn carry_out(&mut self, id: NodeId, effects: Effects) {
        for effect in effects {
            let Some(node) = self.nodes.get_mut(&id) else { return };
            match effect {
                Effect::Persist(Write::Put(key, record)) => {
                    let line = format!("  {id} stores {key} {record}");
                    node.rows.insert(key, record);
                    self.say(line);
                }
                Effect::Persist(Write::Remove(key)) => {
                    node.rows.remove(&key);
                    self.say(format!("  {id} forgets {key}"));
                }
                Effect::Persist(Write::Ceiling(ceiling)) => node.durable.ceiling = ceiling,
                Effect::Persist(Write::AbsentFloor(floor)) => node.durable.absent_floor = floor,
                Effect::Persist(Write::Config(of, record)) => {
                    node.kept.configs.insert(of, record);
                }
                Effect::Persist(Write::Seat(of, seat)) => {
                    node.kept.seats.insert(of, seat.clone());
                    if of == range() {
                        let level = if seat.is_level(id) { ", level" } else { "" };
                        self.say(format!("  {id} is in {}{level}", seat.config));
                    }
                }
                Effect::Send { to, message } => {
                    self.wire.push_back(Envelope { from: id, to, message });
                }
                Effect::Begin { .. } | Effect::List { .. } | Effect::Note(_) => {
                    unreachable!("chains begin their ballots themselves, and note nothing")
                }
            }
        }
    }

    fn request(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<(), Failure> {
        let to = self.node(args)?;
        let command = parse_command(args)?;
        let seq = match args.take_key("op") {
            Some(op) => op.parse()?,
            None => self.seq + 1,
        };
        self.seq = self.seq.max(seq);
        let attempt = args.take_key("attempt").map_or(Ok(1), str::parse)?;
        let request = Request {
            op: OpId { router: ROUTER, incarnation: 1, seq },
            attempt,
            done_below: 1,
            record: attempt > 1 && !command.is_read(),
            key: key(),
            command,
            patience: 2_000,
            expires: u64::MAX,
        };
        self.deliver(Envelope { from: ROUTER, to, message: request.into() });
        Ok(())
    }

    fn wait(&mut self, ms: u64) {
        let until = Time(self.now.mono.0 + ms * 1_000);
        loop {
            let due = |(id, node): (&NodeId, &Node)| Some((node.chain.next_wake()?, *id));
            let up = |(id, node): &(&NodeId, &Node)| node.up && !self.paused.contains(id);
            let next = self.nodes.iter().filter(up).filter_map(due).min();
            let Some((at, id)) = next.filter(|(at, _)| *at <= until) else { break };
            self.now.mono = self.now.mono.max(at);
            self.act(id, |chain, now, rows, out| chain.wake(now, rows, out));
        }
        self.now.mono = until;
    }

    fn crash(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a node");
        node.up = false;
        self.wire.retain(|envelope| (envelope.from, envelope.to) != (id, id));
    }

    /// Starts a life: of a node that has lost its store, of one that goes on learning what an earlier
    /// life has begun to, or of one that votes.
    fn restart(&mut self, id: NodeId, start: Start) {
        let wiped = start == Start::Wiped;
        let others = self.nodes.iter().filter(|(other, _)| **other != id);
        let ceiling = others.map(|(_, node)| node.chain.ceiling()).max().unwrap_or(0);
        if wiped {
            self.nodes.values_mut().for_each(|node| node.chain.forget(id));
            self.wire.retain(|envelope| envelope.from != id);
        }
        let now = self.now.mono;
        let node = self.nodes.get_mut(&id).expect("a node");
        node.up = true;
        node.lives += 1;
        let mut effects = Effects::new();
        if wiped {
            node.rows.clear();
            node.durable = Durable::default();
            node.kept = chain::Kept::default();
        }
        if start != Start::Voter {
            node.chain = chain_of(id, Some(node), Standing::Outside, now);
            node.chain.learn(now, ceiling, !wiped, &mut effects);
        } else {
            node.chain = chain_of(id, Some(node), Standing::Voter, now);
            node.chain.start(self.now, &mut |_| None, &mut effects);
        }
        self.carry_out(id, effects);
    }

    fn show(&mut self) {
        for id in NODES {
            let node = &self.nodes[&id];
            let held = node.rows.get(&key()).map_or("nothing".to_owned(), ToString::to_string);
            let seat = node.chain.seat(range()).expect("a replica");
            let level = if seat.is_level(id) { ", level" } else { "" };
            let line = format!("{id} holds {held}, is in {}{level}", seat.config);
            self.say(line);
        }
    }
}

/// With what a node starts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// A whole store, and a vote.
    Voter,
    /// A store that it was still copying into.
    Learner,
    /// Nothing.
    Wiped,
}

/// Whether it is about the range of the script. What a copy compares is long and says little.
fn concerns(message: &Message) -> bool {
    let of = match message {
        Message::ConfigRound(m) => m.range,
        Message::Forward(m) => m.range,
        Message::Acked(m) => m.range,
        Message::Confirm(m) => m.range,
        Message::Confirmed(m) => m.range,
        Message::Survey(m) => m.range,
        Message::Present(m) => m.range,
        Message::Announce(m) => m.range,
        Message::Attach(m) => m.range,
        Message::Attached(m) => m.range,
        Message::AskDigests(_) | Message::Digests(_) | Message::AskList(_) | Message::Listed(_) => {
            return false;
        }
        _ => return true,
    };
    of == range()
}

fn row(key: &Key, record: &Record) -> Row {
    let (expires_at, deleted_at) = match &record.datum {
        Datum::Live { expires_at, .. } => (*expires_at, None),
        Datum::Tombstone { at } => (None, Some(*at)),
    };
    Row { key: key.clone(), stamp: record.stamp, expires_at, deleted_at }
}

fn parse_command(args: &mut ArgumentConsumer<'_>) -> Result<command::Command, Failure> {
    Ok(match args.next_pos().ok_or("which command?")? {
        "get" => command::Command::Get,
        "incr" => command::Command::IncrBy(1),
        "del" => command::Command::Del,
        "set" => {
            let value = Value::from(args.next_pos().ok_or("which value?")?);
            let condition = match args.next_pos() {
                Some("nx") => Condition::IfAbsent,
                Some(other) => return Err(format!("unknown condition {other}").into()),
                None => Condition::Always,
            };
            let until = args.take_key("until").map(str::parse).transpose()?;
            let expiry = until.map_or(Expiry::Clear, Expiry::At);
            command::Command::Set { value, condition, expiry, get: false }
        }
        other => return Err(format!("unknown command {other}").into()),
    })
}

impl Runner for Cluster {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Failure> {
        let mut args = command.consume_args();
        match command.name.as_str() {
            "request" => self.request(&mut args)?,
            "deliver" => {
                let which = Which::parse(&mut args)?;
                self.take(&which).into_iter().for_each(|envelope| self.deliver(envelope));
            }
            "settle" => self.settle(&Which::parse(&mut args)?),
            "drop" => {
                let which = Which::parse(&mut args)?;
                for envelope in self.take(&which) {
                    self.say(format!("{envelope} (lost)"));
                }
            }
            "duplicate" => {
                let which = Which::parse(&mut args)?;
                let copies: Vec<_> = self.wire.iter().filter(|e| which.is(e)).cloned().collect();
                self.wire.extend(copies);
            }
            "wait" => self.wait(args.next_pos().ok_or("how long?")?.parse()?),
            "crash" => {
                let id = self.node(&mut args)?;
                self.crash(id);
            }
            "restart" => {
                let id = self.node(&mut args)?;
                self.restart(id, Start::Voter);
            }
            "relearn" => {
                let id = self.node(&mut args)?;
                self.crash(id);
                self.restart(id, Start::Learner);
            }
            "pause" => {
                let id = self.node(&mut args)?;
                self.paused.insert(id);
            }
            "resume" => {
                let id = self.node(&mut args)?;
                self.paused.remove(&id);
            }
            "wipe" => {
                let id = self.node(&mut args)?;
                self.crash(id);
                self.restart(id, Start::Wiped);
            }
            "clock" => self.now.wall = args.next_pos().ok_or("what time?")?.parse()?,
            "show" => self.show(),
            other => return Err(format!("unknown command {other}").into()),
        }
        args.reject_next()?;
        Ok(std::mem::take(&mut self.shown))
    }
}

/// Every script, in order of name.
#[test]
fn chain() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts/chain");
    let mut scripts: Vec<_> =
        folder.read_dir().expect("the folder").map(|entry| entry.expect("a file").path()).collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    for script in scripts {
        goldenscript::run(&mut Cluster::new(), &script)
            .unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    }
}
