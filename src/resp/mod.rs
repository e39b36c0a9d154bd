//! The client front end: RESP2 and RESP3 on one port, any node takes any key.
//!
//! Bytes become arguments, arguments become an action, and an action goes to the node and comes
//! back as a frame:
//!
//! ```text
//! socket → parser → dispatch → pipeline → router (actor)
//!                      │           ↓
//!                   families     frame → socket
//! ```
//!
//! | module | its one duty |
//! |---|---|
//! | `parser` | bytes → arguments, every limit checked before memory is taken |
//! | `frame` | what a client is told → RESP2 or RESP3 bytes |
//! | `session` | what a connection has said about itself, and the row others see of it |
//! | `dispatch` | the table of commands; name, arity, rights → the family's function |
//! | `strings`, `expiry`, `keys`, `connection`, `introspect`, `server`, `dynamo` | one family of commands each |
//! | `pipeline` | many commands in flight, replies in order, one key's commands one after another |
//! | `execute` | the node asked: one key, many keys, verdicts in words |
//! | `client` | one connection, from its first byte to its last |
//!
//! The parser is our own: library codecs gather a whole frame before they look at it, take the
//! declared length for true, and know no inline commands.
//!
//! Caveats. MGET, MSET, DEL of many keys, KEYS and SCAN are per key, not a snapshot. A client that
//! does not read its replies is not read from either, so it costs at most [`WINDOW`] replies and
//! [`OUTPUT_PAUSE`] bytes (fewer replies where recent ones were large); a single reply above `Limits::client_output_bytes` becomes an error.

mod args;
mod client;
mod connection;
mod dispatch;
mod dynamo;
mod execute;
mod expiry;
mod frame;
mod glob;
mod introspect;
mod keys;
mod parser;
mod pipeline;
mod server;
mod session;
mod strings;
#[cfg(test)]
mod tests;

pub(crate) use parser::{count as requests, fuzz};
pub(crate) use server::resident_bytes;

use session::Session;
use simpledynamo_actors::{
    gate::Gate,
    messages::{AskStatus, NodeHandle, Phase},
    settings::Limits,
};
use simpledynamo_protocol::{
    ring::{NodeId, Ring},
    time::WallMillis,
};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io,
    rc::Rc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::Instant,
};

/// Commands of one connection in flight at once. Enough to fill the round trips of a deep pipeline;
/// a connection's unread replies are bounded by it.
pub const WINDOW: usize = 128;

/// Bytes of unsent replies from which a connection starts no further command.
pub const OUTPUT_PAUSE: usize = 256 * 1024;

/// How long a stopping node waits for what is in flight on a connection: above the request deadline.
const STOP_GRACE: Duration = Duration::from_secs(3);

/// Pause after a failed accept, which is nearly always "too many open files".
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The version of Redis whose commands and replies are followed; clients decide by it what to send.
pub(crate) const REDIS_VERSION: &str = "7.0.0";

/// What the front end must know of the cluster and of its bounds.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Bounds on keys, values, connections and replies.
    pub limits: Limits,
    /// What `AUTH` must say; none lets everyone in.
    pub password: Option<String>,
    /// Where keys live, for `DYNAMO WHERE`.
    pub ring: Ring,
    /// The node the front end belongs to.
    pub me: NodeId,
    /// Acknowledgements a write needs, for `WAIT`.
    pub write_quorum: usize,
}

/// What all connections of one node share. One thread only.
struct Shared {
    node: NodeHandle,
    settings: ClientSettings,
    port: u16,
    started: Instant,
    /// Connections now, by id, as `CLIENT LIST` shows them.
    clients: RefCell<BTreeMap<u64, Session>>,
    accepted: Cell<u64>,
    turned_away: Cell<u64>,
    commands: Cell<u64>,
    /// Bytes of unfinished commands, all connections together.
    unfinished: Cell<usize>,
    /// Whether data commands are answered `-LOADING`.
    loading: Cell<bool>,
    /// State of the generator behind RANDOMKEY.
    dice: Cell<u64>,
    lines: Lines,
    /// What a connection reads into; its own input keeps only what came.
    read_buffer: RefCell<Box<[u8]>>,
}

/// Log lines that whoever reaches the port can cause, as often as he likes.
#[derive(Default)]
struct Lines {
    closed: Gate,
    http: Gate,
    password: Gate,
}

impl Shared {
    /// Asks the node whether it is still starting. Once it is not, nobody needs to ask again.
    async fn ask_phase(&self) {
        if let Ok(status) = self.node.status.send(AskStatus).await {
            self.loading.set(status.phase == Phase::Starting);
        }
    }

    /// A number that clients cannot steer; splitmix64 (Steele et al., OOPSLA '14).
    fn roll(&self) -> u64 {
        let state = self.dice.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.dice.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Milliseconds since the Unix epoch.
fn wall_millis() -> WallMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn count(cell: &Cell<u64>) {
    cell.set(cell.get().wrapping_add(1));
}

/// Serves clients until `stop` holds true (or its sender is gone), then finishes what is in flight.
/// Runs on a `LocalSet`, as every actix system is one.
///
/// # Errors
/// Only where the listener has no address; a failed accept is logged and tried again.
pub async fn serve(
    listener: TcpListener,
    node: NodeHandle,
    settings: ClientSettings,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let shared = Rc::new(Shared {
        node,
        settings,
        port: listener.local_addr()?.port(),
        started: Instant::now(),
        clients: RefCell::default(),
        accepted: Cell::new(0),
        turned_away: Cell::new(0),
        commands: Cell::new(0),
        unfinished: Cell::new(0),
        loading: Cell::new(true),
        dice: Cell::new(wall_millis()),
        lines: Lines::default(),
        read_buffer: RefCell::new(vec![0; client::READ_BYTES].into_boxed_slice()),
    });
    let mut connections = JoinSet::new();
    let stop_of_each = stop.clone();
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => admit(&shared, stream, peer, &stop_of_each, &mut connections),
                Err(error) => {
                    log::warn!("accepting a client failed: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}

fn admit(
    shared: &Rc<Shared>,
    stream: TcpStream,
    peer: std::net::SocketAddr,
    stop: &watch::Receiver<bool>,
    connections: &mut JoinSet<()>,
) {
    if connections.len() >= shared.settings.limits.clients {
        count(&shared.turned_away);
        shared.node.metrics.clients_turned_away.increment();
        // Best effort, as nothing may wait for a client that is not let in.
        let _ = stream.try_write(b"-ERR max number of clients reached\r\n");
        return;
    }
    count(&shared.accepted);
    shared.node.metrics.clients_opened.increment();
    // Replies are gathered here; the kernel must not wait for more.
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr().unwrap_or(peer);
    let id = shared.accepted.get();
    let session = Session::new(id, peer, local, shared.settings.password.is_none());
    let client = client::Client::new(Rc::clone(shared), stream, session);
    connections.spawn_local(client.run(stop.clone()));
}
