//! The node asked: one key, many keys, and what a verdict is in words.

use super::{args::Failure, frame::Frame};
use futures::{StreamExt, stream};
use simpledynamo_actors::messages::{Completed, Execute, NodeHandle, Verdict};
use simpledynamo_protocol::{
    command::{Command, Reply},
    message::Reason,
    recent::OpId,
    record::Key,
};
use std::{cell::Cell, rc::Rc};
use tokio::sync::oneshot;

/// Keys of one multi-key command in flight at once.
pub(super) const KEYS_IN_FLIGHT: usize = 64;

/// The error for a question that the node no longer answers.
pub(super) const STOPPING: Failure =
    Failure::Borrowed("NOQUORUM - not applied: this node is stopping, ask another");

/// How a reply differs from the register's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Not at all.
    Plain,
    /// SETNX: 1 for `OK`, 0 for nil.
    Written,
}

/// What one connection wants to know of its requests.
#[derive(Debug, Default)]
pub(super) struct Mark {
    /// `DYNAMO FLOW ON`: their flow records are written down whatever becomes of them.
    pub(super) keep: Cell<bool>,
    /// `DYNAMO LAST`: the one that ended last.
    pub(super) last: Cell<Option<OpId>>,
}

/// The way of one connection to the node.
#[derive(Clone)]
pub(super) struct Asking {
    pub(super) node: NodeHandle,
    pub(super) mark: Rc<Mark>,
}

impl Asking {
    /// Sends one command to the router; the end comes through the receiver.
    pub(super) fn start(&self, key: Key, command: Command) -> oneshot::Receiver<Completed> {
        let (reply, end) = oneshot::channel();
        let keep = self.mark.keep.get();
        self.node.execute.do_send(Execute { key, command, keep, reply });
        end
    }

    /// Remembers which request ended.
    pub(super) fn ended(&self, completed: Option<&Completed>) {
        if let Some(Completed { op, .. }) = completed {
            self.mark.last.set(Some(*op));
        }
    }
}

/// The frame for a command's end; none: the node is stopping and has dropped it.
pub(super) fn ended(completed: Option<Completed>, shape: Shape, read: bool) -> Frame {
    let Some(Completed { op, verdict }) = completed else {
        return Frame::Error(if read {
            STOPPING
        } else {
            "UNKNOWN - the outcome is not known: this node is stopping".into()
        });
    };
    match (verdict, shape) {
        (Verdict::Reply(Reply::Ok), Shape::Written) => Frame::Int(1),
        (Verdict::Reply(Reply::Nil), Shape::Written) => Frame::Int(0),
        (Verdict::Reply(reply), Shape::Plain | Shape::Written) => reply.into(),
        (Verdict::NotApplied(reason), _) => Frame::Error(not_applied(Some(op), reason)),
        (Verdict::Unknown, _) => Frame::error(format!(
            "UNKNOWN {op} the outcome is not known: no answer in time, it may have been applied or \
             may yet be"
        )),
    }
}

/// The error for what certainly did not take place.
pub(super) fn not_applied(op: Option<OpId>, reason: Reason) -> Failure {
    let code = if reason == Reason::Overloaded { "BUSY" } else { "NOQUORUM" };
    let op = op.map_or_else(|| "-".to_owned(), |op| op.to_string());
    format!("{code} {op} not applied: {}", in_words(reason)).into()
}

fn in_words(reason: Reason) -> &'static str {
    match reason {
        Reason::NoQuorum => "too few of the key's replicas answered in time",
        Reason::Overloaded => "too many requests wait here, try again",
        Reason::Learning => "the node asked has lost its data and is copying it back",
        Reason::Stale => "it was given up before a node came to it",
        Reason::NotReplica => "the nodes disagree about the ring, compare their cluster.toml",
    }
}

/// The error for a reply that would be larger than one may be.
pub(super) fn too_long(most: usize, mend: &str) -> Frame {
    Frame::error(format!("ERR the reply would be larger than {most} bytes: {mend}"))
}

/// The ends of commands on several keys, in the order given, so many at a time.
pub(super) fn each(
    asking: &Asking,
    commands: Vec<(Key, Command)>,
) -> impl futures::Stream<Item = Option<Completed>> {
    let asking = asking.clone();
    stream::iter(commands)
        .map(move |(key, command)| {
            let (end, asking) = (asking.start(key, command), asking.clone());
            async move {
                let end = end.await.ok();
                asking.ended(end.as_ref());
                end
            }
        })
        .buffered(KEYS_IN_FLIGHT)
}

/// Several keys' writes: the sum of the integers they reply (`OK` counts none), or one error for all.
/// Where some were applied and another failed, the outcome of the whole is not known.
pub(super) async fn write_each(
    asking: Asking,
    commands: Vec<(Key, Command)>,
) -> Result<i64, Failure> {
    let keys = commands.len();
    let mut ends = std::pin::pin!(each(&asking, commands));
    let (mut sum, mut applied, mut failed) = (0, 0_usize, None);
    while let Some(end) = ends.next().await {
        match ended(end, Shape::Plain, false) {
            Frame::Error(text) => {
                applied += usize::from(text.starts_with("UNKNOWN"));
                failed.get_or_insert(text);
            }
            Frame::Int(number) => {
                sum += number;
                applied += 1;
            }
            _ => applied += 1,
        }
    }
    match failed {
        None => Ok(sum),
        Some(text) if applied == 0 || text.starts_with("UNKNOWN") => Err(text),
        Some(text) => {
            let op = text.split(' ').nth(1).unwrap_or("-");
            Err(format!(
                "UNKNOWN {op} the outcome is not known for all of the {keys} keys, some were written: {text}"
            )
            .into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simpledynamo_protocol::ring::NodeId;

    #[test]
    fn verdicts_become_the_errors_that_clients_rely_on() {
        let op = OpId { router: NodeId(5554), incarnation: 17, seq: 203 };
        let text = |verdict| match ended(Some(Completed { op, verdict }), Shape::Plain, false) {
            Frame::Error(text) => text.into_owned(),
            other => panic!("{other:?}"),
        };
        let no_quorum = text(Verdict::NotApplied(Reason::NoQuorum));
        assert!(no_quorum.starts_with("NOQUORUM 5554-17-203 not applied: "), "{no_quorum}");
        let busy = text(Verdict::NotApplied(Reason::Overloaded));
        assert!(busy.starts_with("BUSY 5554-17-203 not applied: "), "{busy}");
        let unknown = text(Verdict::Unknown);
        assert!(unknown.starts_with("UNKNOWN 5554-17-203 the outcome is not known: "), "{unknown}");
    }
}
