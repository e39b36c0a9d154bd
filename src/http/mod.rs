//! http, read-only: `/health`, `/ready` and `/status`.
//!
//! - `/health`: 200 while the process serves.
//! - `/ready`: 200 once the node serves clients, 503 while it starts.
//! - `/status`: [`StatusPage`] as JSON: how the node is, and the ring as it sees it.
//! - `/flow`: flow records in memory as lines of JSON; `?request=`, `?key=`, `?since=`, …
//!
//! With a password all but `/health` ask for it: basic authentication with any user name, or
//! `Authorization: Bearer PASSWORD`. axum, because it is hyper with routes and nothing else.
//!
//! Caveats: a connection may stay open without asking anything; `CONNECTIONS_MAX` bounds how many
//! do. Nothing is encrypted.

mod door;
mod flow;
mod page;

pub use page::{Row, StatusPage};

use actix::Recipient;
use axum::{
    Json, Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
    routing::get,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use simpledynamo_actors::{
    flow::Reader,
    messages::{AskStatus, AskTable, NodeHandle, Phase},
};
use std::{sync::Arc, time::Duration};
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
    /// What was taken down of recent requests.
    pub flow: Reader,
}

impl From<&NodeHandle> for Asked {
    fn from(node: &NodeHandle) -> Asked {
        let (status, table) = (node.status.clone(), node.table.clone());
        Asked { status, table, flow: node.flow.clone() }
    }
}

#[derive(Clone)]
struct Site {
    node: Asked,
    password: Option<Arc<str>>,
}

/// Serves until `stop` turns true or its sender is gone.
///
/// # Errors
/// The listener's.
pub async fn serve(
    listener: TcpListener,
    node: Asked,
    password: Option<String>,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let site = Site { node, password: password.map(Arc::from) };
    let door = door::Door::new(listener, CONNECTIONS_MAX);
    let server = axum::serve(door, routes(site)).into_future();
    // Not axum's graceful shutdown: it waits for idle connections, and nothing here needs finishing.
    tokio::select! {
        ended = server => ended,
        _ = stop.wait_for(|stop| *stop) => Ok(()),
    }
}

fn routes(site: Site) -> Router {
    Router::new()
        .route("/ready", get(ready))
        .route("/status", get(status))
        .route("/flow", get(flow::records))
        .layer(axum::middleware::from_fn_with_state(site.clone(), password))
        .route("/health", get(|| async { "ok\n" }))
        .fallback(|| async {
            (StatusCode::NOT_FOUND, "not found: there are /health, /ready, /status and /flow\n")
        })
        .with_state(site)
}

/// Lets a request pass if it has the password, or none is needed.
async fn password(State(site): State<Site>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes());
    match &site.password {
        Some(password) if !given.is_some_and(|given| proves(given, password.as_bytes())) => (
            StatusCode::UNAUTHORIZED,
            [(header::WWW_AUTHENTICATE, "Basic realm=\"SimpleDynamo\"")],
            "the password is needed: curl --user any:PASSWORD\n",
        )
            .into_response(),
        _ => next.run(request).await,
    }
}

/// Whether an `Authorization` header has the password.
fn proves(given: &[u8], password: &[u8]) -> bool {
    let Some(space) = given.iter().position(|byte| *byte == b' ') else { return false };
    let (scheme, rest) = given.split_at(space);
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return same(rest, password);
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return false;
    }
    let Ok(pair) = STANDARD.decode(rest) else { return false };
    let Some(colon) = pair.iter().position(|byte| *byte == b':') else { return false };
    pair.get(colon + 1..).is_some_and(|given| same(given, password))
}

/// Equality in a time that depends on the lengths only, so that it tells nothing of the content.
fn same(given: &[u8], password: &[u8]) -> bool {
    let differences = given.iter().zip(password).fold(0, |seen, (a, b)| seen | (a ^ b));
    given.len() == password.len() && differences == 0
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

async fn status(State(site): State<Site>) -> Response {
    let both = async {
        let status = site.node.status.send(AskStatus).await?;
        site.node.table.send(AskTable).await.map(|table| (status, table))
    };
    match timeout(ANSWER_TIME, both).await {
        Ok(Ok((status, table))) => Json(StatusPage::new(&status, &table)).into_response(),
        _ => unavailable(),
    }
}

fn unavailable() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the node does not answer: it stops or is overloaded\n")
        .into_response()
}

#[cfg(test)]
mod tests;
