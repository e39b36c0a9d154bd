//! A fault of a schedule: data, so that a run can leave any of them out and be tried again.

use crate::harness::{disk::DiskFault, fault::Action};
use simpledynamo_protocol::{message::Message, ring::NodeId};
use std::{fmt, time::Duration};

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fault {
    /// The process dies.
    Crash { node: NodeId },
    /// It dies at the `nth` message of a type from here on that it sends or that reaches it.
    CrashAt { node: NodeId, sent: bool, tag: u16, nth: u64 },
    /// It dies, and its disk with it.
    Wipe { node: NodeId },
    /// It stands still.
    Pause { node: NodeId },
    /// One direction between two nodes is cut.
    Cut { from: NodeId, to: NodeId },
    /// Some nodes are cut off, both ways or only outward.
    Partition { group: Vec<NodeId>, outward: bool },
    /// The next commit fails, and the node ends itself.
    Disk { node: NodeId, fault: DiskFault },
    /// Syncs take long.
    SlowDisk { node: NodeId, most: Duration },
    /// The wall clock jumps, milliseconds.
    Clock { node: NodeId, millis: i64 },
    /// A rule for messages; of every node, and of every type, where none is named.
    Link { from: Option<NodeId>, to: Option<NodeId>, tag: Option<u16>, action: Action },
}

/// A fault with its time.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Planned {
    /// After the clients began.
    pub(super) at: Duration,
    /// Until it is mended; none: until the clients are through.
    pub(super) lasts: Option<Duration>,
    pub(super) fault: Fault,
}

impl Fault {
    /// The name under which it is counted.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Fault::Crash { .. } => "crash",
            Fault::CrashAt { .. } => "crash at a message",
            Fault::Wipe { .. } => "wiped disk",
            Fault::Pause { .. } => "pause",
            Fault::Cut { .. } => "one-way cut",
            Fault::Partition { outward: false, .. } => "partition",
            Fault::Partition { outward: true, .. } => "one-way partition",
            Fault::Disk { fault: DiskFault::Lost, .. } => "failed sync",
            Fault::Disk { fault: DiskFault::Torn, .. } => "torn write",
            Fault::Disk { fault: DiskFault::Full, .. } => "full disk",
            Fault::SlowDisk { .. } => "slow disk",
            Fault::Clock { .. } => "clock jump",
            Fault::Link { action, .. } => match action {
                Action::DropFirst(_) | Action::Drop(_) => "lossy link",
                Action::Delay(_) => "slow link",
                Action::Duplicate(_) => "doubling link",
                Action::Reorder(_) => "reordering link",
            },
        }
    }

    /// The node that it disturbs, where it is one.
    pub(super) fn node(&self) -> Option<NodeId> {
        match self {
            Fault::Crash { node }
            | Fault::CrashAt { node, .. }
            | Fault::Wipe { node }
            | Fault::Pause { node }
            | Fault::Disk { node, .. }
            | Fault::SlowDisk { node, .. }
            | Fault::Clock { node, .. } => Some(*node),
            Fault::Cut { from, .. } => Some(*from),
            Fault::Partition { group, .. } => group.first().copied(),
            Fault::Link { .. } => None,
        }
    }
}

impl Planned {
    /// The same with other messages in the place of those it names.
    pub(super) fn with_tags(mut self, other: impl Fn(u16) -> u16) -> Planned {
        match &mut self.fault {
            Fault::CrashAt { tag, .. } | Fault::Link { tag: Some(tag), .. } => *tag = other(*tag),
            _ => {}
        }
        self
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let after =
            self.lasts.map_or_else(String::new, |lasts| format!(" {} ms", lasts.as_millis()));
        write!(f, "{:>9.3} s  ", self.at.as_secs_f64())?;
        match &self.fault {
            Fault::Crash { node } => write!(f, "{node} crashes, starts again after{after}"),
            Fault::CrashAt { node, sent, tag, nth } => {
                let step = if *sent { "has sent" } else { "has received" };
                let name = name(*tag);
                write!(
                    f,
                    "from here on {node} crashes when it {step} {name} number {nth}, starts again after{after}"
                )
            }
            Fault::Wipe { node } => {
                write!(f, "{node} crashes, starts again after{after} on an empty disk")
            }
            Fault::Pause { node } => write!(f, "{node} stands still for{after}"),
            Fault::Cut { from, to } => write!(f, "{from} → {to} is cut for{after}"),
            Fault::Partition { group, outward } => {
                let group: Vec<_> = group.iter().map(ToString::to_string).collect();
                let way = if *outward { "is not heard" } else { "is cut off" };
                write!(f, "{} {way} for{after}", group.join(", "))
            }
            Fault::Disk { node, fault } => {
                let what = match fault {
                    DiskFault::Lost => "fails and is lost",
                    DiskFault::Torn => "fails and is found in part",
                    DiskFault::Full => "finds the disk full",
                };
                write!(f, "the next commit of {node} {what}; it starts again after{after}")
            }
            Fault::SlowDisk { node, most } => {
                write!(f, "syncs of {node} take up to {} ms for{after}", most.as_millis())
            }
            Fault::Clock { node, millis } => write!(f, "the clock of {node} jumps by {millis} ms"),
            Fault::Link { from, to, tag, action } => {
                let end =
                    |node: &Option<NodeId>| node.map_or("any".to_owned(), |it| it.to_string());
                let type_ = tag.map_or("messages", name);
                write!(f, "{} → {}: {type_} ", end(from), end(to))?;
                match action {
                    Action::DropFirst(count) => write!(f, "are lost, the next {count}")?,
                    Action::Drop(part) => write!(f, "are lost, {part} of 1000")?,
                    Action::Delay(range) => write!(
                        f,
                        "take {} to {} ms longer",
                        range.start / 1000,
                        range.end.div_ceil(1000)
                    )?,
                    Action::Duplicate(part) => write!(f, "come twice, {part} of 1000")?,
                    Action::Reorder(part) => write!(f, "may be overtaken, {part} of 1000")?,
                }
                if self.lasts.is_some() { write!(f, ", for{after}") } else { Ok(()) }
            }
        }
    }
}

fn name(tag: u16) -> &'static str {
    Message::TAGS.iter().find(|(known, _)| *known == tag).map_or("messages", |(_, name)| name)
}
