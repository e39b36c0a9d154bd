//! `/flow`: the flow records in memory, as lines of JSON, oldest first.
//!
//! Without a question all that there are, at most [`RECORDS_MAX`] of the newest. With `request` or `key`
//! those of that request or key; what concerns the node as a whole comes with every answer. Numbers are
//! microseconds since the Unix epoch (`since`, `until`) and record numbers (`after`, of the incarnation
//! `life`; another life is shown from its start).

use super::Site;
use axum::{
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use simpledynamo_actors::flow::{Filter, request_id};

/// Records in one answer: about 5 MB, some ten milliseconds of the node's thread.
const RECORDS_MAX: usize = 16_384;

/// What may be asked.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Question {
    request: Option<String>,
    key: Option<String>,
    since: u64,
    until: u64,
    life: u64,
    after: u64,
    most: Option<usize>,
}

impl Question {
    fn filter(&self) -> Result<Filter, String> {
        Ok(Filter {
            request: self.request.as_deref().map(request_id).transpose()?,
            key: self.key.as_deref().map(str::parse).transpose()?,
            since: self.since,
            until: self.until,
            life: self.life,
            after: self.after,
            most: self.most.unwrap_or(RECORDS_MAX).min(RECORDS_MAX),
        })
    }
}

pub(super) async fn records(
    State(site): State<Site>,
    Query(question): Query<Question>,
) -> Response {
    match question.filter() {
        Err(what) => (StatusCode::BAD_REQUEST, format!("{what}\n")).into_response(),
        Ok(filter) => {
            let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
            (kind, site.node.flow.lines(&filter)).into_response()
        }
    }
}
