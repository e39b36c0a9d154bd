//! The latest requests of all nodes, and the story of one as a sequence diagram.
//!
//! Both come from the flow records that the nodes hold in memory ([`crate::flow`]): this node asks the
//! others for theirs and puts them together, away from the thread of its actors.
//!
//! Caveat: memory holds the last records only, under load those of a second or less. What is older is
//! in the files, if it was written; `dynamo flow` reads them.

use super::super::{Site, ask};
use crate::{
    config::Node,
    flow::{Book, Diagram, Summary, diagram},
};
use axum::{
    Json,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::future::join_all;
use serde::Serialize;
use simpledynamo_actors::flow::{Filter, request_id};
use simpledynamo_protocol::recent::OpId;
use std::{fmt::Write, time::Duration};
use tokio::{
    task::{JoinError, spawn_blocking},
    time::timeout,
};

/// Requests of each node in the list.
const REQUESTS_OF_NODE: usize = 40;
/// Records of each node in a story: far more than a request causes that is tried at every replica.
const RECORDS_OF_NODE: usize = 4_096;
/// Clocks of nodes differ; records of others are looked for so much earlier and later, microseconds.
const SLACK_MICROS: u64 = 1_000_000;
/// The same where all records of that time are asked for, of which under load there are many.
const NEAR_MICROS: u64 = 50_000;
/// How long another node may take.
const PEER_TIME: Duration = Duration::from_secs(1);

/// A request in the list.
#[derive(Serialize)]
struct Listed {
    id: String,
    node: u32,
    /// Unix microseconds.
    began: u64,
    command: String,
    /// Printable ASCII, everything else escaped.
    key: String,
    /// Microseconds; none while it is under way.
    took: Option<u64>,
    outcome: String,
    attempts: u64,
}

impl From<Summary> for Listed {
    fn from(summary: Summary) -> Listed {
        Listed {
            id: summary.request.to_string(),
            node: summary.request.router.0,
            began: summary.began,
            command: summary.command,
            key: summary.key,
            took: summary.took,
            outcome: summary.outcome,
            attempts: summary.attempts,
        }
    }
}

/// What the page is told.
#[derive(Serialize)]
struct Recent {
    /// Newest first.
    requests: Vec<Listed>,
    /// Nodes that did not answer.
    silent: Vec<u32>,
}

/// `/view/requests/own`: commands and replies of this node, as lines of flow records.
pub(super) async fn own(State(site): State<Site>) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    // A command and a reply each.
    (kind, site.node.flow.requests(2 * REQUESTS_OF_NODE)).into_response()
}

/// `/view/requests`
pub(super) async fn recent(State(site): State<Site>) -> Response {
    let own = || site.node.flow.requests(2 * REQUESTS_OF_NODE);
    let (texts, silent) = gather(&site, "/view/requests/own", own).await;
    let requests = spawn_blocking(move || {
        let book = read(&texts);
        // A reply whose command is no longer there says too little.
        let whole = book.summaries().into_iter().filter(|summary| !summary.command.is_empty());
        let mut requests: Vec<_> = whole.map(Listed::from).collect();
        requests.reverse();
        requests
    });
    match requests.await {
        Ok(requests) => Json(Recent { requests, silent }).into_response(),
        Err(_) => broken(),
    }
}

/// `/view/request/ID`: a [`Diagram`].
pub(super) async fn request(State(site): State<Site>, Path(id): Path<String>) -> Response {
    let id = match request_id(&id) {
        Ok(id) => id,
        Err(what) => return (StatusCode::BAD_REQUEST, format!("{what}\n")).into_response(),
    };
    // First its beginning: from there its key and its time are known, and only these are asked for.
    let filter = Filter { request: Some(id), most: RECORDS_OF_NODE, ..Filter::default() };
    let path = format!("/flow?request={id}&most={RECORDS_OF_NODE}");
    let (texts, _) = gather(&site, &path, || site.node.flow.lines(&filter)).await;
    let Ok(summary) = spawn_blocking(move || read(&texts).summary(id)).await else {
        return broken();
    };
    let Some(summary) = summary else { return forgotten(id) };
    let since = summary.began.saturating_sub(SLACK_MICROS);
    let until = summary.began + summary.took.unwrap_or(0) + SLACK_MICROS;
    let filter = Filter { key: summary.key.parse().ok(), since, until, ..filter };
    let mut path = format!("{path}&since={since}&until={until}");
    if filter.key.is_some() {
        path.push_str("&key=");
        path.push_str(&percent(&summary.key));
    }
    let (texts, silent) = gather(&site, &path, || site.node.flow.lines(&filter)).await;
    let (drawn, silent) = match draw(texts, id).await {
        // What led to some of it bears neither its name nor its key, as one question of a chain's node to
        // its tail for many reads: then all that was done in its time is asked for.
        Ok(Some(drawn)) if !drawn.missing.is_empty() => {
            let near = SLACK_MICROS - NEAR_MICROS;
            let (since, until) = (since.saturating_add(near), until - near);
            let path = format!("/flow?most={RECORDS_OF_NODE}&since={since}&until={until}");
            let filter = Filter { since, until, most: RECORDS_OF_NODE, ..Filter::default() };
            let (texts, silent) = gather(&site, &path, || site.node.flow.lines(&filter)).await;
            match draw(texts, id).await {
                Ok(Some(fuller)) if fuller.missing.len() < drawn.missing.len() => {
                    (Ok(Some(fuller)), silent)
                }
                _ => (Ok(Some(drawn)), silent),
            }
        }
        other => (other, silent),
    };
    match drawn {
        Ok(Some(drawn)) => Json(with_silent(drawn, &silent)).into_response(),
        Ok(None) => forgotten(id),
        Err(_) => broken(),
    }
}

async fn draw(texts: Vec<String>, id: OpId) -> Result<Option<Diagram>, JoinError> {
    spawn_blocking(move || read(&texts).story(id).map(|story| diagram(&story))).await
}

fn with_silent(mut drawn: Diagram, silent: &[u32]) -> Diagram {
    let words = silent.iter().map(|node| format!("the records of node {node}: it does not answer"));
    drawn.missing.extend(words);
    drawn
}

/// What every node answers at `path`, this one by `own`; and who did not.
async fn gather(site: &Site, path: &str, own: impl FnOnce() -> Vec<u8>) -> (Vec<String>, Vec<u32>) {
    let me = site.settings.me;
    let peers = site.settings.nodes.iter().filter(|node| node.id != me);
    let password = site.settings.password.as_ref();
    let asked = peers.map(async |node: &Node| {
        let text = timeout(PEER_TIME, ask::get(node.http, path, password)).await;
        text.ok().and_then(Result::ok).ok_or(node.id.0)
    });
    let answers = join_all(asked).await;
    let mut texts = vec![String::from_utf8_lossy(&own()).into_owned()];
    let mut silent = Vec::new();
    for answer in answers {
        match answer {
            Ok(text) => texts.push(text),
            Err(node) => silent.push(node),
        }
    }
    (texts, silent)
}

fn read(texts: &[String]) -> Book {
    let mut book = Book::default();
    texts.iter().for_each(|text| book.read(text));
    book
}

/// As a query takes it: every byte but letters and digits as `%XX`.
fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

fn forgotten(id: OpId) -> Response {
    let what = format!(
        "no node that answers remembers {id}: its records may be in the files, see \
         `dynamo flow --request {id}`\n"
    );
    (StatusCode::NOT_FOUND, what).into_response()
}

fn broken() -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, "the records could not be put together\n").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_pass_through_a_query() {
        assert_eq!(percent("a b&c=%…"), "a%20b%26c%3D%25%E2%80%A6");
    }
}
