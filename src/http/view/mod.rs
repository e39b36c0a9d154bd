//! What the page asks for: the ring as it goes (`/view/ring`), where a key lives (`/view/key/HEX`), what
//! was asked lately (`/view/requests`) and what became of it (`/view/request/ID`).
//!
//! **This node asks the others and the browser asks this node alone.** So the page needs one origin and
//! no rule for others, its policy stays `connect-src 'self'`, the password is given once, and one
//! forwarded port shows the whole ring. The price: what the page says of a node is what this
//! node can reach, and it says so.
//!
//! | part | what it does |
//! |---|---|
//! | [`ring`] | looks at every node while somebody watches, sends what it sees as events |
//! | [`keys`] | where a key lives, and what each of its nodes stores of it |
//! | [`requests`] | the latest requests of all nodes, and the story of one |
//!
//! Caveat: nothing here is a quorum read; what a node stores may be behind, or not chosen.

mod keys;
mod requests;
mod ring;

#[cfg(test)]
pub(super) use ring::STREAMS_MAX;
pub(super) use ring::{Watched, run};

use super::Site;
use axum::{Router, routing::get};

/// Everything below `/view/`.
pub(super) fn routes() -> Router<Site> {
    Router::new()
        .route("/view/ring", get(ring::events))
        .route("/view/key/{hex}", get(keys::key))
        .route("/view/stored/{hex}", get(keys::stored))
        .route("/view/requests", get(requests::recent))
        .route("/view/requests/own", get(requests::own))
        .route("/view/request/{id}", get(requests::request))
}
