//! Records on their way from the node's threads to the writer's.
//!
//! A queue of its own, so that the writer never waits for the memory of recent records, which the
//! node's thread keeps locked while it works.

use super::record::Record;
use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Records that wait for the writer; further ones are not written, and counted. At the rate of a
/// node under full load it is about a second.
const WAITING_MAX: usize = 32_768;

/// The queue to the writer thread.
#[derive(Default)]
pub(super) struct Outgoing {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Record>,
    /// Dropped since the writer last took something.
    missed: u64,
    closing: bool,
    counts: OutgoingCounts,
}

/// What went this way since the start.
#[derive(Clone, Copy, Default)]
pub(super) struct OutgoingCounts {
    /// Records handed to the writer.
    pub(super) written: u64,
    /// Not written because the writer was too slow or the disk refused.
    pub(super) dropped: u64,
}

impl Outgoing {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands records to the writer.
    pub(super) fn push(&self, records: impl IntoIterator<Item = Record>) {
        let mut queue = self.lock();
        let idle = queue.waiting.is_empty();
        for record in records {
            if queue.waiting.len() < WAITING_MAX {
                queue.counts.written += 1;
                queue.waiting.push(record);
            } else {
                queue.missed += 1;
                queue.counts.dropped += 1;
            }
        }
        let wake = idle && !queue.waiting.is_empty();
        drop(queue);
        if wake {
            self.wake.notify_all();
        }
    }

    /// Waits for records, and then for those that follow within `gather`. Gives them in exchange for
    /// an empty list, with how many are missing behind them; none when the queue is closed and empty.
    pub(super) fn take(
        &self,
        gather: Duration,
        emptied: Vec<Record>,
    ) -> Option<(Vec<Record>, u64)> {
        let idle = |queue: &mut Queue| queue.waiting.is_empty() && !queue.closing;
        let queue = self.wake.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        // A recorder that is closing is not waited for.
        let gathered = self.wake.wait_timeout_while(queue, gather, |queue| !queue.closing);
        let (mut queue, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        if queue.waiting.is_empty() {
            return None;
        }
        let missed = std::mem::take(&mut queue.missed);
        Some((std::mem::replace(&mut queue.waiting, emptied), missed))
    }

    /// Notes that so many records could not be written.
    pub(super) fn refused(&self, records: u64) {
        self.lock().counts.dropped += records;
    }

    pub(super) fn counts(&self) -> OutgoingCounts {
        self.lock().counts
    }

    /// Nothing follows: the writer ends once it has written what waits.
    pub(super) fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_all();
    }
}
