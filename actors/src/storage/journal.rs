//! A second look at the engine's journals, before it opens them.
//!
//! When fjall finds an entry that it cannot read, it takes it for the torn end of the last write and
//! cuts the journal there. That is right after a crash and wrong after a flipped bit in the middle:
//! all commits behind it would be gone without an error, acknowledged ones too. So the journal is
//! walked here by the same rules, and where it stops being readable, what is left is searched for the
//! end of a complete batch. A torn write has none. Sequence numbers, which decide between two states
//! of a row and are under no checksum, must rise.
//!
//! Format (fjall 3.1.13, pinned), little-endian: batch = start, items, end; start = 1, count u32,
//! sequence u64; item = 2, type u8, compression u8, keyspace u64, key length u16, value length u32,
//! stored length u32, key, value; end = 3, checksum u64, `FJL` 3; clear = 4, keyspace u64.
//!
//! Caveats: a sequence number that is wrong but still rises, or stands first in its journal, is not
//! noticed. A wrong checksum inside a readable batch is the engine's to report, which it does. A
//! client's value in a torn write can look like a batch's end: that node becomes a learner needlessly.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

/// How each batch ends.
const TRAILER: [u8; 4] = *b"FJL\x03";
/// Tag, checksum, trailer: an end entry, bytes.
const END_BYTES: usize = 13;
/// Value, tombstone: the items a store writes.
const ITEM_TYPES: [u8; 2] = [0, 1];
/// What is read at once, bytes.
const BUFFER_BYTES: usize = 256 * 1024;

/// Where the journal stops being readable, if complete batches follow there.
pub(super) fn commits_behind_a_break(journal: &Path) -> io::Result<Option<u64>> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, File::open(journal)?);
    let (mut good, mut newest) = (0, None);
    while let Some(sequence) = skip_batch(&mut reader)? {
        if newest >= Some(sequence) {
            break;
        }
        newest = Some(sequence);
        good = reader.stream_position()?;
    }
    reader.seek(SeekFrom::Start(good))?;
    Ok(has_end(&mut reader)?.then_some(good))
}

/// Reads over one batch and returns its sequence number; none where it is not complete or not
/// readable.
fn skip_batch(reader: &mut BufReader<File>) -> io::Result<Option<u64>> {
    let Some(start) = take::<13>(reader)? else { return Ok(None) };
    let [1, a, b, c, d, sequence @ ..] = start else { return Ok(None) };
    for _ in 0..u32::from_le_bytes([a, b, c, d]) {
        let Some([tag]) = take::<1>(reader)? else { return Ok(None) };
        let skip = match tag {
            2 => {
                let Some(head) = take::<20>(reader)? else { return Ok(None) };
                let [kind, 0, _, _, _, _, _, _, _, _, k0, k1, value @ .., v0, v1, v2, v3] = head
                else {
                    return Ok(None);
                };
                // Without compression both lengths are the same.
                if !ITEM_TYPES.contains(&kind) || value != [v0, v1, v2, v3] {
                    return Ok(None);
                }
                i64::from(u16::from_le_bytes([k0, k1]))
                    + i64::from(u32::from_le_bytes([v0, v1, v2, v3]))
            }
            4 => 8,
            _ => return Ok(None),
        };
        // May lead behind the end; then the next read finds nothing.
        reader.seek_relative(skip)?;
    }
    let end = take::<END_BYTES>(reader)?;
    let complete = end.is_some_and(|end| end.starts_with(&[3]) && end.ends_with(&TRAILER));
    Ok(complete.then(|| u64::from_le_bytes(sequence)))
}

/// The next bytes; none where the file ends before.
fn take<const N: usize>(reader: &mut impl Read) -> io::Result<Option<[u8; N]>> {
    let mut bytes = [0; N];
    match reader.read_exact(&mut bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => Err(e),
    }
}

/// Whether a batch's end lies anywhere ahead.
fn has_end(reader: &mut BufReader<File>) -> io::Result<bool> {
    // The last bytes of one block are looked at again with the next.
    let mut seen: Vec<u8> = Vec::new();
    let zeros = vec![0; BUFFER_BYTES];
    loop {
        let block = reader.fill_buf()?;
        if block.is_empty() {
            return Ok(false);
        }
        let length = block.len();
        // A journal is allocated ahead, so most of what is left are zeros: one comparison a block.
        if zeros.get(..length) == Some(block) {
            seen.clear();
        } else {
            seen.extend_from_slice(block);
        }
        let found = seen
            .windows(END_BYTES)
            .any(|window| window.ends_with(&TRAILER) && window.starts_with(&[3]));
        if found {
            return Ok(true);
        }
        seen.drain(..seen.len().saturating_sub(END_BYTES - 1));
        reader.consume(length);
    }
}
