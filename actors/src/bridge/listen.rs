//! The listening end: peers dial, prove who they are, and their messages are handed in.
//!
//! One task accepts, one task a connection reads. A reader takes all that has arrived, decodes it
//! and hands each message to [`Inbound::deliver`]; so messages of one connection come in the order
//! in which they were sent, and nothing is promised across connections.
//!
//! **One connection a peer.** A peer counts its starts (incarnation, durable) and the connections of
//! each life. The larger pair takes the peer's seat: the connection that sat there is closed, and
//! what it had sent and was not yet read is dropped. A smaller or equal pair is refused: it is a
//! former life, or a packet that wandered. A peer with another store began to count anew, so there
//! the one that comes later is the newer; no former life can come back, because it would have to
//! answer a fresh challenge.
//!
//! **Strangers.** Whoever has not proved itself costs a task and a small buffer for at most
//! [`HANDSHAKE_TIME_MAX`](super::handshake::HANDSHAKE_TIME_MAX); beyond [`UNPROVEN_MAX`] of them the
//! eldest is closed.
//!
//! Caveat: a connection that ends says nothing about the peer; it is counted and logged, no more.

use super::{
    Counters, Inbound, PeerIdentity,
    codec::{CodecError, Decoded, Decoder},
    handshake::{self, HandshakeError, in_time},
    hello::{Credentials, Refusal},
    net::Net,
};
use crate::{flow::Recorder, gate::Gate};
use bytes::BytesMut;
use parking_lot::Mutex;
use simpledynamo_protocol::ring::NodeId;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    sync::Notify,
    task::AbortHandle,
};

/// Connections at once that have not yet proved who they are: every peer of a large ring may dial
/// in one moment, some of them twice.
pub const UNPROVEN_MAX: usize = 64;
/// Room made for each read, bytes: hundreds of usual messages.
const READ_BYTES: usize = 64 * 1024;
/// Capacity, bytes, that an emptied buffer keeps.
const KEPT_BYTES_MAX: usize = 1024 * 1024;
/// Pause after an accept that failed: the process is out of file descriptors, and trying at once
/// would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The listening end; cheap to clone.
#[derive(Clone)]
pub(super) struct Listening(Rc<Shared>);

struct Shared {
    credentials: Rc<Credentials>,
    peers: BTreeSet<NodeId>,
    frame_bytes: usize,
    inbound: Rc<dyn Inbound>,
    counters: Arc<Mutex<Counters>>,
    recorder: Recorder,
    seats: RefCell<Seats>,
    open: RefCell<Open>,
    refusals: Gate,
    strangers: Gate,
    failures: Gate,
}

/// Tasks of connections by the order in which they came, and which of them are still unproven.
#[derive(Default)]
struct Open {
    count: u64,
    tasks: BTreeMap<u64, AbortHandle>,
    unproven: BTreeSet<u64>,
}

impl Listening {
    pub(super) fn new(
        credentials: Rc<Credentials>,
        peers: BTreeSet<NodeId>,
        frame_bytes: usize,
        inbound: Rc<dyn Inbound>,
        counters: Arc<Mutex<Counters>>,
        recorder: Recorder,
    ) -> Listening {
        Listening(Rc::new(Shared {
            credentials,
            peers,
            frame_bytes,
            inbound,
            counters,
            recorder,
            seats: RefCell::default(),
            open: RefCell::default(),
            refusals: Gate::default(),
            strangers: Gate::default(),
            failures: Gate::default(),
        }))
    }

    /// The accepting task; ends only when it is aborted.
    pub(super) async fn run<N: Net>(self, net: N, mut listener: N::Listener) {
        loop {
            match net.accept(&mut listener).await {
                Ok((stream, from)) => self.open(stream, from),
                Err(error) => {
                    self.0.failures.warn(|| format!("cannot accept peers: {error}"));
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Ends the tasks of all connections.
    pub(super) fn close(&self) {
        // Not in the loop's head: a task that ends gives its place back, which borrows too.
        let tasks = std::mem::take(&mut self.0.open.borrow_mut().tasks);
        tasks.into_values().for_each(|task| task.abort());
    }

    fn open<S: AsyncRead + AsyncWrite + Unpin + 'static>(&self, stream: S, from: SocketAddr) {
        self.make_room();
        let mut open = self.0.open.borrow_mut();
        open.count += 1;
        let number = open.count;
        open.unproven.insert(number);
        let place = Place { listening: self.clone(), number };
        let task = tokio::task::spawn_local(place.serve(stream, from));
        open.tasks.insert(number, task.abort_handle());
    }

    /// Closes the eldest unproven connection where there are too many.
    fn make_room(&self) {
        let mut open = self.0.open.borrow_mut();
        if open.unproven.len() < UNPROVEN_MAX {
            return;
        }
        let eldest = open.unproven.pop_first();
        let task = eldest.and_then(|eldest| open.tasks.remove(&eldest));
        drop(open);
        if let Some(task) = task {
            task.abort();
        }
        self.0.counters.lock().crowded_out += 1;
        self.0.strangers.warn(|| {
            format!("more than {UNPROVEN_MAX} connections without a hello: closed the eldest")
        });
    }

    /// Hello, seat and welcome.
    async fn admit<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
    ) -> Result<(PeerIdentity, Rc<Notify>), HandshakeError> {
        let shared = &self.0;
        let knows = |id| shared.peers.contains(&id);
        let (peer, connection) = handshake::hear(stream, &shared.credentials, knows).await?;
        if let Some(incarnation) = shared.inbound.later_life(peer) {
            return handshake::refuse(stream, Refusal::Stale { incarnation, connection: 0 }).await;
        }
        let taken = shared.seats.borrow_mut().take(peer, connection);
        let seat = match taken {
            Ok(Taken { close, superseded }) => {
                shared.counters.lock().superseded += u64::from(superseded);
                close
            }
            Err(refusal) => return handshake::refuse(stream, refusal).await,
        };
        handshake::welcome(stream).await?;
        Ok((peer, seat))
    }

    fn turn_away(&self, from: SocketAddr, error: &HandshakeError) {
        match error {
            HandshakeError::Refused(_) | HandshakeError::Refusing(_) => {
                self.0.counters.lock().refused += 1;
                self.0.refusals.warn(|| format!("peer connection from {from}: {error}"));
            }
            // A peer that gave up before its turn came, as after a pause of this process.
            HandshakeError::Io(_) => log::debug!("peer connection from {from}: {error}"),
            HandshakeError::TooSlow
            | HandshakeError::Stranger(_)
            | HandshakeError::TooLong(_)
            | HandshakeError::Unreadable => {
                self.0.counters.lock().strangers += 1;
                self.0.strangers.warn(|| format!("closed a connection from {from}: {error}"));
            }
        }
    }

    /// Hands in what the peer says until the connection ends.
    async fn read<S: AsyncRead + Unpin>(
        &self,
        mut stream: S,
        peer: PeerIdentity,
        close: &Notify,
    ) -> io::Result<()> {
        let decoder = Decoder::new(self.0.frame_bytes);
        let mut received = BytesMut::new();
        loop {
            if received.is_empty() && received.capacity() > KEPT_BYTES_MAX {
                received = BytesMut::new();
            }
            received.reserve(READ_BYTES);
            let read = tokio::select! {
                biased;
                () = close.notified() => return Err(io::Error::other("superseded by a newer one")),
                read = stream.read_buf(&mut received) => read?,
            };
            if read == 0 {
                return Ok(());
            }
            self.0.recorder.turn();
            self.0.counters.lock().bytes_in += read as u64;
            self.deliver(&decoder, &mut received, peer).map_err(|error| {
                self.0.counters.lock().damaged += 1;
                io::Error::new(io::ErrorKind::InvalidData, error)
            })?;
        }
    }

    fn deliver(
        &self,
        decoder: &Decoder,
        received: &mut BytesMut,
        peer: PeerIdentity,
    ) -> Result<(), CodecError> {
        loop {
            let before = received.len();
            let Some(decoded) = decoder.decode(received)? else { return Ok(()) };
            let (message, trace) = match decoded {
                Decoded::Message(message) => (message, None),
                Decoded::Traced(message, trace) => (message, Some(trace)),
                Decoded::Unknown(_) => {
                    self.0.counters.lock().unknown_tags += 1;
                    continue;
                }
            };
            // Given back before the message is handed in: the receiver may send at once, which counts
            // too.
            self.0.counters.lock().frames_in += 1;
            let PeerIdentity { id, incarnation, .. } = peer;
            let bytes = before - received.len();
            let cause = self.0.recorder.received(id, incarnation, &message, trace, bytes);
            self.0.inbound.deliver(id, message, cause);
        }
    }
}

/// A connection's place in the list of open ones, given back whatever ends it.
struct Place {
    listening: Listening,
    number: u64,
}

impl Place {
    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(self, mut stream: S, from: SocketAddr) {
        let listening = &self.listening;
        let admitted = in_time(listening.admit(&mut stream)).await;
        listening.0.open.borrow_mut().unproven.remove(&self.number);
        let (peer, close) = match admitted {
            Ok(admitted) => admitted,
            Err(error) => return listening.turn_away(from, &error),
        };
        listening.0.counters.lock().accepts += 1;
        log::info!("node {} connected from {from}", peer.id);
        listening.0.inbound.met(peer);
        match listening.read(stream, peer, &close).await {
            Ok(()) => log::info!("connection from node {} ended: it closed it", peer.id),
            Err(error) => log::info!("connection from node {} ended: {error}", peer.id),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.listening.0.open.borrow_mut();
        open.tasks.remove(&self.number);
        open.unproven.remove(&self.number);
    }
}

/// Which connection of each peer counts.
#[derive(Default)]
struct Seats(BTreeMap<NodeId, Seat>);

struct Seat {
    peer: PeerIdentity,
    connection: u64,
    close: Rc<Notify>,
}

#[derive(Debug)]
struct Taken {
    /// Woken when a newer connection takes the seat.
    close: Rc<Notify>,
    /// Whether another connection sat there.
    superseded: bool,
}

impl Seats {
    /// Gives the peer's seat to this connection and tells the one that sat there to close. A seat
    /// stays taken when its connection ends, so that an older one is still recognised.
    fn take(&mut self, peer: PeerIdentity, connection: u64) -> Result<Taken, Refusal> {
        let old = self.0.get(&peer.id);
        if let Some(old) = old.filter(|old| old.peer.store == peer.store) {
            let (incarnation, latest) = (old.peer.incarnation, old.connection);
            if (peer.incarnation, connection) <= (incarnation, latest) {
                return Err(Refusal::Stale { incarnation, connection: latest });
            }
        }
        let close = Rc::new(Notify::new());
        let seat = Seat { peer, connection, close: close.clone() };
        let old = self.0.insert(peer.id, seat);
        // Only a connection that is still being read holds a second reference.
        let superseded = old.as_ref().is_some_and(|old| Rc::strong_count(&old.close) > 1);
        if let Some(old) = old {
            old.close.notify_one();
        }
        Ok(Taken { close, superseded })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn peer(store: u64, incarnation: u64) -> PeerIdentity {
        PeerIdentity { id: NodeId(1), store, incarnation }
    }

    #[test]
    fn newer_connection_takes_the_seat_and_closes_the_older() {
        let mut seats = Seats::default();
        let first = seats.take(peer(1, 3), 1).unwrap();
        assert!(!first.superseded);
        assert!(first.close.notified().now_or_never().is_none());
        let second = seats.take(peer(1, 3), 2).unwrap();
        assert!(second.superseded);
        assert!(first.close.notified().now_or_never().is_some());
        drop(second);
        let life = seats.take(peer(1, 4), 1).unwrap();
        assert!(!life.superseded, "the one before had ended");
    }

    #[test]
    fn older_or_equal_connection_is_refused_even_after_the_newer_ended() {
        let mut seats = Seats::default();
        drop(seats.take(peer(1, 3), 5).unwrap());
        for (incarnation, connection) in [(3, 5), (3, 4), (2, 9), (0, 0)] {
            let refused = seats.take(peer(1, incarnation), connection).unwrap_err();
            assert_eq!(refused, Refusal::Stale { incarnation: 3, connection: 5 });
        }
        assert!(seats.take(peer(1, 3), 6).is_ok());
    }

    #[test]
    fn node_with_a_new_store_counts_anew() {
        let mut seats = Seats::default();
        let before = seats.take(peer(1, 30), 5).unwrap();
        assert!(seats.take(peer(2, 1), 1).is_ok());
        assert!(before.close.notified().now_or_never().is_some());
        assert!(seats.take(peer(2, 1), 1).is_err());
    }
}
