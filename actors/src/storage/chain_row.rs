//! How a node's places in chains lie in the engine: beside the node's own numbers, in a table that no
//! client's key reaches.
//!
//! A row's key is the table byte, a name and the range's number, big-endian; its value a format byte,
//! a CRC-32 that covers the key, and what it holds in postcard. The bytes are a contract with
//! existing directories, golden in the tests below.

use super::row::{Damage, checked, seal};
use serde::{Serialize, de::DeserializeOwned};
use simpledynamo_protocol::{
    chain::{Kept, config::Seat},
    record::Record,
    ring::RangeId,
};

/// Row keys of what was accepted as a range's configuration.
pub(super) const CONFIG: &[u8] = b"\x00chain_config";
/// Row keys of seats.
pub(super) const SEAT: &[u8] = b"\x00chain_seat";

/// Value: checksum, postcard.
const FORMAT_CHAIN: u8 = 4;

pub(super) fn row_key(name: &[u8], range: RangeId) -> Vec<u8> {
    [name, &range.0.to_be_bytes()].concat()
}

/// The keys of all ranges' rows of a name: from the first, before the second.
pub(super) fn row_range(name: &[u8]) -> (Vec<u8>, Vec<u8>) {
    (row_key(name, RangeId(0)), [name, &[0xff; 3]].concat())
}

pub(super) fn encode<T: Serialize>(row_key: &[u8], content: &T) -> Result<Vec<u8>, Damage> {
    let value = vec![FORMAT_CHAIN, 0, 0, 0, 0];
    let value = postcard::to_extend(content, value).map_err(|_| "it cannot be encoded")?;
    Ok(seal(row_key, value))
}

fn decode<T: DeserializeOwned>(row_key: &[u8], value: &[u8]) -> Result<T, Damage> {
    let (FORMAT_CHAIN, body) = checked(row_key, value)? else { return Err("not a chain's format") };
    let (content, rest) = postcard::take_from_bytes(body).map_err(|_| "it cannot be decoded")?;
    if rest.is_empty() { Ok(content) } else { Err("bytes follow the row") }
}

/// Adds a row to what was kept.
pub(super) fn add(kept: &mut Kept, row_key: &[u8], value: &[u8]) -> Result<(), Damage> {
    let range = |name: &[u8]| {
        let digits = row_key.strip_prefix(name)?.try_into().ok()?;
        Some(RangeId(u16::from_be_bytes(digits)))
    };
    if let Some(range) = range(CONFIG) {
        kept.configs.insert(range, decode::<Record>(row_key, value)?);
    } else if let Some(range) = range(SEAT) {
        kept.seats.insert(range, decode::<Seat>(row_key, value)?);
    } else {
        return Err("the row's name is unknown");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use simpledynamo_protocol::{chain::config::Config, ring::NodeId};

    #[test]
    fn seats_have_the_bytes_they_always_had() {
        let config = Config::first(&[5554, 5556, 5558].map(NodeId)).keeping(|id| id.0 != 5556);
        let seat = Seat { config, level: 1, pure: true };
        let key = row_key(SEAT, RangeId(3));
        assert_eq!(key, b"\x00chain_seat\x00\x03");
        let value = encode(&key, &seat).unwrap();
        let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "04305c3b5d0202b22b01b62b010101");
        let mut kept = Kept::default();
        add(&mut kept, &key, &value).unwrap();
        assert_eq!(kept.seats.get(&RangeId(3)), Some(&seat));
        assert!(add(&mut kept, &row_key(SEAT, RangeId(4)), &value).is_err(), "under another key");
        let (from, to) = row_range(SEAT);
        assert!((from..to).contains(&row_key(SEAT, RangeId(u16::MAX))));
    }
}
