//! Golden scripts: protocol scenarios as one reads them, one a file, named after what they show.
//!
//! A script drives three nodes, each a replica and a coordinator, by hand: nothing arrives unless
//! the script says so. The files hold the expected output; `UPDATE_GOLDENFILES=1` writes it anew.
//!
//! | command | what it does |
//! |---|---|
//! | `request NODE KEY COMMAND [op=N] [attempt=N] [done=N]` | a router's request, at once there |
//! | `deliver [from=N] [to=N] [name=NAME]` | delivers what is under way now, and what leads to |
//! | `settle [from=N] [to=N] [name=NAME]` | delivers until nothing of the kind is under way |
//! | `drop [from=N] [to=N] [name=NAME]` | loses it |
//! | `duplicate [from=N] [to=N] [name=NAME]` | a second copy comes later |
//! | `wake NODE` | the coordinator's time-out comes, or the end of its pause |
//! | `crash NODE`, `restart NODE` | memory is lost, what was stored is not |
//! | `wipe NODE` | comes back with an empty store, as a learner that all others have welcomed |
//! | `vote NODE` | the learner has caught up |
//! | `install FROM NODE KEY`, `collect NODE KEY` | anti-entropy brings a record; drops a tombstone |
//! | `clock MS` | the wall clocks show this from now on |
//! | `show KEY` | what each replica holds and what promise is in force |
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
    command::{self, Condition, Expiry},
    effect::{Effect, Effects, Write},
    message::{Ask, Collect, Envelope, Message, Request},
    recent::OpId,
    record::{Key, Record, Value},
    register::{
        acceptor::{Acceptor, Durable, Standing},
        proposer::{Config, Known, Proposer},
    },
    ring::NodeId,
    time::{Now, Time},
};
use std::{
    collections::{BTreeMap, VecDeque},
    error::Error,
    fmt::Write as _,
    path::Path,
    time::Duration,
};

/// The replicas, in order.
const NODES: [NodeId; 3] = [NodeId(5554), NodeId(5558), NodeId(5560)];

/// The node whose router asks; it is no replica.
const ROUTER: NodeId = NodeId(5562);

type Failure = Box<dyn Error>;

struct Node {
    id: NodeId,
    up: bool,
    rows: BTreeMap<Key, Record>,
    durable: Durable,
    acceptor: Acceptor,
    proposers: BTreeMap<Key, Proposer>,
    lives: u64,
}

impl Node {
    fn new(id: NodeId) -> Node {
        let acceptor = Acceptor::new(id, Durable::default(), Standing::Voter);
        Node {
            id,
            up: true,
            rows: BTreeMap::new(),
            durable: Durable::default(),
            acceptor,
            proposers: BTreeMap::new(),
            lives: 1,
        }
    }

    fn proposer(&mut self, key: &Key) -> &mut Proposer {
        let ask = Ask { incarnation: self.lives, asker: 1, n: 0 };
        let config = Config {
            me: self.id,
            replicas: NODES.to_vec(),
            read_quorum: 2,
            write_quorum: 2,
            round_timeout: Duration::from_millis(100),
            repeat_after: Duration::from_millis(100),
            value_bytes_max: 1 << 20,
            contended: false,
        };
        self.proposers
            .entry(key.clone())
            .or_insert_with(|| Proposer::new(key.clone(), config, Known::default(), ask, 7))
    }
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
}

impl Cluster {
    fn new() -> Cluster {
        Cluster {
            nodes: NODES.into_iter().map(|id| (id, Node::new(id))).collect(),
            wire: VecDeque::new(),
            now: Now { mono: Time(0), wall: 1_000 },
            seq: 0,
            shown: String::new(),
        }
    }

    fn say(&mut self, text: impl std::fmt::Display) {
        writeln!(self.shown, "{text}").expect("a string takes all");
    }

    fn node(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<NodeId, Failure> {
        let id = args.next_pos().ok_or("which node?")?.parse()?;
        if self.nodes.contains_key(&id) { Ok(id) } else { Err("no such node".into()) }
    }

    fn take(&mut self, which: &Which) -> Vec<Envelope> {
        let (taken, left): (VecDeque<_>, VecDeque<_>) =
            self.wire.drain(..).partition(|envelope| which.is(envelope));
        self.wire = left;
        taken.into()
    }

    fn deliver(&mut self, envelope: Envelope) {
        let Envelope { from, to, message } = envelope.clone();
        let Some(node) = self.nodes.get_mut(&to) else { return self.say(envelope) };
        if !node.up {
            return self.say(format!("{envelope} (lost: {to} is down)"));
        }
        let mut effects = Effects::new();
        let now = self.now;
        match message {
            Message::Prepare(ask) => {
                node.acceptor.prepare(from, &ask, node.rows.get(&ask.key), &mut effects);
            }
            Message::Accept(ask) => {
                let stored = node.rows.get(&ask.key).cloned();
                node.acceptor.accept(from, ask, stored.as_ref(), &mut effects);
            }
            Message::Query(ask) => {
                node.acceptor.query(from, &ask, node.rows.get(&ask.key), &mut effects);
            }
            Message::Promise(ref m) => {
                node.proposer(&m.key.clone()).message(now, from, message, &mut effects);
            }
            Message::Accepted(ref m) => {
                node.proposer(&m.key.clone()).message(now, from, message, &mut effects);
            }
            Message::Refused(ref m) => {
                node.proposer(&m.key.clone()).message(now, from, message, &mut effects);
            }
            Message::State(ref m) => {
                node.proposer(&m.key.clone()).message(now, from, message, &mut effects);
            }
            Message::NoVote(ref m) => {
                node.proposer(&m.key.clone()).message(now, from, message, &mut effects);
            }
            other => unreachable!("{} is not part of a script", other.name()),
        }
        self.say(envelope);
        self.carry_out(to, effects);
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
                Effect::Persist(Write::Ceiling(ceiling)) => {
                    node.durable.ceiling = ceiling;
                    self.say(format!("  {id} raises its ceiling to {ceiling}"));
                }
                Effect::Persist(Write::AbsentFloor(floor)) => {
                    node.durable.absent_floor = floor;
                    self.say(format!("  {id} raises its absent floor to {floor}"));
                }
                Effect::Persist(write @ (Write::Config(..) | Write::Seat(..))) => {
                    unreachable!("{write:?} is the chain's");
                }
                Effect::Send { to, message } => {
                    self.wire.push_back(Envelope { from: id, to, message });
                }
                Effect::List { .. } | Effect::Note(_) => {}
                Effect::Begin { key, above } => {
                    let mut effects = Effects::new();
                    node.acceptor.begin(&key, above, node.rows.get(&key), &mut effects);
                    self.carry_out(id, effects);
                }
            }
        }
    }

    fn request(&mut self, args: &mut ArgumentConsumer<'_>) -> Result<(), Failure> {
        let to = self.node(args)?;
        let key = Key::from(args.next_pos().ok_or("which key?")?);
        let command = parse_command(args)?;
        let seq = match args.take_key("op") {
            Some(op) => op.parse()?,
            None => self.seq + 1,
        };
        self.seq = self.seq.max(seq);
        let attempt = args.take_key("attempt").map_or(Ok(1), str::parse)?;
        let done_below = args.take_key("done").map_or(Ok(1), str::parse)?;
        let request = Request {
            op: OpId { router: ROUTER, incarnation: 1, seq },
            attempt,
            done_below,
            record: attempt > 1 && !command.is_read(),
            key: key.clone(),
            command,
            patience: 2_000,
            expires: u64::MAX,
        };
        let envelope = Envelope { from: ROUTER, to, message: request.clone().into() };
        self.say(envelope);
        let now = self.now;
        let mut effects = Effects::new();
        let node = self.nodes.get_mut(&to).ok_or("no such node")?;
        node.proposer(&key).request(now, request, &mut effects);
        self.carry_out(to, effects);
        Ok(())
    }

    fn wake(&mut self, id: NodeId) -> Result<(), Failure> {
        let node = self.nodes.get_mut(&id).ok_or("no such node")?;
        let mut effects = Effects::new();
        for proposer in node.proposers.values_mut() {
            if let Some(at) = proposer.next_wake() {
                self.now.mono = self.now.mono.max(at);
                proposer.wake(self.now, || true, &mut effects);
            }
        }
        self.carry_out(id, effects);
        Ok(())
    }

    fn restart(&mut self, id: NodeId, wiped: bool) -> Result<(), Failure> {
        let ceilings = self.nodes.values().filter(|node| node.id != id);
        let peers_ceiling = ceilings.map(|node| node.acceptor.ceiling()).max().unwrap_or(0);
        if wiped {
            // What it said in its former life counts no more, nor does what is still under way.
            let proposers = self.nodes.values_mut().flat_map(|node| node.proposers.values_mut());
            proposers.for_each(|proposer| proposer.forget(id));
            self.wire.retain(|envelope| envelope.from != id);
        }
        let node = self.nodes.get_mut(&id).ok_or("no such node")?;
        node.up = true;
        node.lives += 1;
        let mut effects = Effects::new();
        if wiped {
            node.rows.clear();
            node.durable = Durable::default();
            node.acceptor = Acceptor::new(id, node.durable, Standing::Outside);
            node.acceptor.learn(peers_ceiling, &mut effects);
        } else {
            node.acceptor = Acceptor::new(id, node.durable, Standing::Voter);
        }
        self.carry_out(id, effects);
        Ok(())
    }

    fn crash(&mut self, id: NodeId) -> Result<(), Failure> {
        let node = self.nodes.get_mut(&id).ok_or("no such node")?;
        node.up = false;
        node.proposers.clear();
        self.wire.retain(|envelope| (envelope.from, envelope.to) != (id, id));
        Ok(())
    }

    fn install(&mut self, from: NodeId, to: NodeId, key: &Key) -> Result<(), Failure> {
        let record = self.nodes.get(&from).and_then(|node| node.rows.get(key)).cloned();
        let node = self.nodes.get_mut(&to).ok_or("no such node")?;
        let mut effects = Effects::new();
        let stored = node.rows.get(key).cloned();
        let record = record.ok_or("there is nothing to install")?;
        node.acceptor.install(key.clone(), record, stored.as_ref(), &mut effects);
        self.carry_out(to, effects);
        Ok(())
    }

    fn collect(&mut self, id: NodeId, key: &Key) -> Result<(), Failure> {
        let node = self.nodes.get_mut(&id).ok_or("no such node")?;
        let stored = node.rows.get(key).cloned();
        let stamp = stored.as_ref().ok_or("there is nothing to collect")?.stamp;
        let mut effects = Effects::new();
        let ask = Collect { key: key.clone(), stamp };
        node.acceptor.collect(&ask, stored.as_ref(), &mut effects);
        self.carry_out(id, effects);
        Ok(())
    }

    fn show(&mut self, key: &Key) {
        for id in NODES {
            let node = &self.nodes[&id];
            let stored = node.rows.get(key);
            let held = stored.map_or("nothing".to_owned(), ToString::to_string);
            let promise = node.acceptor.promised(key, stored);
            let line = format!("{id} holds {held}, promise {promise}");
            self.say(line);
        }
    }
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
            name @ ("deliver" | "settle") => {
                let which = Which::parse(&mut args)?;
                loop {
                    let taken = self.take(&which);
                    let none = taken.is_empty();
                    taken.into_iter().for_each(|envelope| self.deliver(envelope));
                    if none || name == "deliver" {
                        break;
                    }
                }
            }
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
            "wake" => {
                let id = self.node(&mut args)?;
                self.wake(id)?;
            }
            "thrifty" => {
                let (id, key) = (self.node(&mut args)?, args.next_pos().ok_or("which key?")?);
                let node = self.nodes.get_mut(&id).ok_or("no such node")?;
                node.proposer(&Key::from(key)).be_thrifty(true);
            }
            "crash" => {
                let id = self.node(&mut args)?;
                self.crash(id)?;
            }
            name @ ("restart" | "wipe") => {
                let id = self.node(&mut args)?;
                if name == "wipe" {
                    self.crash(id)?;
                }
                self.restart(id, name == "wipe")?;
            }
            "vote" => {
                let id = self.node(&mut args)?;
                self.nodes.get_mut(&id).ok_or("no such node")?.acceptor.vote();
            }
            "install" => {
                let (from, to) = (self.node(&mut args)?, self.node(&mut args)?);
                self.install(from, to, &Key::from(args.next_pos().ok_or("which key?")?))?;
            }
            "collect" => {
                let id = self.node(&mut args)?;
                self.collect(id, &Key::from(args.next_pos().ok_or("which key?")?))?;
            }
            "clock" => self.now.wall = args.next_pos().ok_or("which time?")?.parse()?,
            "show" => self.show(&Key::from(args.next_pos().ok_or("which key?")?)),
            other => return Err(format!("unknown command {other}").into()),
        }
        args.reject_next()?;
        Ok(std::mem::take(&mut self.shown))
    }
}

/// Every script, in order of name.
#[test]
fn register() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts/register");
    let mut scripts: Vec<_> =
        folder.read_dir().expect("the folder").map(|entry| entry.expect("a file").path()).collect();
    scripts.sort();
    assert!(!scripts.is_empty());
    for script in scripts {
        goldenscript::run(&mut Cluster::new(), &script)
            .unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    }
}
