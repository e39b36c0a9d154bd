//! Digests: how two replicas find out cheaply where they differ.
//!
//! A range is cut into [`BUCKETS`] equal intervals of ring positions. A bucket's digest is the sum
//! of a 64-bit mix of each row's position, ballot and version, so it is kept up with every write in
//! a few nanoseconds and needs no tree and no scan (Dynamo, §4.7, has Merkle trees for the same).
//! Rows lie in order of position, so the rows of a bucket that differs are one short scan.
//!
//! Caveat: equal digests of different rows are possible with probability 2⁻⁶⁴; the price would be a
//! copy that is not made, never a wrong read.

use crate::{
    ballot::Stamp,
    message::Row,
    record::{Datum, Key, Record},
    ring::{Position, RangeId, Ring},
};
use std::collections::BTreeMap;

/// Buckets a range: 2 KiB of digests, and one in 256 of a range's keys is listed where one differs.
pub const BUCKETS: usize = 256;

/// What a node knows of one range it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tally {
    /// A digest a bucket.
    pub buckets: Vec<u64>,
    /// Live rows.
    pub live: u64,
    /// All rows.
    pub rows: u64,
}

/// The digests of all ranges; rows outside the node's ranges are counted as well.
#[derive(Clone, Debug)]
pub struct Digests {
    ring: Ring,
    ranges: BTreeMap<RangeId, Tally>,
}

impl Digests {
    /// Digests of an empty store.
    #[must_use]
    pub fn new(ring: Ring) -> Digests {
        let empty = Tally { buckets: vec![0; BUCKETS], live: 0, rows: 0 };
        let ranges = ring.ranges().map(|range| (range, empty.clone())).collect();
        Digests { ring, ranges }
    }

    /// A row changed from `old` to `new`.
    pub fn change(&mut self, key: &Key, old: Option<&Record>, new: Option<&Record>) {
        let position = Position::of(key);
        let range = self.ring.range_at(position);
        let bucket = bucket_of(&self.ring, range, position.prefix());
        let Some(tally) = self.ranges.get_mut(&range) else { return };
        let digest = |record: Option<&Record>| {
            record.map_or(0, |record| row(position.prefix(), record.stamp))
        };
        if let Some(sum) = tally.buckets.get_mut(bucket) {
            *sum = sum.wrapping_add(digest(new)).wrapping_sub(digest(old));
        }
        let count = |record: Option<&Record>| (u64::from(record.is_some()), live(record));
        let ((old_rows, old_live), (rows, live)) = (count(old), count(new));
        tally.rows = (tally.rows + rows).saturating_sub(old_rows);
        tally.live = (tally.live + live).saturating_sub(old_live);
    }

    /// A row that was there at the start.
    pub fn add_row(&mut self, row: &Row) {
        let position = Position::of(&row.key);
        let (range, prefix) = (self.ring.range_at(position), position.prefix());
        let bucket = bucket_of(&self.ring, range, prefix);
        let Some(tally) = self.ranges.get_mut(&range) else { return };
        if let Some(sum) = tally.buckets.get_mut(bucket) {
            *sum = sum.wrapping_add(self::row(prefix, row.stamp));
        }
        tally.rows += 1;
        tally.live += u64::from(row.deleted_at.is_none());
    }

    /// What is known of a range.
    #[must_use]
    pub fn of(&self, range: RangeId) -> Option<&Tally> {
        self.ranges.get(&range)
    }

    /// All rows, and those alive.
    #[must_use]
    pub fn totals(&self) -> (u64, u64) {
        self.ranges
            .values()
            .fold((0, 0), |(rows, live), tally| (rows + tally.rows, live + tally.live))
    }
}

fn live(record: Option<&Record>) -> u64 {
    u64::from(record.is_some_and(|record| matches!(record.datum, Datum::Live { .. })))
}

/// A row's share of its bucket's digest.
fn row(prefix: u64, stamp: Stamp) -> u64 {
    let Stamp { ballot, version } = stamp;
    mix(prefix ^ mix(ballot.round ^ mix(u64::from(ballot.node.0) ^ mix(version))))
}

/// The finaliser of splitmix64 (Steele et al., OOPSLA '14).
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Where a range starts on the ring of prefixes, and how many there are.
fn span(ring: &Ring, range: RangeId) -> (u64, u128) {
    let (low, high) = ring.edges(range);
    (low, u128::from(high.wrapping_sub(low)) + 1)
}

/// The bucket of a position in its range.
#[must_use]
pub fn bucket_of(ring: &Ring, range: RangeId, prefix: u64) -> usize {
    let (start, width) = span(ring, range);
    let offset = u128::from(prefix.wrapping_sub(start));
    usize::try_from(offset * BUCKETS as u128 / width).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The positions of a bucket as inclusive intervals: one, or two where it wraps. In order.
#[must_use]
pub fn interval(ring: &Ring, range: RangeId, bucket: usize) -> Vec<(u64, u64)> {
    let (start, width) = span(ring, range);
    let edge = |bucket: usize| (bucket as u128 * width).div_ceil(BUCKETS as u128);
    let at = |offset: u128| start.wrapping_add(u64::try_from(offset).unwrap_or(u64::MAX));
    let (low, high) = (at(edge(bucket)), at(edge(bucket + 1).saturating_sub(1)));
    if low <= high { vec![(low, high)] } else { vec![(0, high), (low, u64::MAX)] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ballot::Ballot, record::Value, ring::NodeId};

    fn ring() -> Ring {
        Ring::new([5554, 5556, 5558, 5560, 5562].map(NodeId), 3)
    }

    fn record(version: u64) -> Record {
        Record {
            stamp: Stamp { ballot: Ballot { round: 1, node: NodeId(5554) }, version },
            datum: Datum::Live { value: Value::from("v"), expires_at: None },
            recent: crate::recent::Recent::default(),
        }
    }

    #[test]
    fn every_position_lies_in_the_interval_of_its_bucket() {
        let ring = ring();
        for i in 0..5_000u32 {
            let key = i.to_be_bytes();
            let (range, prefix) = (ring.range_of(&key), Position::of(&key).prefix());
            let found = interval(&ring, range, bucket_of(&ring, range, prefix));
            assert!(found.iter().any(|(low, high)| (*low..=*high).contains(&prefix)), "{i}");
        }
    }

    #[test]
    fn buckets_cover_their_range_without_overlap() {
        let ring = ring();
        for range in ring.ranges() {
            let covered: u128 = (0..BUCKETS)
                .flat_map(|bucket| interval(&ring, range, bucket))
                .map(|(low, high)| u128::from(high - low) + 1)
                .sum();
            assert_eq!(covered, span(&ring, range).1);
        }
    }

    #[test]
    fn same_rows_in_any_order_give_the_same_digests() {
        let (mut one, mut two) = (Digests::new(ring()), Digests::new(ring()));
        let keys: Vec<_> = (0..100).map(|i| Key::from(format!("k{i}").as_str())).collect();
        for key in &keys {
            one.change(key, None, Some(&record(1)));
        }
        for key in keys.iter().rev() {
            two.change(key, None, Some(&record(7)));
            two.change(key, Some(&record(7)), Some(&record(1)));
        }
        for range in ring().ranges() {
            assert_eq!(one.of(range), two.of(range));
        }
        assert_eq!(one.totals(), (100, 100));
        two.change(&keys[3], Some(&record(1)), Some(&record(2)));
        let range = ring().range_of(&keys[3]);
        assert_ne!(one.of(range), two.of(range));
    }
}
