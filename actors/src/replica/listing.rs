//! What a replica answers to listings: digests, rows, records.

use crate::{
    messages::LocalRows,
    storage::{CachedStore, Store, StoreError},
};
use simpledynamo_protocol::{
    message::{self, AskDigests, AskList, Fetch, Listed, Message, Records, Row},
    record::Record,
    register::digest::Digests,
    ring::{Position, Ring},
};
use std::ops::ControlFlow;

/// Bytes of records in one answer; the first one is sent whatever its size, which a frame holds.
const RECORDS_BYTES_MAX: usize = 512 * 1024;
/// Rows in one answer, whatever is asked.
const ROWS_MAX: u32 = 4_096;
/// Bytes of keys in one answer.
const KEYS_BYTES_MAX: usize = 512 * 1024;

/// The digests of a range; none where the range does not exist.
pub(super) fn digests(digests: &Digests, ask: &AskDigests, votes: bool) -> Option<Message> {
    let tally = digests.of(ask.range)?;
    let AskDigests { ask, range } = *ask;
    let answer =
        message::Digests { ask, range, buckets: tally.buckets.clone(), votes, live: tally.live };
    Some(answer.into())
}

/// The rows of a range in an interval.
pub(super) fn list<S: Store>(
    store: &CachedStore<S>,
    ring: &Ring,
    ask: &AskList,
    votes: bool,
    absent_floor: u64,
) -> Result<Message, StoreError> {
    let mut page = Page::new(ask.rows.min(ROWS_MAX));
    store.list(ask.from, ask.to, &mut |row: Row| {
        let position = Position::of(&row.key);
        if ring.range_at(position) != ask.range {
            return ControlFlow::Continue(());
        }
        let bytes = row.key.len() + 32;
        page.push(position.prefix(), bytes, row)
    })?;
    let Page { rows, next, .. } = page;
    Ok(Listed { ask: ask.ask, rows, next, votes, absent_floor }.into())
}

/// The records of some keys, as many as fit.
pub(super) fn fetch<S: Store>(store: &CachedStore<S>, ask: &Fetch) -> Result<Message, StoreError> {
    let (mut records, mut bytes) = (Vec::new(), 0);
    for key in &ask.keys {
        let Some(record) = store.read(key)? else { continue };
        bytes += key.len() + size(&record);
        if bytes > RECORDS_BYTES_MAX && !records.is_empty() {
            break;
        }
        records.push((key.clone(), Record::clone(&record)));
    }
    Ok(Records { ask: ask.ask, records }.into())
}

/// A page of all rows that this node stores.
pub(super) fn local_page<S: Store>(
    store: &CachedStore<S>,
    from: u64,
    rows: u32,
) -> Result<LocalRows, StoreError> {
    let mut page = Page::new(rows.min(ROWS_MAX));
    store.range(from, u64::MAX, &mut |key, record| {
        let bytes = key.len() + size(&record);
        page.push(Position::of(&key).prefix(), bytes, (key, record))
    })?;
    Ok(LocalRows { rows: page.rows, next: page.next })
}

/// Rows until enough of them are there; all rows of one prefix stay together.
struct Page<T> {
    rows: Vec<T>,
    most: usize,
    bytes: usize,
    last: Option<u64>,
    next: Option<u64>,
}

impl<T> Page<T> {
    fn new(most: u32) -> Page<T> {
        let most = usize::try_from(most.max(1)).unwrap_or(1);
        Page { rows: Vec::new(), most, bytes: 0, last: None, next: None }
    }

    fn push(&mut self, prefix: u64, bytes: usize, row: T) -> ControlFlow<()> {
        let full = self.rows.len() >= self.most || self.bytes > KEYS_BYTES_MAX;
        if full && self.last != Some(prefix) {
            self.next = Some(prefix);
            return ControlFlow::Break(());
        }
        self.last = Some(prefix);
        self.bytes += bytes;
        self.rows.push(row);
        ControlFlow::Continue(())
    }
}

fn size(record: &Record) -> usize {
    record.datum.value().map_or(0, |value| value.len()) + record.recent.bytes() + 64
}
