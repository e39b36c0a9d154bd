//! Clients of the Redis protocol: one connection each.
//!
//! A connection is a task that reads replies; commands are written straight from whoever decides to
//! send, the task itself in a closed loop, the pace-maker in an open one. What the socket does not
//! take at once is written by a task of its own.
//!
//! A broken or silent connection loses what was in flight: nobody knows its outcome, so it counts as
//! failed and is not sent again. The client goes on at the next address, or at the one that the
//! Sentinels name.

use crate::{
    drive::{Clients, Run},
    plan::Draw,
    resp::{self, Reply},
};
use bytes::{Buf, BytesMut};
use std::{
    cell::RefCell,
    collections::VecDeque,
    io,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::spawn_local,
    time::{sleep, timeout},
};

/// Room for replies that is made at a time at least, bytes.
const READ_BYTES: usize = 16 * 1024;
/// Pause after an address refused, before the next is tried.
const RETRY: Duration = Duration::from_millis(5);
/// How long a Sentinel, or a connection, may take.
const ANSWER_TIME: Duration = Duration::from_millis(500);

/// What the next reply on a connection belongs to.
enum Expected {
    /// A write that ends with its reply.
    Write { due: Instant },
    /// A read of this key.
    Read { due: Instant, key: u64 },
    /// A write that ends with the WAIT behind it.
    Held { due: Instant },
    /// The WAIT.
    Wait { since: Instant },
}

impl Expected {
    fn since(&self) -> Instant {
        match self {
            Expected::Write { due } | Expected::Read { due, .. } | Expected::Held { due } => *due,
            Expected::Wait { since } => *since,
        }
    }
}

struct State {
    writer: Option<Rc<OwnedWriteHalf>>,
    address: SocketAddr,
    /// Not yet taken by the socket.
    out: BytesMut,
    flushing: bool,
    expected: VecDeque<Expected>,
    /// Writes answered, their WAIT not yet.
    held: Vec<Instant>,
    /// Due while there was no connection.
    backlog: VecDeque<Instant>,
    draw: Draw,
    /// When the present connection began to wait for its eldest reply.
    waiting_since: Option<Instant>,
}

struct Client {
    run: Rc<Run>,
    number: usize,
    state: RefCell<State>,
}

/// All of a run's clients.
pub struct Redis {
    clients: Vec<Rc<Client>>,
    readers: RefCell<Vec<OwnedReadHalf>>,
}

/// Connects every client.
///
/// # Errors
/// The first connection that does not come about: a run that begins with less is another run.
pub async fn connect(run: &Rc<Run>) -> io::Result<Redis> {
    let (mut clients, mut readers) = (Vec::new(), Vec::new());
    for number in 0..run.plan.connections {
        let address = run.plan.address[number % run.plan.address.len()];
        let (reader, writer) = open(address).await?.into_split();
        let state = State {
            writer: Some(Rc::new(writer)),
            address,
            out: BytesMut::new(),
            flushing: false,
            expected: VecDeque::new(),
            held: Vec::new(),
            backlog: VecDeque::new(),
            draw: Draw::new(&run.supply, number),
            waiting_since: None,
        };
        let run = Rc::clone(run);
        clients.push(Rc::new(Client { run, number, state: RefCell::new(state) }));
        readers.push(reader);
    }
    let redis = Redis { clients, readers: RefCell::new(readers) };
    if run.plan.is_open() {
        redis.start();
    }
    Ok(redis)
}

/// A connection; commands are gathered here, so the kernel must not wait for more.
pub async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
    let stream = timeout(ANSWER_TIME, TcpStream::connect(address)).await;
    let stream = stream.map_err(|late| named(late.into()))?.map_err(named)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Redis {
    fn start(&self) {
        for (client, reader) in self.clients.iter().zip(self.readers.take()) {
            spawn_local(Rc::clone(client).live(reader));
        }
    }
}

impl Clients for Redis {
    fn begin(&self) {
        self.start();
    }

    fn issue(&self, client: usize, due: Instant) {
        if let Some(client) = self.clients.get(client) {
            let mut state = client.state.borrow_mut();
            state.backlog.push_back(due);
            client.send_backlog(&mut state);
        }
    }

    fn sweep(&self, now: Instant) {
        for client in &self.clients {
            client.sweep(now);
        }
    }

    fn is_idle(&self) -> bool {
        let idle = |state: &State| state.expected.is_empty() && state.backlog.is_empty();
        self.clients.iter().all(|client| idle(&client.state.borrow()))
    }

    fn give_up(&self, now: Instant) {
        for client in &self.clients {
            client.lost(now, "no answer at the end of the run");
            let mut state = client.state.borrow_mut();
            let live = client.run.is_live(state.address);
            for due in state.backlog.drain(..) {
                client.run.failed(due, now, live, "no connection at the end of the run");
            }
        }
    }
}

impl Client {
    /// One client, through all its connections, until the run's tasks are dropped: an open loop that is
    /// late still hands out operations after its end.
    async fn live(self: Rc<Client>, reader: OwnedReadHalf) {
        let mut reader = Some(reader);
        let mut place = self.number;
        loop {
            let Some(mut current) = reader.take() else {
                place += 1;
                match self.reconnect(place).await {
                    Ok(fresh) => reader = Some(fresh),
                    Err(_) => sleep(RETRY).await,
                }
                continue;
            };
            self.send();
            let why = self.read(&mut current).await;
            self.lost(Instant::now(), &why);
        }
    }

    async fn reconnect(&self, place: usize) -> io::Result<OwnedReadHalf> {
        let plan = &self.run.plan;
        let address = if plan.sentinel.is_empty() {
            plan.address[place % plan.address.len()]
        } else {
            master(plan.sentinel[place % plan.sentinel.len()]).await?
        };
        let (reader, writer) = open(address).await?.into_split();
        let mut state = self.state.borrow_mut();
        state.writer = Some(Rc::new(writer));
        state.address = address;
        Ok(reader)
    }

    /// Sends what is to be sent now.
    fn send(self: &Rc<Client>) {
        let mut state = self.state.borrow_mut();
        if self.run.plan.is_open() {
            self.send_backlog(&mut state);
        } else if !self.run.over.get() {
            let now = Instant::now();
            let due = vec_of(now, self.run.plan.pipeline);
            self.write(&mut state, due);
        }
    }

    fn send_backlog(self: &Rc<Client>, state: &mut State) {
        if state.writer.is_some() && !state.backlog.is_empty() {
            let due = std::mem::take(&mut state.backlog);
            self.write(state, due.into_iter());
        }
    }

    /// Writes a batch of operations with one system call.
    fn write(self: &Rc<Client>, state: &mut State, due: impl Iterator<Item = Instant>) {
        let wait = self.run.plan.wait;
        let (mut written, mut since) = (false, Instant::now());
        for due in due {
            let ask = state.draw.next();
            resp::command(&mut state.out, &self.run.supply, &ask);
            since = due;
            state.expected.push_back(match ask.write {
                true if wait > 0 => Expected::Held { due },
                true => Expected::Write { due },
                false => Expected::Read { due, key: ask.key },
            });
            written |= ask.write && wait > 0;
        }
        if written {
            resp::wait(&mut state.out, wait);
            state.expected.push_back(Expected::Wait { since });
        }
        state.waiting_since.get_or_insert_with(Instant::now);
        self.flush(state);
    }

    fn flush(self: &Rc<Client>, state: &mut State) {
        let Some(writer) = state.writer.clone() else { return };
        if state.flushing {
            return;
        }
        match writer.try_write(&state.out) {
            Ok(taken) => state.out.advance(taken),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // The reader meets the same error and sees to it.
            Err(_) => return,
        }
        if !state.out.is_empty() {
            state.flushing = true;
            spawn_local(Rc::clone(self).flush_rest(writer));
        }
    }

    /// Writes on as the socket takes it.
    async fn flush_rest(self: Rc<Client>, writer: Rc<OwnedWriteHalf>) {
        while writer.writable().await.is_ok() {
            let mut state = self.state.borrow_mut();
            if !state.writer.as_ref().is_some_and(|now| Rc::ptr_eq(now, &writer)) {
                return;
            }
            match writer.try_write(&state.out) {
                Ok(taken) => state.out.advance(taken),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
            if state.out.is_empty() {
                state.flushing = false;
                return;
            }
        }
    }

    /// Reads until the connection is of no further use; why.
    async fn read(self: &Rc<Client>, reader: &mut OwnedReadHalf) -> String {
        let room = READ_BYTES.max(self.run.plan.value_bytes);
        let mut bytes = BytesMut::with_capacity(room);
        loop {
            bytes.reserve(room);
            match reader.read_buf(&mut bytes).await {
                Ok(0) => return "connection closed".to_owned(),
                Ok(_) => {}
                Err(error) => return error.to_string(),
            }
            if let Err(why) = self.take(&mut bytes) {
                return why;
            }
        }
    }

    /// Takes all replies that are whole.
    fn take(self: &Rc<Client>, bytes: &mut BytesMut) -> Result<(), String> {
        let now = Instant::now();
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let live = self.run.is_live(state.address);
        while let Some((reply, size)) = resp::reply(bytes) {
            let Some(expected) = state.expected.pop_front() else {
                return Err("a reply that nobody asked for".to_owned());
            };
            self.end(&mut state.held, expected, reply, now, live)?;
            bytes.advance(size);
            state.waiting_since = Some(now);
        }
        if state.expected.is_empty() {
            state.waiting_since = None;
            if !self.run.plan.is_open() && !self.run.over.get() {
                self.write(state, vec_of(now, self.run.plan.pipeline));
            }
        }
        Ok(())
    }

    /// Ends what a reply belongs to.
    fn end(
        &self,
        held: &mut Vec<Instant>,
        expected: Expected,
        reply: Reply<'_>,
        now: Instant,
        live: bool,
    ) -> Result<(), String> {
        match (expected, reply) {
            (Expected::Write { due }, Reply::Simple) => self.run.done(due, now, live),
            (Expected::Read { due, key }, Reply::Bulk(value)) => {
                if self.run.supply.is_value(key, value) {
                    self.run.done(due, now, live);
                } else {
                    self.run.failed(due, now, live, "a value that nobody wrote to this key");
                }
            }
            (Expected::Held { due }, Reply::Simple) => held.push(due),
            (Expected::Wait { .. }, Reply::Integer(replicas)) => {
                for due in held.drain(..) {
                    if replicas >= i64::from(self.run.plan.wait) {
                        self.run.done(due, now, live);
                    } else {
                        self.run.failed(due, now, live, "too few replicas");
                    }
                }
            }
            (expected, reply) => {
                let why = describe(reply);
                if !matches!(expected, Expected::Wait { .. }) {
                    self.run.failed(expected.since(), now, live, &why);
                }
                // A master that became a replica: the Sentinels know the new one.
                if !self.run.plan.sentinel.is_empty() {
                    return Err(why);
                }
                if matches!(expected, Expected::Wait { .. }) {
                    for due in held.drain(..) {
                        self.run.failed(due, now, live, &why);
                    }
                }
            }
        }
        Ok(())
    }

    /// The connection is gone, and so is what was in flight on it.
    fn lost(&self, now: Instant, why: &str) {
        let mut state = self.state.borrow_mut();
        let live = self.run.is_live(state.address);
        let held = std::mem::take(&mut state.held);
        let expected = std::mem::take(&mut state.expected);
        let ended = expected.iter().filter(|it| !matches!(it, Expected::Wait { .. }));
        for due in held.into_iter().chain(ended.map(Expected::since)) {
            self.run.failed(due, now, live, why);
        }
        state.writer = None;
        state.out.clear();
        state.flushing = false;
        state.waiting_since = None;
    }

    /// Ends a connection that has been silent for too long; its reader sees the end.
    fn sweep(&self, now: Instant) {
        let state = self.state.borrow();
        let waited = state.waiting_since.map(|since| now.saturating_duration_since(since));
        if let (Some(waited), Some(writer)) = (waited, &state.writer)
            && waited > self.run.plan.timeout()
        {
            let stream: &TcpStream = (**writer).as_ref();
            let _ = rustix::net::shutdown(stream, rustix::net::Shutdown::Both);
        }
    }
}

fn vec_of(due: Instant, count: usize) -> impl Iterator<Item = Instant> {
    std::iter::repeat_n(due, count)
}

fn describe(reply: Reply<'_>) -> String {
    match reply {
        Reply::Error(text) => String::from_utf8_lossy(text).into_owned(),
        Reply::Nil => "the key is not there".to_owned(),
        other => format!("an unexpected reply: {other:?}"),
    }
}

/// The master that a Sentinel names; the master's name is `bench`.
async fn master(sentinel: SocketAddr) -> io::Result<SocketAddr> {
    let strange = || io::Error::other("the Sentinel names no master");
    let mut stream = open(sentinel).await?;
    stream.write_all(b"SENTINEL GET-MASTER-ADDR-BY-NAME bench\r\n").await?;
    let mut bytes = BytesMut::new();
    // *2, $length, host, $length, port
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let lines: Vec<_> = text.split("\r\n").collect();
        if let [_, _, host, _, port, ..] = lines.as_slice()
            && lines.len() > 5
        {
            return format!("{host}:{port}").parse().map_err(|_| strange());
        }
        let read = timeout(ANSWER_TIME, stream.read_buf(&mut bytes)).await??;
        if read == 0 || text.starts_with("*-1") {
            return Err(strange());
        }
    }
}
