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
        match self.recent.seen(request.op) {
            Seen::Applied(Some(reply)) => return Outcome::Done { reply, recorded: true },
            Seen::Applied(None) => return Outcome::ResultLost,
            Seen::Stale => return Outcome::NotProposed(Reason::Stale),
            Seen::New => {}
        }
        let read = request.command.is_read();
        // Of what may have been applied nobody may say that it was not.
        if !read && !proposed && !self.recent.has_room(request.op, request.done_below) {
            return Outcome::NotProposed(Reason::Overloaded);
        }
        let applied = apply(&request.command, self.datum.as_ref(), self.context);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        command::Reply,
        recent::{OpId, RESULTS_MAX},
        record::Key,
        ring::NodeId,
    };

    fn increment(router: u32, seq: u64, done_below: u64) -> Request {
        Request {
            op: OpId { router: NodeId(router), incarnation: 1, seq },
            attempt: 1,
            done_below,
            record: false,
            key: Key::from("hot"),
            command: Command::IncrBy(1),
            patience: 2_000,
            expires: u64::MAX,
        }
    }

    /// One operation of router 1 hangs, and others have overtaken it until nothing more fits.
    fn full() -> Fold {
        let mut fold = Fold::new(None, Context { wall: 1, value_bytes_max: 100 });
        for seq in 2..RESULTS_MAX as u64 + 2 {
            assert!(matches!(fold.serve(&increment(1, seq, 1), false), Outcome::Done { .. }));
        }
        fold
    }

    fn overloaded() -> Outcome {
        Outcome::NotProposed(Reason::Overloaded)
    }

    fn counted(count: usize) -> Outcome {
        Outcome::Done { reply: Reply::Int(count as i64), recorded: true }
    }

    #[test]
    fn a_full_record_takes_no_more_of_that_router_until_it_has_finished_some() {
        let mut fold = full();
        assert_eq!(fold.serve(&increment(1, 9_000, 1), false), overloaded());
        assert_eq!(fold.serve(&increment(1, 9_000, 9_000), false), counted(RESULTS_MAX + 1));
        assert_eq!(fold.recent.len(), 1, "what is over is forgotten");
    }

    #[test]
    fn a_full_record_shuts_nobody_else_out() {
        let mut fold = full();
        assert_eq!(fold.serve(&increment(2, 1, 1), false), counted(RESULTS_MAX + 1));
        let mut read = increment(1, 9_000, 1);
        read.command = Command::Get;
        assert!(matches!(fold.serve(&read, false), Outcome::Done { .. }));
    }

    #[test]
    fn what_was_applied_or_may_have_been_is_never_called_not_applied() {
        let mut fold = full();
        assert_eq!(fold.serve(&increment(1, 2, 1), true), counted(1));
        assert_eq!(fold.serve(&increment(1, 2, 1), false), counted(1));
        assert_eq!(fold.serve(&increment(1, 1, 1), true), counted(RESULTS_MAX + 1));
    }
}
