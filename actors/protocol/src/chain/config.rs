//! A chain's configuration: its epoch, its members in order, and since when each belongs to it.
//!
//! It is the value of a quorum register, as text (`3 5558@1 5560@3`): a change is a compare-and-set
//! of the whole. Where nothing was ever written, the chain is that of epoch 1: the range's
//! preference list.
//!
//! A member is named with the epoch since which it belongs to the chain, so that a node that was
//! shut out and let in again while it slept does not take the new membership for its old one.

use crate::{record::Value, ring::NodeId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// In place of the epoch since which a node is level: it has lost something, and a person has decided
/// that the chain may go on from what it has, where nobody has more.
pub const LOSS_ACCEPTED: u64 = u64::MAX;

/// A node's place in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Who.
    pub node: NodeId,
    /// Without a break since this epoch.
    pub since: u64,
}

/// A chain in one epoch. `Display`: `e3 5558 5560`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Config {
    /// Counts the changes from 1; 0 is no chain at all.
    pub epoch: u64,
    /// Head first, tail last.
    pub members: Vec<Member>,
}

impl Config {
    /// The chain that every range starts with.
    #[must_use]
    pub fn first(replicas: &[NodeId]) -> Config {
        let members = replicas.iter().map(|node| Member { node: *node, since: 1 }).collect();
        Config { epoch: 1, members }
    }

    /// The chain with these members and nobody else, an epoch on.
    #[must_use]
    pub fn keeping(&self, keep: impl Fn(NodeId) -> bool) -> Config {
        let members = self.members.iter().filter(|member| keep(member.node)).copied().collect();
        Config { epoch: self.epoch + 1, members }
    }

    /// The chain with a new tail, an epoch on.
    #[must_use]
    pub fn joined_by(&self, node: NodeId) -> Config {
        let mut next = self.keeping(|member| member != node);
        next.members.push(Member { node, since: next.epoch });
        next
    }

    /// The chain of one who begins it anew, an epoch on.
    #[must_use]
    pub fn begun_by(&self, node: NodeId) -> Config {
        let epoch = self.epoch + 1;
        Config { epoch, members: vec![Member { node, since: epoch }] }
    }

    /// Where writes enter.
    #[must_use]
    pub fn head(&self) -> Option<NodeId> {
        self.members.first().map(|member| member.node)
    }

    /// Where reads go.
    #[must_use]
    pub fn tail(&self) -> Option<NodeId> {
        self.members.last().map(|member| member.node)
    }

    /// Since when `node` belongs to the chain; none where it does not.
    #[must_use]
    pub fn since(&self, node: NodeId) -> Option<u64> {
        self.members.iter().find(|member| member.node == node).map(|member| member.since)
    }

    /// From whom `node` gets its writes.
    #[must_use]
    pub fn before(&self, node: NodeId) -> Option<NodeId> {
        let at = self.members.iter().position(|member| member.node == node)?;
        self.members.get(at.checked_sub(1)?).map(|member| member.node)
    }

    /// To whom `node` passes them on.
    #[must_use]
    pub fn after(&self, node: NodeId) -> Option<NodeId> {
        let at = self.members.iter().position(|member| member.node == node)?;
        self.members.get(at + 1).map(|member| member.node)
    }

    /// As the register holds it.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut text = self.epoch.to_string();
        for Member { node, since } in &self.members {
            text.push_str(&format!(" {node}@{since}"));
        }
        Value::from(text.as_str())
    }

    /// What [`Config::to_value`] made; none for anything else.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Config> {
        let mut words = std::str::from_utf8(value).ok()?.split(' ');
        let epoch = words.next()?.parse().ok()?;
        let members = words.map(|word| {
            let (node, since) = word.split_once('@')?;
            Some(Member { node: node.parse().ok()?, since: since.parse().ok()? })
        });
        Some(Config { epoch, members: members.collect::<Option<_>>()? })
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{}", self.epoch)?;
        self.members.iter().try_for_each(|member| write!(f, " {}", member.node))
    }
}

/// What a replica of a range keeps durably of the chain and of its own place in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Seat {
    /// The newest chain that it has learned of: it serves no older one any more.
    pub config: Config,
    /// It holds all that is committed as a member since this epoch; 0 where it does not, or
    /// [`LOSS_ACCEPTED`].
    pub level: u64,
    /// It holds nothing but what is committed or was passed on to it as a member: no rest of a
    /// write of its former membership that the chain has gone on without.
    pub pure: bool,
}

impl Seat {
    /// The seat of a node that is new to a range in which nothing was ever written.
    #[must_use]
    pub fn first(replicas: &[NodeId]) -> Seat {
        Seat { config: Config::first(replicas), level: 1, pure: true }
    }

    /// The seat of a node that does not know what it has lost.
    #[must_use]
    pub fn lost() -> Seat {
        Seat { config: Config::default(), level: 0, pure: false }
    }

    /// Of a node whose loss a person has accepted, whatever the chain is.
    #[must_use]
    pub fn loss_accepted() -> Seat {
        Seat { level: LOSS_ACCEPTED, ..Seat::lost() }
    }

    /// Whether the chain may go on from what this node has, where nobody has more.
    #[must_use]
    pub fn is_loss_accepted(&self) -> bool {
        self.level == LOSS_ACCEPTED
    }

    /// Whether `me` holds all that is committed and may answer for the chain.
    #[must_use]
    pub fn is_level(&self, me: NodeId) -> bool {
        self.level > 0 && self.config.since(me) == Some(self.level)
    }

    /// The seat in a newer chain.
    #[must_use]
    pub(super) fn moved_to(&self, config: Config, me: NodeId) -> Seat {
        if self.is_loss_accepted() {
            return self.begins(config, me);
        }
        let stays = config.since(me).is_some() && config.since(me) == self.config.since(me);
        if stays {
            return Seat { config, ..self.clone() };
        }
        Seat { config, level: 0, pure: self.pure && self.config.since(me).is_none() }
    }

    /// A chain that begins with this node alone rests on what it has; in one that does without it,
    /// others have more.
    fn begins(&self, config: Config, me: NodeId) -> Seat {
        let since = config.since(me);
        let alone = config.members.len() == 1 && since == Some(config.epoch);
        let (level, pure) = match () {
            () if alone => (config.epoch, true),
            () if since.is_some() || self.config.epoch == 0 => (LOSS_ACCEPTED, self.pure),
            () => (0, false),
        };
        Seat { config, level, pure }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: [NodeId; 3] = [NodeId(5554), NodeId(5558), NodeId(5560)];

    #[test]
    fn a_configuration_comes_back_from_its_text() {
        let config = Config::first(&NODES).keeping(|node| node != NODES[0]).joined_by(NODES[0]);
        assert_eq!(&*config.to_value(), b"3 5558@1 5560@1 5554@3");
        assert_eq!(Config::parse(&config.to_value()), Some(config));
        for wrong in ["", "x", "1 5554", "1 5554@", "1  5554@1", "-1 5554@1"] {
            assert_eq!(Config::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn whose_loss_was_accepted_begins_alone_or_not_at_all() {
        let me = NODES[1];
        let asked = Seat::loss_accepted().moved_to(Config::first(&NODES), me);
        assert!(asked.is_loss_accepted() && !asked.is_level(me));
        let alone = asked.moved_to(asked.config.begun_by(me), me);
        assert!(alone.is_level(me) && alone.pure);
        let other = asked.moved_to(asked.config.begun_by(NODES[0]), me);
        assert!(!other.is_loss_accepted() && !other.is_level(me) && !other.pure);
        assert!(!other.moved_to(other.config.joined_by(me), me).is_level(me));
    }

    #[test]
    fn who_was_shut_out_is_level_no_more_even_if_it_slept_through() {
        let me = NODES[0];
        let seat = Seat::first(&NODES);
        assert!(seat.is_level(me));
        let without = seat.config.keeping(|node| node != NODES[1]);
        assert!(seat.moved_to(without, me).is_level(me));
        let shut_out = seat.config.keeping(|node| node != me);
        let back = shut_out.joined_by(me);
        let slept = seat.moved_to(back.clone(), me);
        assert!(!slept.is_level(me) && !slept.pure);
        let knew = Seat { pure: true, ..seat.moved_to(shut_out, me) }.moved_to(back, me);
        assert!(!knew.is_level(me) && knew.pure);
    }
}
