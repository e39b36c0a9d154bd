//! Flow records on disk: one thread writes lines, in files of bounded size and number.
//!
//! Files are `flow/INCARNATION-NUMBER.jsonl` in the node's directory, so that their names' order is the
//! order in which they were written. Together they stay within the bound: the eldest go first, those
//! of earlier lives too. The thread is woken when there is something to write and then waits
//! [`GATHER`], where everything is recorded [`GATHER_ALL`], so that under load many records share a
//! wake-up and a system call. Nothing is synced: what was written survives the process, not the
//! machine.
//!
//! Caveat: a process that is killed loses what it gathered, at most that time and the time of one
//! write.

use super::{
    line,
    record::{Event, Record},
    recorder::Shared,
};
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

/// The directory beside a node's data.
pub const DIRECTORY: &str = "flow";
/// How long records gather before they are written: where some requests are, a wake-up costs more
/// than writing a request down, and twenty a second are enough.
pub const GATHER: Duration = Duration::from_millis(50);
/// The same where everything is recorded: much comes in that time, and a killed node loses it.
pub const GATHER_ALL: Duration = Duration::from_millis(10);
/// Files that share the bound: one is deleted at a time.
const PARTS: u64 = 8;

/// Starts the writer.
pub(super) fn spawn(
    shared: Arc<Shared>,
    directory: PathBuf,
    bytes: u64,
    gather: Duration,
) -> io::Result<JoinHandle<()>> {
    fs::create_dir_all(&directory)?;
    let mut files = Files { directory, bytes, part: None, number: 0 };
    std::thread::Builder::new().name("flow".to_owned()).spawn(move || {
        let (mut batch, mut text) = (Vec::new(), Vec::new());
        let mut refused = false;
        let outgoing = &shared.outgoing;
        while let Some((records, missed)) = outgoing.take(gather, std::mem::take(&mut batch)) {
            text.clear();
            for record in &records {
                line::write(record, shared.node.0, shared.incarnation, &mut text);
            }
            if missed > 0 {
                let lost = lost(records.last(), missed);
                line::write(&lost, shared.node.0, shared.incarnation, &mut text);
            }
            let written = files.write(shared.incarnation, &text);
            if let Err(error) = &written {
                outgoing.refused(records.len() as u64);
                if !refused {
                    let at = files.directory.display();
                    log::warn!("flow records cannot be written to {at}: {error}; dropped");
                }
            }
            refused = written.is_err();
            batch = records;
            batch.clear();
        }
    })
}

/// Tells that records are missing after `last`.
fn lost(last: Option<&Record>, missed: u64) -> Record {
    let last = last.copied().unwrap_or(Record::BLANK);
    Record {
        seq: last.seq,
        mono: last.mono,
        wall: last.wall,
        event: Event::Lost,
        bytes: u32::try_from(missed).unwrap_or(u32::MAX),
        reason: "the writer was too slow",
        ..Record::BLANK
    }
}

struct Files {
    directory: PathBuf,
    bytes: u64,
    /// The file that is being written, and its size.
    part: Option<(File, u64)>,
    number: u32,
}

impl Files {
    fn write(&mut self, incarnation: u64, text: &[u8]) -> io::Result<()> {
        let full = |(_, size): &(File, u64)| *size >= self.bytes / PARTS;
        if self.part.as_ref().is_none_or(full) {
            self.number += 1;
            let name = format!("{incarnation:020}-{:06}.jsonl", self.number);
            let path = self.directory.join(name);
            let file = File::options().create(true).append(true).open(path)?;
            self.part = Some((file, 0));
            self.make_room()?;
        }
        if let Some((file, size)) = &mut self.part {
            file.write_all(text)?;
            *size += text.len() as u64;
        }
        Ok(())
    }

    /// Deletes the eldest files beyond the bound, with room for one more part.
    fn make_room(&self) -> io::Result<()> {
        let files = list(&self.directory)?;
        let mut room = self.bytes - self.bytes / PARTS;
        for path in files.iter().rev() {
            let size = fs::metadata(path).map_or(0, |meta| meta.len());
            match room.checked_sub(size) {
                Some(left) => room = left,
                None => {
                    room = 0;
                    fs::remove_file(path)?;
                }
            }
        }
        Ok(())
    }
}

/// The files of records in a directory, eldest first. A directory that is not there has none.
///
/// # Errors
/// The directory's.
pub fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
