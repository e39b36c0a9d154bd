//! Log inspection: from the flow records of all nodes to the story of one request, and its picture.
//!
//! | module | what it does |
//! |---|---|
//! | [`mod@line`] | a record, read back |
//! | [`book`] | all records; requests in short, and whole stories |
//! | `implied` | what no record tells because another implies it |
//! | [`mod@diagram`] | a story as columns and rows |
//! | [`text`], [`html`], [`export`] | its picture in a terminal, on a page, in other programs |
//! | [`gather`] | records from files and from running nodes |
//!
//! ```text
//! lines of all nodes ─▸ Book ─▸ story(request) ─▸ diagram ─▸ terminal, mermaid, page, …
//! ```
//!
//! How records come about, and which are there at all, says `simpledynamo_actors::flow`.

pub mod book;
pub mod diagram;
pub mod export;
pub mod gather;
pub mod html;
mod implied;
pub mod line;
pub mod text;

pub use book::{Book, Story, Summary};
pub use diagram::{Diagram, diagram};
pub use line::Line;
