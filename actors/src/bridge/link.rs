//! A link: this node's messages to one peer.
//!
//! Links go one way. This node dials each peer, and that connection carries what this node says;
//! what the peer says comes on the connection the peer dialed ([`super::listen`]).
//!
//! Whoever sends encodes straight into the link's buffer and goes on; one task a peer takes all that
//! has gathered and gives it to the network at once, so that under load many messages share a system
//! call. Sending never waits: what finds no room is dropped and counted.
//!
//! **What waits without a connection.** Messages wait for an attempt to connect that is under way
//! (at most
//! [`HANDSHAKE_TIME_MAX`](handshake::HANDSHAKE_TIME_MAX)). If it fails they are dropped, and so is what is sent in the
//! pause before the next attempt: a message that is late is worth little (its asker has gone to the
//! next node) and a peer that comes back must not begin with a backlog. Correctness never depends on
//! delivery.
//!
//! **Memory.** What waits and what is being written stay together within the bound; the buffers
//! themselves may take twice that, and are given back after a burst.
//!
//! Caveat: "written" means that the system took it. What is lost with a connection is counted by
//! frames, those that the peer did receive before the end included.

use super::{
    Counters, FAMILIES, Inbound, LinkFigures, PeerIdentity,
    codec::{self, Trace},
    family,
    handshake::{self, HandshakeError},
    hello::{Credentials, Refusal, VERSION_TRACES},
    net::Net,
};
use crate::{
    flow::{Origin, Recorder},
    gate::Gate,
    metrics::{Histogram, Reading},
};
use bytes::BytesMut;
use parking_lot::Mutex;
use simpledynamo_protocol::{message::Message, ring::NodeId};
use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Notify,
    time::{Instant, timeout},
};

/// First pause before dialing again.
pub const BACK_OFF_MIN: Duration = Duration::from_millis(20);
/// Longest pause before dialing again: a peer that came back is found within this and an attempt.
pub const BACK_OFF_MAX: Duration = Duration::from_millis(500);
/// A connection that lasted so long is dialed again at once when it breaks, a shorter one after a
/// pause: a peer that accepts and closes must not make this node spin.
const STEADY: Duration = BACK_OFF_MAX;
/// Time for which the network may take nothing before the connection is given up with what waits:
/// whoever reads again then is better served by fresh messages.
pub const STALL_TIME_MAX: Duration = Duration::from_secs(2);
/// From a reader through router and coordinator: so often a message makes another actor ready.
const TURNS: usize = 3;
/// Capacity, bytes, that an emptied buffer keeps for the next burst.
const KEPT_BYTES_MAX: usize = 1024 * 1024;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It waits for the network; nothing says that it will arrive.
    Queued,
    /// Dropped: as much as may wait does.
    Full,
    /// Dropped: no connection, and none is being opened just now.
    Unconnected,
    /// Dropped: larger than a frame may be.
    TooLarge,
    /// Dropped: no such peer.
    NoSuchPeer,
}

/// What a link needs to know.
pub(super) struct Route {
    pub peer: NodeId,
    pub address: SocketAddr,
    pub frame_bytes: usize,
    pub peer_bytes: usize,
}

/// The sending end; cheap to clone, for any thread.
#[derive(Clone)]
pub(super) struct Link(Arc<Shared>);

struct Shared {
    route: Route,
    queue: Mutex<Queue>,
    wake: Notify,
    /// The peer was heard to dial us: what kept this link from it is probably over.
    redial: Notify,
    counters: Arc<Mutex<Counters>>,
    gate: Gate,
    connections: AtomicU64,
    batches: Histogram,
}

#[derive(Default)]
struct Queue {
    /// Encoded frames that wait.
    waiting: BytesMut,
    frames: u64,
    /// Messages taken so far, by family.
    sent: [u64; FAMILIES.len()],
    /// What the task is writing: bytes not yet taken, frames not yet wholly taken.
    writing_bytes: usize,
    writing_frames: u64,
    state: State,
    /// The peer is known to read no traces.
    plain: bool,
    /// Some that wait have traces.
    traced: bool,
}

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    Dialing,
    Connected(PeerIdentity),
    BackingOff,
}

impl Link {
    pub(super) fn new(route: Route, counters: Arc<Mutex<Counters>>) -> Link {
        Link(Arc::new(Shared {
            route,
            queue: Mutex::default(),
            wake: Notify::new(),
            redial: Notify::new(),
            counters,
            gate: Gate::default(),
            connections: AtomicU64::new(0),
            batches: Histogram::default(),
        }))
    }

    /// Encodes `message` for the peer, or drops it; never waits. `recorder` is the calling thread's.
    pub(super) fn send(&self, message: &Message, origin: Origin, recorder: &Recorder) -> Sent {
        let (mut sent, mut bytes, mut first) = (Sent::Queued, 0, false);
        recorder.send(self.0.route.peer, message, origin, |trace| {
            (sent, bytes, first) = self.queue(message, trace);
            match sent {
                Sent::Queued => Ok(bytes),
                Sent::Full => Err("too much waits for that node"),
                Sent::Unconnected => Err("no connection"),
                Sent::TooLarge => Err("larger than a frame may be"),
                Sent::NoSuchPeer => Err("no such node"),
            }
        });
        // Not under the locks: where another thread is to be woken, that is a system call.
        if first {
            self.0.wake.notify_one();
        }
        if sent == Sent::TooLarge {
            let (name, peer) = (message.name(), self.0.route.peer);
            let limit = self.0.route.frame_bytes;
            self.0.gate.warn(|| {
                format!("dropped {name} for node {peer}: it does not fit into {limit} bytes")
            });
        }
        sent
    }

    /// What became of it, its size, and whether it is the first that waits.
    fn queue(&self, message: &Message, trace: Option<Trace>) -> (Sent, usize, bool) {
        let mut queue = self.0.queue.lock();
        if matches!(queue.state, State::BackingOff) {
            self.0.counters.lock().dropped_unconnected += 1;
            return (Sent::Unconnected, 0, false);
        }
        let Route { frame_bytes, peer_bytes, .. } = self.0.route;
        let room = peer_bytes.saturating_sub(queue.waiting.len() + queue.writing_bytes);
        let idle = queue.waiting.is_empty();
        let trace = trace.filter(|_| !queue.plain);
        queue.traced |= trace.is_some();
        let limit = room.min(frame_bytes);
        let bytes = match codec::encode(message, trace.as_ref(), &mut queue.waiting, limit) {
            Ok(bytes) => bytes,
            Err(_) if room < frame_bytes => {
                self.0.counters.lock().dropped_full += 1;
                return (Sent::Full, 0, false);
            }
            Err(_) => {
                self.0.counters.lock().dropped_large += 1;
                return (Sent::TooLarge, 0, false);
            }
        };
        queue.frames += 1;
        if let Some(count) = queue.sent.get_mut(family(message)) {
            *count += 1;
        }
        (Sent::Queued, bytes, idle)
    }

    /// Cuts the present back-off short, or the next one: a hint about when to dial, nothing else. A
    /// node that has just started is otherwise out of its peers' reach for half a second.
    pub(super) fn redial(&self) {
        self.0.redial.notify_one();
    }

    /// Who answered at the other end; none while there is no connection.
    pub(super) fn identity(&self) -> Option<PeerIdentity> {
        match self.0.queue.lock().state {
            State::Connected(peer) => Some(peer),
            State::Dialing | State::BackingOff => None,
        }
    }

    /// Bytes that wait or are being written.
    pub(super) fn waiting(&self) -> usize {
        let queue = self.0.queue.lock();
        queue.waiting.len() + queue.writing_bytes
    }

    /// For people and metrics.
    pub(super) fn figures(&self) -> LinkFigures {
        LinkFigures {
            peer: self.0.route.peer,
            connected: self.identity().is_some(),
            waiting: self.waiting(),
            sent: self.0.queue.lock().sent,
        }
    }

    /// How many frames went with one write.
    pub(super) fn frames_per_write(&self) -> Reading {
        self.0.batches.read()
    }

    /// The link's task: dials, carries, dials again; ends only when it is aborted.
    pub(super) async fn run<N: Net>(
        self,
        net: N,
        credentials: Rc<Credentials>,
        inbound: Rc<dyn Inbound>,
        recorder: Recorder,
    ) {
        let peer = self.0.route.peer;
        let mut failures = 0;
        loop {
            self.0.queue.lock().state = State::Dialing;
            let dialed = handshake::in_time(self.dial(&net, &credentials)).await;
            match dialed.and_then(|dialed| refuse_the_past(dialed, &*inbound)) {
                Ok((stream, identity, version)) => {
                    log::info!("connected to node {peer} at {}", self.0.route.address);
                    let since = Instant::now();
                    self.connected(identity, version, &recorder);
                    inbound.met(identity);
                    let end = self.carry(stream).await;
                    log::info!("connection to node {peer} ended: {end}");
                    self.lost();
                    failures = if since.elapsed() >= STEADY { 0 } else { failures + 1 };
                }
                Err(error) => {
                    failures += 1;
                    self.0.counters.lock().dial_failures += 1;
                    let address = self.0.route.address;
                    // Nothing to worry about: peers start and stop. Whether the node is missed, the
                    // failure detector says.
                    self.0.gate.info(|| format!("cannot reach node {peer} at {address}: {error}"));
                }
            }
            if failures > 0 {
                self.back_off(&recorder);
                let seed = u64::from(credentials.me.id.0) << 32 | u64::from(peer.0);
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(pause(failures, seed)) => {}
                    () = self.0.redial.notified() => {}
                }
            }
        }
    }

    async fn dial<N: Net>(
        &self,
        net: &N,
        credentials: &Credentials,
    ) -> Result<(N::Stream, PeerIdentity, u16), HandshakeError> {
        let Route { address, peer, .. } = self.0.route;
        let number = self.0.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let mut stream = net.connect(address).await?;
        let (identity, version) = handshake::dial(&mut stream, credentials, peer, number).await?;
        Ok((stream, identity, version))
    }

    /// Writes what gathers until the connection ends; says why it did.
    async fn carry<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) -> io::Error {
        let mut batch = BytesMut::new();
        loop {
            if self.take(&mut batch) {
                if let Err(error) = self.write(&mut stream, &batch).await {
                    return error;
                }
                continue;
            }
            let mut byte = [0];
            tokio::select! {
                biased;
                () = self.0.wake.notified() => end_of_turn().await,
                read = stream.read(&mut byte) => return match read {
                    Ok(0) => io::Error::new(io::ErrorKind::UnexpectedEof, "the peer closed it"),
                    Ok(_) => io::Error::new(io::ErrorKind::InvalidData, "bytes the wrong way"),
                    Err(error) => error,
                },
            }
        }
    }

    /// Takes all that waits in exchange for an empty buffer; whether there was any.
    fn take(&self, batch: &mut BytesMut) -> bool {
        batch.clear();
        if batch.capacity() > KEPT_BYTES_MAX {
            *batch = BytesMut::new();
        }
        let mut queue = self.0.queue.lock();
        std::mem::swap(&mut queue.waiting, batch);
        queue.traced = false;
        queue.writing_bytes = batch.len();
        queue.writing_frames = std::mem::take(&mut queue.frames);
        !batch.is_empty()
    }

    async fn write<S: AsyncWrite + Unpin>(&self, stream: &mut S, batch: &[u8]) -> io::Result<()> {
        let mut left = batch;
        while !left.is_empty() {
            let taken = timeout(STALL_TIME_MAX, stream.write(left)).await;
            let taken = taken.unwrap_or_else(|_| {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read"))
            })?;
            if taken == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            left = left.get(taken..).unwrap_or_default();
            self.0.queue.lock().writing_bytes = left.len();
            let mut counters = self.0.counters.lock();
            counters.writes += 1;
            counters.bytes_out += taken as u64;
        }
        let frames = std::mem::take(&mut self.0.queue.lock().writing_frames);
        self.0.counters.lock().frames_out += frames;
        self.0.batches.record(frames);
        stream.flush().await
    }

    fn connected(&self, identity: PeerIdentity, version: u16, recorder: &Recorder) {
        let mut queue = self.0.queue.lock();
        queue.state = State::Connected(identity);
        queue.plain = version < VERSION_TRACES;
        // It came back as an older version than it was, and could not read what waits.
        let unreadable = (queue.plain && queue.traced).then(|| queue.forget());
        drop(queue);
        if let Some(forgotten) = unreadable {
            self.tell(&forgotten, "that node was set back to an older version", recorder);
        }
        self.0.gate.open();
        self.0.counters.lock().connects += 1;
    }

    /// Forgets what was being written; what waits may go with the next connection.
    fn lost(&self) {
        let mut queue = self.0.queue.lock();
        queue.writing_bytes = 0;
        let mut counters = self.0.counters.lock();
        counters.disconnects += 1;
        counters.lost += std::mem::take(&mut queue.writing_frames);
    }

    /// Drops what waits, and what comes until the next attempt.
    fn back_off(&self, recorder: &Recorder) {
        let mut queue = self.0.queue.lock();
        queue.state = State::BackingOff;
        let forgotten = queue.forget();
        drop(queue);
        self.tell(&forgotten, "no connection", recorder);
    }

    /// Takes down what was dropped. The queue must be free by now: who sends holds the memory of
    /// flow records while waiting for it.
    fn tell(&self, forgotten: &Forgotten, why: &'static str, recorder: &Recorder) {
        if forgotten.traced {
            recorder.forgotten(&codec::traced(&forgotten.waiting), why);
        }
        self.0.counters.lock().dropped_unconnected += forgotten.frames;
    }
}

/// What waited and was dropped.
struct Forgotten {
    waiting: BytesMut,
    traced: bool,
    frames: u64,
}

impl Queue {
    /// Drops what waits.
    fn forget(&mut self) -> Forgotten {
        Forgotten {
            waiting: std::mem::take(&mut self.waiting),
            traced: std::mem::take(&mut self.traced),
            frames: std::mem::take(&mut self.frames),
        }
    }
}

/// Lets everything run that is ready, and what that makes ready: what they say goes with one write.
async fn end_of_turn() {
    for _ in 0..TURNS {
        let mut yielded = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

/// A peer that came back from an older data directory must not count messages as received.
fn refuse_the_past<S>(
    (stream, peer, version): (S, PeerIdentity, u16),
    inbound: &dyn Inbound,
) -> Result<(S, PeerIdentity, u16), HandshakeError> {
    match inbound.later_life(peer) {
        None => Ok((stream, peer, version)),
        Some(incarnation) => {
            Err(HandshakeError::Refusing(Refusal::Stale { incarnation, connection: 0 }))
        }
    }
}

/// The pause after so many failures in a row: doubled each time up to the bound, between half and
/// whole of it, so that nodes that lost each other at one moment do not dial in step. The jitter is
/// a function of `seed` and the count: a simulated run repeats itself.
fn pause(failures: u32, seed: u64) -> Duration {
    let doubled = 1u32.checked_shl(failures.saturating_sub(1).min(16)).unwrap_or(u32::MAX);
    let whole = BACK_OFF_MIN.saturating_mul(doubled).min(BACK_OFF_MAX);
    // SplitMix64 (Steele et al., OOPSLA '14).
    let mut mixed = seed.wrapping_add(u64::from(failures).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let part = u32::try_from((mixed ^ (mixed >> 31)) % 512).unwrap_or(0);
    whole / 2 + whole * part / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_stay_bounded_and_differ() {
        for seed in [0, 1, 5554 << 32 | 5556, u64::MAX] {
            for failures in 1..100 {
                let pause = pause(failures, seed);
                assert!(pause >= BACK_OFF_MIN / 2 && pause < BACK_OFF_MAX, "{pause:?}");
            }
            assert!(pause(1, seed) < BACK_OFF_MIN);
            assert!(pause(9, seed) >= BACK_OFF_MAX / 2);
        }
        assert_ne!(pause(9, 5554 << 32 | 5556), pause(9, 5556 << 32 | 5554));
        assert_eq!(pause(u32::MAX, 3), pause(u32::MAX, 3));
    }
}
