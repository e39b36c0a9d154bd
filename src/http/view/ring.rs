//! The whole ring, as server-sent events.
//!
//! One task asks every other node for its `/status`, four times a second and only while somebody watches,
//! and publishes what it knows as one JSON text. However many watch, the nodes are asked once. A
//! watcher that reads slowly misses texts and costs no memory: it always gets the latest.
//!
//! A refused connection is told at once; silence counts after [`ANSWER_TIME`].
//!
//! Caveat: a node that is reached at another address than that of its `cluster.toml` is shown as silent
//! here although the ring works: pages are no part of the protocol.

use super::super::{Site, ask, page::StatusPage};
use crate::config::{Hidden, Node};
use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event, Sse},
    },
};
use futures::{
    StreamExt,
    stream::{self, FuturesUnordered},
};
use serde::Serialize;
use simpledynamo_protocol::ring::Ring;
use std::{
    convert::Infallible,
    io,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::{Instant, MissedTickBehavior, interval, timeout},
};

/// How often every node is asked and the ring is published.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Silence after which a node is shown as such; together with [`LOOK_EVERY`] below a second.
const ANSWER_TIME: Duration = Duration::from_millis(500);
/// Pages that watch at a time: a quarter of all connections, so that the rest of http stays in reach.
pub(in crate::http) const STREAMS_MAX: usize = 16;
/// When a browser whose stream broke tries again: a node that comes back is shown at once.
const RETRY: Duration = Duration::from_millis(500);

/// Who watches, and what they see.
#[derive(Clone)]
pub(in crate::http) struct Watched {
    latest: watch::Sender<Arc<str>>,
    arrived: Arc<Notify>,
    places: Arc<Semaphore>,
}

impl Default for Watched {
    fn default() -> Watched {
        Watched {
            latest: watch::Sender::new(Arc::from("")),
            arrived: Arc::default(),
            places: Arc::new(Semaphore::new(STREAMS_MAX)),
        }
    }
}

impl Watched {
    /// Streams that are open.
    pub(in crate::http) fn streams(&self) -> usize {
        STREAMS_MAX - self.places.available_permits()
    }
}

/// The events, for as long as the visitor stays.
pub(super) async fn events(State(site): State<Site>) -> Response {
    let Site { watched: Watched { latest, arrived, places }, stop, .. } = site;
    let Ok(place) = places.try_acquire_owned() else {
        let what =
            format!("{STREAMS_MAX} pages watch this node already: close one, or ask another\n");
        let wait = [(header::RETRY_AFTER, "5")];
        return (StatusCode::SERVICE_UNAVAILABLE, wait, what).into_response();
    };
    let mut seen = latest.subscribe();
    seen.mark_unchanged();
    arrived.notify_one();
    let events = stream::unfold((seen, stop, place), |(mut seen, mut stop, place)| async move {
        tokio::select! {
            changed = seen.changed() => changed.ok()?,
            // Also where its sender is gone: the page must learn that the node ends.
            _ = stop.wait_for(|stop| *stop) => return None,
        }
        let text = Arc::clone(&seen.borrow_and_update());
        let event = Event::default().event("ring").retry(RETRY).data(text);
        Some((Ok::<_, Infallible>(event), (seen, stop, place)))
    });
    Sse::new(events).into_response()
}

/// What the page is told.
#[derive(Serialize)]
struct RingView<'a> {
    /// The node that tells it.
    me: u32,
    /// By its clock, Unix milliseconds.
    at: u64,
    /// In ring order.
    nodes: Vec<NodeView<'a>>,
}

#[derive(Serialize)]
struct NodeView<'a> {
    id: u32,
    /// Its place, 40 hex digits.
    position: String,
    /// The same as a part of the circle, 0 to 1.
    angle: f64,
    /// The part of the ring it coordinates, 0 to 1.
    share: f64,
    client: String,
    peer: String,
    http: String,
    /// `starting`, `learning`, `serving`, or `down` (the connection is refused), `no answer`; `unknown`
    /// before the first look.
    state: &'a str,
    /// For how long, milliseconds.
    since: u64,
    /// Why there is no answer.
    error: Option<&'a str>,
    /// How long its answer took, microseconds.
    took: Option<u64>,
    /// What it said last; old where the state is not one of its own words.
    status: Option<&'a StatusPage>,
}

/// A node as it was seen last.
struct Seen {
    node: Node,
    position: String,
    angle: f64,
    share: f64,
    state: String,
    since: Instant,
    error: Option<String>,
    took: Option<Duration>,
    status: Option<StatusPage>,
    asking: bool,
}

/// What one look gave.
struct Look {
    at: usize,
    took: Duration,
    answer: io::Result<StatusPage>,
}

/// Watches while somebody does; never ends.
pub(in crate::http) async fn run(site: Site) {
    loop {
        site.watched.arrived.notified().await;
        watch_ring(&site).await;
    }
}

async fn watch_ring(site: &Site) {
    let mut seen = everyone(site);
    let mut looks = FuturesUnordered::new();
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while site.watched.latest.receiver_count() > 0 {
        tokio::select! {
            _ = ticks.tick() => {
                for (at, node) in seen.iter_mut().enumerate().filter(|(_, node)| !node.asking) {
                    node.asking = true;
                    looks.push(look(site, at, node.node));
                }
                publish(site, &seen);
            }
            Some(look) = looks.next() => {
                let changed = seen.get_mut(look.at).is_some_and(|node| node.take(look.took, look.answer));
                if changed {
                    publish(site, &seen);
                }
            }
        }
    }
}

fn everyone(site: &Site) -> Vec<Seen> {
    let ring: &Ring = &site.settings.ring;
    let node = |id| site.settings.nodes.iter().find(|node| node.id == id).copied();
    ring.nodes()
        .filter_map(|id| Some((node(id)?, ring.position(id)?)))
        .map(|(node, position)| Seen {
            node,
            position: format!("{position:?}"),
            angle: part_of_circle(position.prefix()),
            share: ring.share(node.id),
            state: "unknown".to_owned(),
            since: Instant::now(),
            error: None,
            took: None,
            status: None,
            asking: false,
        })
        .collect()
}

/// A position's leading 64 bits as a part of the circle.
pub(super) fn part_of_circle(prefix: u64) -> f64 {
    prefix as f64 / 2_f64.powi(64)
}

async fn look(site: &Site, at: usize, node: Node) -> Look {
    let began = Instant::now();
    let answer = if node.id == site.settings.me {
        site.status_page().await.ok_or_else(|| io::Error::other("this node does not answer itself"))
    } else {
        let asked = timeout(ANSWER_TIME, ask_peer(node, site.settings.password.as_ref())).await;
        asked.unwrap_or_else(|_| {
            let what = format!("nothing within {} ms", ANSWER_TIME.as_millis());
            Err(io::Error::new(io::ErrorKind::TimedOut, what))
        })
    };
    Look { at, took: began.elapsed(), answer }
}

async fn ask_peer(node: Node, password: Option<&Hidden>) -> io::Result<StatusPage> {
    if node.http.ip().is_unspecified() {
        let what = "its http address in this node's cluster.toml is none to connect to";
        return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, what));
    }
    let text = ask::get(node.http, "/status", password).await?;
    let page: StatusPage = serde_json::from_str(&text)?;
    if page.id != node.id.0 {
        let what = format!("node {} answers at the http address of node {}", page.id, node.id);
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(page)
}

impl Seen {
    /// Takes in what a look gave; whether the node's state is another now.
    fn take(&mut self, took: Duration, answer: io::Result<StatusPage>) -> bool {
        self.asking = false;
        let state = match &answer {
            Ok(page) => page.phase.as_str(),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => "down",
            Err(_) => "no answer",
        };
        let changed = self.state != state;
        if changed {
            state.clone_into(&mut self.state);
            self.since = Instant::now();
        }
        self.took = answer.is_ok().then_some(took);
        self.error = answer.as_ref().err().map(ToString::to_string);
        if let Ok(page) = answer {
            self.status = Some(page);
        }
        changed
    }

    fn view(&self) -> NodeView<'_> {
        NodeView {
            id: self.node.id.0,
            position: self.position.clone(),
            angle: self.angle,
            share: self.share,
            client: self.node.client.to_string(),
            peer: self.node.peer.to_string(),
            http: self.node.http.to_string(),
            state: &self.state,
            since: millis(self.since.elapsed()),
            error: self.error.as_deref(),
            took: self.took.map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
            status: self.status.as_ref(),
        }
    }
}

fn publish(site: &Site, seen: &[Seen]) {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nodes = seen.iter().map(Seen::view).collect();
    let view = RingView { me: site.settings.me.0, at: millis(at), nodes };
    match serde_json::to_string(&view) {
        Ok(text) => {
            site.watched.latest.send_replace(Arc::from(text));
        }
        Err(error) => log::warn!("the ring could not be shown: {error}"),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
