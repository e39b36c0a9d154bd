//! The writer's part where keys are kept by chains: the state machine of all chains of this node, over
//! the store and the batch's own writes.
//!
//! It takes the acceptor's place in the writer thread: what a message changes is in the batch's
//! commit, and what it lets out leaves behind it. Time-outs come as work too, every
//! [`TICK`], and like all work with the time at which they came; after a standstill of the process or of the disk they wait until what lies here unread
//! has been read, since that silence says nothing of the others.

use simpledynamo_protocol::{
    chain::{Chain, Rows},
    effect::Effects,
    message::{Ask, Message},
    register::acceptor::Standing,
    ring::{NodeId, RangeId},
    time::{Now, Time},
};
use std::time::Duration;

use super::{Part, askers};

/// How often time-outs are looked for.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// A tick later than this tells of a standstill.
const STOOD_STILL: Duration = Duration::from_millis(50);

/// Ticks after a standstill in which nothing times out.
const UNREAD: u32 = 3;

/// The chains of a node, in its writer.
pub struct Chains {
    chain: Chain,
    started: bool,
    last_tick: Time,
    unread: u32,
    #[cfg(feature = "broken-rules")]
    tamper: crate::harness::broken::ChainTamper,
}

impl Chains {
    /// Around the state machine.
    #[must_use]
    pub fn new(chain: Chain) -> Chains {
        Chains {
            chain,
            started: false,
            last_tick: Time::default(),
            unread: 0,
            #[cfg(feature = "broken-rules")]
            tamper: Default::default(),
        }
    }

    pub(super) fn machine(&self) -> &Chain {
        &self.chain
    }

    pub(super) fn message(
        &mut self,
        now: Now,
        from: NodeId,
        message: Message,
        rows: Rows<'_>,
        out: &mut Effects,
    ) {
        #[cfg(feature = "broken-rules")]
        self.tamper.message(&mut self.chain, now, from, message, rows, out);
        #[cfg(not(feature = "broken-rules"))]
        self.chain.message(now, from, message, rows, out);
    }

    /// One step of the state machine.
    fn act(
        &mut self,
        now: Now,
        rows: Rows<'_>,
        out: &mut Effects,
        act: impl FnOnce(&mut Chain, Now, Rows<'_>, &mut Effects),
    ) {
        #[cfg(feature = "broken-rules")]
        self.tamper.act(&mut self.chain, now, rows, out, |chain, rows, out| {
            act(chain, now, rows, out);
        });
        #[cfg(not(feature = "broken-rules"))]
        act(&mut self.chain, now, rows, out);
    }

    pub(super) fn part(&mut self, now: Now, part: Part, out: &mut Effects) {
        match part {
            Part::Learn { ceiling, again } => self.chain.learn(now.mono, ceiling, again, out),
            Part::Vote => self.chain.vote(out),
        }
    }

    /// What `node` has said before counts no more.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.chain.forget(node);
    }

    /// Lets time-outs come.
    pub(super) fn tick(&mut self, now: Now, rows: Rows<'_>, out: &mut Effects) {
        let gap = now.mono.since(self.last_tick);
        self.last_tick = now.mono;
        if !self.started {
            self.started = true;
            self.act(now, &mut *rows, out, Chain::start);
        }
        if gap > STOOD_STILL {
            self.unread = UNREAD;
        } else if self.unread > 0 {
            self.unread -= 1;
        }
        if self.unread == 0 && self.chain.next_wake().is_some_and(|at| at <= now.mono) {
            self.act(now, &mut *rows, out, Chain::wake);
        }
        #[cfg(feature = "broken-rules")]
        self.tamper.tick(&mut self.chain, now, rows, out);
    }

    /// The batch is gathered.
    pub(super) fn flush(&mut self, now: Now, rows: Rows<'_>, out: &mut Effects) {
        self.act(now, rows, out, Chain::flush);
    }

    /// Whether the node's listing of a range counts: it must vote, since before it has learned its
    /// seats may say more than it holds; for a scan it must be the tail.
    pub(super) fn votes(&self, range: RangeId, ask: Ask) -> bool {
        if self.chain.standing() != Standing::Voter {
            return false;
        }
        let seat = self.chain.seat(range).filter(|seat| seat.is_level(self.chain.me()));
        let tail = |seat: &&simpledynamo_protocol::chain::config::Seat| {
            ask.asker != askers::SCAN || seat.config.tail() == Some(self.chain.me())
        };
        seat.filter(tail).is_some()
    }
}

/// Whether a message that this node sends to itself goes back to the writer.
pub(super) fn is_own(message: &Message) -> bool {
    match message {
        Message::Request(_)
        | Message::AskDigests(_)
        | Message::AskList(_)
        | Message::Fetch(_)
        | Message::ConfigRound(_)
        | Message::Forward(_)
        | Message::Acked(_)
        | Message::Confirm(_)
        | Message::Confirmed(_)
        | Message::Survey(_)
        | Message::Present(_)
        | Message::Attach(_)
        | Message::Attached(_) => true,
        Message::Digests(_) | Message::Listed(_) | Message::Records(_) => {
            message.asker() == Some(simpledynamo_protocol::chain::ASKER)
        }
        Message::Answer(_)
        | Message::Prepare(_)
        | Message::Promise(_)
        | Message::Accept(_)
        | Message::Accepted(_)
        | Message::Refused(_)
        | Message::Query(_)
        | Message::State(_)
        | Message::NoVote(_)
        | Message::Probe(_)
        | Message::Alive(_)
        | Message::Missed(_)
        | Message::Collect(_)
        | Message::Greet(_)
        | Message::Welcome(_)
        | Message::Keep(_)
        | Message::Announce(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simpledynamo_protocol::{
        chain::{Kept, Settings},
        register::acceptor::Durable,
        ring::Ring,
    };

    #[test]
    fn listings_of_kept_seats_count_once_the_node_votes() {
        let me = NodeId(5554);
        let ring = Ring::new([me, NodeId(5556), NodeId(5558)], 3);
        let kept = Kept::first(&ring, me);
        let ask = Ask { incarnation: 1, asker: askers::CHAIN, n: 1 };
        for (standing, counts) in [(Standing::Outside, false), (Standing::Voter, true)] {
            let request_timeout = Duration::from_millis(100);
            let settings =
                Settings { me, ring: ring.clone(), request_timeout, value_bytes_max: 64 };
            let (durable, now) = (Durable::default(), Time::default());
            let chains = Chains::new(Chain::new(settings, 2, durable, &kept, standing, now));
            assert!(kept.seats.keys().all(|range| chains.votes(*range, ask) == counts));
        }
    }
}
