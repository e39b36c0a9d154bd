//! http, read-only: health, status, metrics and the page.
//!
//! - `/health`: 200 while the process serves.
//! - `/ready`: 200 once the node serves clients, 503 while it starts.
//! - `/status`: [`StatusPage`] as JSON: how the node is, and the ring as it sees it.
//! - `/metrics`: the same and more, as Prometheus reads it.
//! - `/flow`: flow records in memory as lines of JSON; `?request=`, `?key=`, `?since=`, …
//! - `/`: the page that watches the ring (`site`), and below `/view/` what it asks for (`view`).
//!
//! With a password all but `/health` ask for it: basic authentication with any user name, or
//! `Authorization: Bearer PASSWORD`. axum, because it is hyper with routes and nothing else.
//!
//! Caveats: a connection may stay open without asking anything; `CONNECTIONS_MAX` bounds how many
//! do. Nothing is encrypted.

pub(crate) mod ask;
mod door;
mod exposition;
mod flow;
mod guard;
mod metrics;
mod page;
mod sample;
mod site;
mod view;

pub use page::{LinkRow, Row, StatusPage};
pub use sample::Load;

use crate::config::{Hidden, Node};
use actix::{MailboxError, Recipient};
use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use simpledynamo_actors::{
    flow::Reader,
    messages::{
        AskStatus, AskTable, AskTraffic, LocalGet, NodeHandle, Phase, Status, Table, Traffic,
    },
    metrics::Metrics,
};
use simpledynamo_protocol::ring::{NodeId, Ring};
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{net::TcpListener, sync::watch, time::timeout};

/// Connections at a time; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 64;
/// How long the node may take to say how it is: its threads are busy longer only when it is ill.
const ANSWER_TIME: Duration = Duration::from_secs(2);

/// Whom the pages ask; a part of [`NodeHandle`].
#[derive(Clone)]
pub struct Asked {
    /// The membership table.
    pub status: Recipient<AskStatus>,
    /// The membership table.
    pub table: Recipient<AskTable>,
    /// The membership table.
    pub traffic: Recipient<AskTraffic>,
    /// The replica store.
    pub local_get: Recipient<LocalGet>,
    /// What the node counts.
    pub metrics: Arc<Metrics>,
    /// What was taken down of recent requests.
    pub flow: Reader,
}

impl From<&NodeHandle> for Asked {
    fn from(node: &NodeHandle) -> Asked {
        Asked {
            status: node.status.clone(),
            table: node.table.clone(),
            traffic: node.traffic.clone(),
            local_get: node.local_get.clone(),
            metrics: node.metrics.clone(),
            flow: node.flow.clone(),
        }
    }
}

/// What the pages must know of the cluster.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// The node they belong to.
    pub me: NodeId,
    /// Where keys live.
    pub ring: Ring,
    /// Every node, with the http address at which this one reaches it.
    pub nodes: Vec<Node>,
    /// What visitors must give, and what the other nodes are given.
    pub password: Option<Hidden>,
}

#[derive(Clone)]
struct Site {
    node: Asked,
    settings: Arc<HttpSettings>,
    load: sample::LoadHandle,
    watched: view::Watched,
    stop: watch::Receiver<bool>,
    /// Unix seconds.
    started: u64,
}

/// Serves until `stop` turns true or its sender is gone.
///
/// # Errors
/// The listener's.
pub async fn serve(
    listener: TcpListener,
    node: Asked,
    settings: HttpSettings,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let site = Site {
        node,
        settings: Arc::new(settings),
        load: sample::LoadHandle::default(),
        watched: view::Watched::default(),
        stop: stop.clone(),
        started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
    };
    let door = door::Door::new(listener, CONNECTIONS_MAX);
    let sampling = sample::run(site.node.metrics.clone(), site.load.clone());
    let watching = view::run(site.clone());
    let server = axum::serve(door, routes(site)).into_future();
    // Not axum's graceful shutdown: it waits for idle connections, and nothing here needs finishing.
    tokio::select! {
        ended = server => ended,
        _ = stop.wait_for(|stop| *stop) => Ok(()),
        // Neither ends by itself.
        () = sampling => Ok(()),
        () = watching => Ok(()),
    }
}

fn routes(site: Site) -> Router {
    // What shows keys or values is also kept from pages of other origins.
    let shown = Router::new()
        .route("/flow", get(flow::records))
        .merge(site::routes())
        .merge(view::routes())
        .layer(axum::middleware::from_fn_with_state(site.clone(), guard::own_name));
    Router::new()
        .route("/ready", get(ready))
        .route("/status", get(status))
        .route("/metrics", get(metrics_text))
        .merge(shown)
        .layer(axum::middleware::from_fn_with_state(site.clone(), guard::password))
        .route("/health", get(|| async { "ok\n" }))
        .fallback(|| async {
            let what = "not found: there are /, /health, /ready, /status, /metrics and /flow\n";
            (StatusCode::NOT_FOUND, what)
        })
        .layer(axum::middleware::map_response(guard::strict))
        .with_state(site)
}

async fn ready(State(site): State<Site>) -> Response {
    match timeout(ANSWER_TIME, site.node.status.send(AskStatus)).await {
        Ok(Ok(status)) if status.phase == Phase::Starting => {
            (StatusCode::SERVICE_UNAVAILABLE, "starting\n").into_response()
        }
        Ok(Ok(_)) => "ready\n".into_response(),
        _ => unavailable(),
    }
}

/// What the node says of itself.
struct Told {
    status: Status,
    table: Table,
    traffic: Traffic,
}

impl Site {
    /// None: the node does not answer.
    async fn told(&self) -> Option<Told> {
        let all = async {
            let status = self.node.status.send(AskStatus).await?;
            let table = self.node.table.send(AskTable).await?;
            let traffic = self.node.traffic.send(AskTraffic).await?;
            Ok::<_, MailboxError>(Told { status, table, traffic })
        };
        timeout(ANSWER_TIME, all).await.ok()?.ok()
    }

    /// None: the node does not answer.
    async fn status_page(&self) -> Option<StatusPage> {
        let Told { status, table, traffic } = self.told().await?;
        Some(StatusPage::new(&status, &table, &traffic, self.load.get()))
    }
}

async fn status(State(site): State<Site>) -> Response {
    site.status_page().await.map_or_else(unavailable, |page| Json(page).into_response())
}

async fn metrics_text(State(site): State<Site>) -> Response {
    let Some(Told { status, table, traffic }) = site.told().await else { return unavailable() };
    let text = metrics::render(&metrics::Figures {
        status: &status,
        table: &table,
        traffic: &traffic,
        metrics: &site.node.metrics,
        flow: site.node.flow.counts(),
        started: site.started,
        resident: crate::resp::resident_bytes(),
        streams: site.watched.streams(),
    });
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

fn unavailable() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the node does not answer: it stops or is overloaded\n")
        .into_response()
}

#[cfg(test)]
mod tests;
