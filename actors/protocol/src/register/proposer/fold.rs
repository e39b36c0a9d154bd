//! Folding: what the waiting requests make of the key's state, all in one version.

use super::{Proposer, Waiting, answer};
use crate::{
    ballot::{Ballot, Stamp},
    command::{Command, Context, apply},
    effect::Effects,
    message::{Outcome, Reason, Request},
    recent::{Recent, Seen},
    record::{Datum, Record},
    time::Now,
};

/// Requests folded into one round. More only delays the first.
pub(super) const FOLD_MAX: usize = 128;

/// Bytes of commands folded into one round, after which no further request joins it.
const FOLD_BYTES_MAX: usize = 256 * 1024;

/// Results that one record may keep. So many are in flight on one key only while one operation is
/// stuck and others overtake it; each of them makes every accept of the key larger.
const RESULTS_MAX: usize = 4_096;

/// A request with its outcome, to be told once the round has ended well.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Served {
    pub(super) waiting: Waiting,
    pub(super) outcome: Outcome,
}

impl Served {
    pub(super) fn tell(self, out: &mut Effects) {
        answer(&self.waiting, self.outcome, out);
    }

    /// Whether the operation is part of the proposed state.
    pub(super) fn is_in_state(&self) -> bool {
        match self.outcome {
            Outcome::Done { recorded, .. } => recorded,
            Outcome::ResultLost | Outcome::Unknown => true,
            Outcome::NotProposed(_) => false,
        }
    }
}

/// A state under construction.
pub(crate) struct Fold {
    datum: Option<Datum>,
    recent: Recent,
    writes: u64,
    context: Context,
}

impl Fold {
    pub(crate) fn new(base: Option<&Record>, context: Context) -> Fold {
        Fold {
            datum: base.map(|record| record.datum.clone()),
            recent: base.map(|record| record.recent.clone()).unwrap_or_default(),
            writes: 0,
            context,
        }
    }

    /// Applies one request; afterwards [`Fold::changed`] tells whether the state moved. `proposed`:
    /// it may have been applied before.
    pub(crate) fn serve(&mut self, request: &Request, proposed: bool) -> Outcome {
        if self.recent.len() >= RESULTS_MAX {
            return Outcome::NotProposed(Reason::Overloaded);
        }
        match self.recent.seen(request.op) {
            Seen::Applied(Some(reply)) => return Outcome::Done { reply, recorded: true },
            Seen::Applied(None) => return Outcome::ResultLost,
            Seen::Stale => return Outcome::NotProposed(Reason::Stale),
            Seen::New => {}
        }
        let applied = apply(&request.command, self.datum.as_ref(), self.context);
        let read = request.command.is_read();
        let changes = applied.next.is_some();
        if let Some(next) = applied.next {
            self.datum = Some(next);
        }
        // A command that was proposed here before may still be chosen from that round: its failure
        // must be written, or the client is told of a failure and sees a success.
        let record = !read && (request.record || proposed);
        if changes || record {
            self.writes += 1;
        }
        let recorded = !read && (changes || record);
        if recorded {
            self.recent.note(request.op, request.done_below, &applied.reply);
        }
        Outcome::Done { reply: applied.reply, recorded }
    }

    /// Whether there is something to propose.
    pub(crate) fn changed(&self) -> bool {
        self.writes > 0
    }

    /// The new state under `ballot`, that follows `base`.
    pub(crate) fn into_record(self, ballot: Ballot, base: Option<&Record>) -> Record {
        let version = base.map_or(0, |record| record.stamp.version) + self.writes;
        Record {
            stamp: Stamp { ballot, version },
            datum: self.datum.unwrap_or(Datum::Tombstone { at: self.context.wall }),
            recent: self.recent,
        }
    }
}

impl Proposer {
    pub(super) fn context(&self, now: Now) -> Context {
        Context { wall: now.wall, value_bytes_max: self.config.value_bytes_max }
    }

    /// Takes the requests of the next round from the front of the queue and applies them.
    pub(super) fn fold(&mut self, now: Now) -> (Fold, Vec<Served>) {
        let mut fold = Fold::new(self.known.record.as_ref(), self.context(now));
        let mut served = Vec::new();
        let mut bytes = 0;
        while served.len() < FOLD_MAX && bytes <= FOLD_BYTES_MAX {
            let Some(waiting) = self.queue.pop_front() else { break };
            bytes += Command::size(&waiting.request.command);
            let outcome = fold.serve(&waiting.request, waiting.proposed);
            served.push(Served { waiting, outcome });
        }
        (fold, served)
    }
}
