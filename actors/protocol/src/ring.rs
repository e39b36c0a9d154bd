//! The ring: which nodes hold a key.
//!
//! Consistent hashing as in Dynamo (DeCandia et al., SOSP '07, §4.2), one position a node: the SHA-1
//! of the id's text. A key belongs to the first node at or after the SHA-1 of its bytes, wrapping;
//! its replicas, the preference list, are that node and the next ones on the ring (§4.3).
//!
//! The ring is static: every node knows every node from `cluster.toml`.

use serde::{Deserialize, Serialize};
use sha1::{Digest, Sha1};
use std::{fmt, str::FromStr};

/// A node's id; its ring position is the SHA-1 of its decimal text.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for NodeId {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(NodeId)
    }
}

/// A point on the ring: 160 bits, as SHA-1 gives them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub [u8; 20]);

impl Position {
    /// The position of a key or of a node id's text.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Position {
        Position(Sha1::digest(bytes).into())
    }

    /// The leading 64 bits: what stored rows are ordered by and what scan cursors count in.
    #[must_use]
    pub fn prefix(&self) -> u64 {
        let mut prefix = [0; 8];
        for (to, from) in prefix.iter_mut().zip(self.0) {
            *to = from;
        }
        u64::from_be_bytes(prefix)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A ring range: the keys after the position of its predecessor up to that of its owner. Ranges are
/// numbered by their owner's place in ring order.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct RangeId(pub u16);

/// The whole ring, in order of position. At least one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ring {
    nodes: Vec<(Position, NodeId)>,
    replicas: usize,
}

impl Ring {
    /// A ring of `ids` that keeps each key on `replicas` nodes (fewer when the ring is smaller).
    #[must_use]
    pub fn new(ids: impl IntoIterator<Item = NodeId>, replicas: usize) -> Ring {
        let mut nodes: Vec<_> =
            ids.into_iter().map(|id| (Position::of(id.to_string().as_bytes()), id)).collect();
        nodes.sort();
        nodes.dedup();
        let replicas = replicas.min(nodes.len());
        Ring { nodes, replicas }
    }

    /// Node ids in ring order.
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = NodeId> + Clone + '_ {
        self.nodes.iter().map(|(_, id)| *id)
    }

    /// How many nodes hold each key.
    #[must_use]
    pub fn replicas(&self) -> usize {
        self.replicas
    }

    /// Where a node stands.
    #[must_use]
    pub fn position(&self, id: NodeId) -> Option<Position> {
        self.nodes.iter().find(|(_, node)| *node == id).map(|(position, _)| *position)
    }

    /// The range a position falls in.
    #[must_use]
    pub fn range_at(&self, position: Position) -> RangeId {
        let at = self.nodes.partition_point(|(node, _)| *node < position);
        RangeId(u16::try_from(at % self.nodes.len().max(1)).unwrap_or(0))
    }

    /// The range of a key.
    #[must_use]
    pub fn range_of(&self, key: &[u8]) -> RangeId {
        self.range_at(Position::of(key))
    }

    /// The nodes of a range: its owner, the coordinator, first, then its successors.
    #[must_use]
    pub fn preference_list(&self, range: RangeId) -> Vec<NodeId> {
        self.nodes().cycle().skip(usize::from(range.0)).take(self.replicas).collect()
    }

    /// The preference list of a key.
    #[must_use]
    pub fn replicas_of(&self, key: &[u8]) -> Vec<NodeId> {
        self.preference_list(self.range_of(key))
    }

    /// Every range, in ring order.
    pub fn ranges(&self) -> impl Iterator<Item = RangeId> + use<> {
        (0..u16::try_from(self.nodes.len()).unwrap_or(u16::MAX)).map(RangeId)
    }

    /// The ranges that `node` holds a replica of, its own first.
    #[must_use]
    pub fn ranges_of(&self, node: NodeId) -> Vec<RangeId> {
        let mut held: Vec<_> =
            self.ranges().filter(|range| self.preference_list(*range).contains(&node)).collect();
        held.sort_by_key(|range| self.preference_list(*range).first() != Some(&node));
        held
    }

    /// The rows of a range as inclusive intervals of [`Position::prefix`]: one, or two where the
    /// range wraps. Neighbouring ranges share the prefix at which a node stands, so a caller that
    /// must not mix them filters by [`Ring::range_of`].
    #[must_use]
    pub fn prefixes(&self, range: RangeId) -> Vec<(u64, u64)> {
        match self.edges(range) {
            (low, high) if range.0 == 0 => vec![(0, high), (low, u64::MAX)],
            (low, high) => vec![(low, high)],
        }
    }

    /// The prefixes between which a range lies: at which its predecessor stands, and its owner. The
    /// first range wraps.
    pub(crate) fn edges(&self, range: RangeId) -> (u64, u64) {
        let at = usize::from(range.0);
        let before = at.checked_sub(1).unwrap_or(self.nodes.len().saturating_sub(1));
        let prefix = |i: usize| self.nodes.get(i).map_or(0, |(position, _)| position.prefix());
        (prefix(before), prefix(at))
    }

    /// The part of the ring a node coordinates, between 0 and 1.
    #[must_use]
    pub fn share(&self, node: NodeId) -> f64 {
        let Some(at) = self.nodes.iter().position(|(_, id)| *id == node) else { return 0.0 };
        let before = if at == 0 { self.nodes.len().saturating_sub(1) } else { at - 1 };
        let prefix = |i: usize| self.nodes.get(i).map_or(0, |(position, _)| position.prefix());
        if self.nodes.len() == 1 {
            return 1.0;
        }
        prefix(at).wrapping_sub(prefix(before)) as f64 / 2f64.powi(64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> Ring {
        Ring::new([5554, 5556, 5558, 5560, 5562].map(NodeId), 3)
    }

    #[test]
    fn order_of_the_shipped_ids_is_the_known_answer() {
        let order: Vec<_> = shipped().nodes().map(|id| id.0).collect();
        assert_eq!(order, [5562, 5556, 5554, 5558, 5560]);
    }

    #[test]
    fn key_belongs_to_first_node_at_or_after_it_and_wraps() {
        let ring = shipped();
        assert_eq!(ring.range_at(Position([0; 20])), RangeId(0));
        assert_eq!(ring.range_at(Position([0xff; 20])), RangeId(0));
        for (at, id) in ring.nodes().enumerate() {
            let own = ring.position(id).unwrap();
            assert_eq!(ring.range_at(own), RangeId(at as u16), "a node's own position is its own");
            let mut next = own;
            next.0[19] = next.0[19].wrapping_add(1);
            assert_eq!(ring.range_at(next), RangeId(((at + 1) % 5) as u16));
        }
    }

    #[test]
    fn preference_list_is_the_owner_and_its_successors() {
        let ring = shipped();
        let list: Vec<_> = ring.preference_list(RangeId(3)).iter().map(|id| id.0).collect();
        assert_eq!(list, [5558, 5560, 5562]);
        for node in ring.nodes() {
            let held = ring.ranges_of(node);
            assert_eq!(held.len(), 3);
            assert_eq!(ring.preference_list(held[0])[0], node);
        }
    }

    #[test]
    fn prefixes_cover_every_key_of_the_range() {
        let ring = shipped();
        for i in 0..2_000u32 {
            let key = i.to_be_bytes();
            let prefix = Position::of(&key).prefix();
            let range = ring.range_of(&key);
            assert!(
                ring.prefixes(range).iter().any(|(low, high)| (*low..=*high).contains(&prefix))
            );
        }
    }

    #[test]
    fn shares_add_up_to_the_ring() {
        let ring = shipped();
        let sum: f64 = ring.nodes().map(|id| ring.share(id)).sum();
        assert!((sum - 1.0).abs() < 1e-9);
        assert!((Ring::new([NodeId(1)], 3).share(NodeId(1)) - 1.0).abs() < 1e-9);
    }
}
