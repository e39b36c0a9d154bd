//! The lock of a recorder's memory, which the thread that takes records down keeps while it works.
//!
//! To take a free lock and to give it back costs as much as to fill a record in, and giving it back
//! waits for what was written. Hardly anybody else wants it: so the thread gives it back when
//! somebody does, which it sees at its next record, and at each tick of its router
//! ([`super::Recorder::rest`]). Where several threads take records down, none keeps it.

use super::memory::Memory;
use parking_lot::{ArcMutexGuard, Mutex, MutexGuard, RawMutex};
use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// The right to the memory, as a thread keeps it.
pub(super) type Kept = ArcMutexGuard<RawMutex, Memory>;

thread_local! {
    /// What this thread keeps, of one recorder at a time.
    static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) };
}

/// Gives back what this thread keeps.
pub(super) fn give_back() {
    drop(KEPT.take());
}

/// A memory and its lock.
pub(super) struct Hold {
    memory: Arc<Mutex<Memory>>,
    /// How many others wait for it.
    wanted: AtomicU32,
    /// Several threads take records down: none keeps it.
    shared: AtomicBool,
}

impl Hold {
    pub(super) fn new(memory: Memory) -> Hold {
        Hold {
            memory: Arc::new(Mutex::new(memory)),
            wanted: AtomicU32::new(0),
            shared: AtomicBool::new(false),
        }
    }

    /// From now on several threads take records down.
    pub(super) fn share(&self) {
        self.shared.store(true, Ordering::Relaxed);
        give_back();
    }

    /// For a thread that takes records down, which then calls [`Hold::keep`].
    pub(super) fn take(&self) -> Kept {
        match KEPT.take() {
            Some(kept) if Arc::ptr_eq(Kept::mutex(&kept), &self.memory) => kept,
            // Of another node in this process, or nothing.
            other => {
                drop(other);
                self.memory.lock_arc()
            }
        }
    }

    /// Keeps it, unless somebody waits.
    pub(super) fn keep(&self, kept: Kept) {
        let alone = !self.shared.load(Ordering::Relaxed);
        if alone && self.wanted.load(Ordering::Relaxed) == 0 {
            KEPT.set(Some(kept));
        }
    }

    /// For everybody else.
    pub(super) fn lock(&self) -> MutexGuard<'_, Memory> {
        give_back();
        self.memory.try_lock().unwrap_or_else(|| {
            self.wanted.fetch_add(1, Ordering::Relaxed);
            let memory = self.memory.lock();
            self.wanted.fetch_sub(1, Ordering::Relaxed);
            memory
        })
    }

    /// The same, for one who cannot wait longer than this.
    pub(super) fn try_lock(&self, patience: Duration) -> Option<MutexGuard<'_, Memory>> {
        give_back();
        let until = Instant::now() + patience;
        self.wanted.fetch_add(1, Ordering::Relaxed);
        let memory = self.memory.try_lock_until(until);
        self.wanted.fetch_sub(1, Ordering::Relaxed);
        memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simpledynamo_protocol::ring::NodeId;
    use std::{sync::mpsc, thread};

    fn hold() -> Hold {
        Hold::new(Memory::new(NodeId(5554), 7, 1 << 16, None))
    }

    #[test]
    fn a_reader_of_the_same_thread_gets_what_the_thread_keeps() {
        let (one, two) = (hold(), hold());
        one.keep(one.take());
        assert_eq!(one.lock().counts().recorded, 0);
        two.keep(two.take());
        assert!(one.try_lock(Duration::ZERO).is_some(), "it keeps one at a time");
        assert!(two.try_lock(Duration::ZERO).is_some());
    }

    #[test]
    fn a_reader_of_another_thread_gets_it_at_the_next_record() {
        let hold = hold();
        hold.keep(hold.take());
        let (got, has_got) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                drop(hold.lock());
                got.send(())
            });
            // One record after the other, as under load: none waits for a tick.
            let gets = (0..1_000_000).any(|_| {
                hold.keep(hold.take());
                thread::yield_now();
                has_got.try_recv().is_ok()
            });
            give_back();
            assert!(gets, "it had to wait for a tick");
        });
    }

    #[test]
    fn who_cannot_wait_does_not() {
        let hold = hold();
        let kept = hold.take();
        thread::scope(|scope| {
            let other = scope.spawn(|| hold.try_lock(Duration::from_millis(1)).is_none());
            assert!(other.join().is_ok_and(|none| none));
        });
        hold.keep(kept);
        assert!(KEPT.with_borrow(Option::is_some), "nobody waits any more");
    }
}
