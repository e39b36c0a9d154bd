//! Commands applied.
use super::{Applied, Command, Context, Reply};
use crate::record::Datum;

/// Applies.
#[must_use]
pub fn apply(_command: &Command, _current: Option<&Datum>, _context: Context) -> Applied {
    Applied { next: None, reply: Reply::Nil }
}
