//! The key finder: where a key lives, and what each of its nodes stores of it, side by side.
//!
//! Keys and values are bytes of any kind. They travel as hex digits in paths and JSON and become text in
//! the browser only, as text.
//!
//! Caveat: what is stored is not a read. A replica may be behind, or hold a write that was not chosen;
//! that is what this shows.

use super::super::{ANSWER_TIME, Site, ask, unavailable};
use super::ring::part_of_circle;
use crate::config::Hidden;
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use simpledynamo_actors::messages::LocalGet;
use simpledynamo_protocol::{
    record::{Datum, Key, Record},
    ring::{NodeId, Position},
};
use std::{fmt::Write, time::Duration};
use tokio::time::timeout;

/// Bytes of a key that can be looked for: what a person types, far below what a URL may have.
const KEY_BYTES_MAX: usize = 1024;
/// Bytes of a value that are shown.
const SHOWN_BYTES_MAX: usize = 1024;
/// How long another node may take.
const PEER_TIME: Duration = Duration::from_secs(1);

/// A key's place, and what is stored of it.
#[derive(Serialize)]
struct Found {
    /// The key.
    hex: String,
    /// Its place, 40 hex digits.
    position: String,
    /// The same as a part of the circle, 0 to 1.
    angle: f64,
    /// In the order in which they are asked to coordinate.
    replicas: Vec<Replica>,
    /// Whether all hold the same version under the same ballot; none where one did not answer.
    agree: Option<bool>,
}

#[derive(Serialize)]
struct Replica {
    node: u32,
    /// Why nothing is known.
    error: Option<String>,
    /// None: it stores nothing of the key, or is not known to.
    stored: Option<Stored>,
}

/// A record as a node stores it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Stored {
    version: u64,
    ballot: String,
    /// The mark of a deletion: there is no value.
    deleted: bool,
    /// Unix milliseconds.
    expires_at: Option<u64>,
    /// Bytes of the value.
    bytes: usize,
    /// The first of them, in hex.
    value: String,
}

impl From<&Record> for Stored {
    fn from(record: &Record) -> Stored {
        let value = record.datum.value().map(|value| &**value).unwrap_or_default();
        let expires_at = match &record.datum {
            Datum::Live { expires_at, .. } => *expires_at,
            Datum::Tombstone { .. } => None,
        };
        Stored {
            version: record.stamp.version,
            ballot: record.stamp.ballot.to_string(),
            deleted: record.datum.value().is_none(),
            expires_at,
            bytes: value.len(),
            value: to_hex(value.get(..SHOWN_BYTES_MAX).unwrap_or(value)),
        }
    }
}

/// `/view/key/HEX`
pub(super) async fn key(State(site): State<Site>, Path(hex): Path<String>) -> Response {
    let Some(key) = from_hex(&hex) else { return no_key() };
    let position = Position::of(&key);
    let replicas = site.settings.ring.replicas_of(&key);
    let asked = replicas.into_iter().map(|node| replica(&site, node, &hex, &key));
    let replicas = join_all(asked).await;
    let agree = replicas.iter().all(|replica| replica.error.is_none()).then(|| {
        let stamp = |replica: &Replica| {
            replica.stored.as_ref().map(|stored| (stored.version, stored.ballot.clone()))
        };
        replicas.windows(2).all(|pair| match pair {
            [one, other] => stamp(one) == stamp(other),
            _ => true,
        })
    });
    let angle = part_of_circle(position.prefix());
    let position = format!("{position:?}");
    Json(Found { hex, position, angle, replicas, agree }).into_response()
}

/// `/view/stored/HEX`: of this very node.
pub(super) async fn stored(State(site): State<Site>, Path(hex): Path<String>) -> Response {
    let Some(key) = from_hex(&hex) else { return no_key() };
    match own(&site, &key).await {
        Ok(stored) => Json(stored).into_response(),
        Err(_) => unavailable(),
    }
}

async fn replica(site: &Site, node: NodeId, hex: &str, key: &[u8]) -> Replica {
    let stored = if node == site.settings.me {
        own(site, key).await
    } else {
        let asked = timeout(PEER_TIME, peer(site, node, hex)).await;
        asked.unwrap_or_else(|_| Err(format!("no answer within {} ms", PEER_TIME.as_millis())))
    };
    match stored {
        Ok(stored) => Replica { node: node.0, error: None, stored },
        Err(error) => Replica { node: node.0, error: Some(error), stored: None },
    }
}

async fn own(site: &Site, key: &[u8]) -> Result<Option<Stored>, String> {
    let asked = site.node.local_get.send(LocalGet { key: Key::from(key) });
    match timeout(ANSWER_TIME, asked).await {
        Ok(Ok(record)) => Ok(record.as_ref().map(Stored::from)),
        _ => Err("this node does not answer itself".to_owned()),
    }
}

async fn peer(site: &Site, node: NodeId, hex: &str) -> Result<Option<Stored>, String> {
    let known = site.settings.nodes.iter().find(|known| known.id == node);
    let known = known.ok_or_else(|| "its http address is not known".to_owned())?;
    let password: Option<&Hidden> = site.settings.password.as_ref();
    let text = ask::get(known.http, &format!("/view/stored/{hex}"), password).await;
    let text = text.map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

fn no_key() -> Response {
    let what = format!("a key is 1 to {KEY_BYTES_MAX} bytes, written as hex digits\n");
    (StatusCode::BAD_REQUEST, what).into_response()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        // Writing to a string does not fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// None where it is not a key that can be looked for.
fn from_hex(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes();
    if digits.is_empty() || !digits.len().is_multiple_of(2) || digits.len() > 2 * KEY_BYTES_MAX {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? * 16 + digit(*low)?),
        _ => None,
    };
    digits.chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_read_as_written_or_not_at_all() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(from_hex(&to_hex(&all)), Some(all));
        assert_eq!(from_hex("3C69"), Some(b"<i".to_vec()));
        let long = "00".repeat(KEY_BYTES_MAX + 1);
        for none in ["", "0", "0g", "+1", "é", "%20", long.as_str()] {
            assert_eq!(from_hex(none), None, "{none}");
        }
    }
}
