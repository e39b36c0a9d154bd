//! The history in slices, so that a run of any length needs bounded memory.
//!
//! Keys live for one slice: after [`SLICE_OPERATIONS`] the clients go over to fresh keys, and the
//! slice is complete once the last operation on its keys has ended. Each key's history is therefore
//! known from its first operation to its last, and is judged without any assumption about what came
//! before. At most [`WAITING_MAX`] slices wait for the checker; a run that makes more ends early.

use super::super::Failure;
use simpledynamo_protocol::{history::Operation, record::Key};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Write},
    path::Path,
};
use tokio::sync::mpsc;

/// Operations after which the clients go over to fresh keys: some 6 MB.
pub(super) const SLICE_OPERATIONS: usize = 20_000;
/// Complete slices that may wait for the checker.
pub(super) const WAITING_MAX: usize = 8;

/// All operations on one set of keys.
pub(super) struct Slice {
    /// Which.
    pub(super) number: u32,
    /// Its operations, in the order in which they ended.
    pub(super) operations: Vec<Operation>,
    in_flight: u32,
}

/// Slices that are being written.
pub(super) struct Slices {
    current: u32,
    open: BTreeMap<u32, Slice>,
    complete: Option<mpsc::Sender<Slice>>,
    record: Option<BufWriter<File>>,
}

impl Slices {
    /// The first slice; complete ones go to `complete`. Every operation is written to `record`.
    pub(super) fn new(
        complete: mpsc::Sender<Slice>,
        record: Option<&Path>,
    ) -> Result<Slices, Failure> {
        let create = |path: &Path| {
            File::create(path).map(BufWriter::new).map_err(|error| {
                let what = "choose another file with --record FILE";
                Failure::usage(format!("cannot write {}: {error}: {what}", path.display()))
            })
        };
        let record = record.map(create).transpose()?;
        Ok(Slices { current: 0, open: BTreeMap::new(), complete: Some(complete), record })
    }

    /// An operation begins: the slice whose keys it is to use.
    pub(super) fn begin(&mut self) -> u32 {
        let number = self.current;
        let new = || Slice { number, operations: Vec::new(), in_flight: 0 };
        self.open.entry(number).or_insert_with(new).in_flight += 1;
        number
    }

    /// An operation has ended.
    pub(super) fn end(&mut self, number: u32, operation: Operation) -> Result<(), Failure> {
        self.note(&operation)?;
        let Some(slice) = self.open.get_mut(&number) else { return Ok(()) };
        slice.operations.push(operation);
        slice.in_flight -= 1;
        let idle = slice.in_flight == 0;
        if number == self.current && slice.operations.len() >= SLICE_OPERATIONS {
            self.current += 1;
        }
        if idle && number < self.current { self.hand_over(number) } else { Ok(()) }
    }

    /// Writes an operation to the file asked for with `--record`.
    pub(super) fn note(&mut self, operation: &Operation) -> Result<(), Failure> {
        let Some(record) = &mut self.record else { return Ok(()) };
        let json = serde_json::to_vec(operation).map_err(std::io::Error::from)?;
        Ok(record.write_all(&json).and_then(|()| record.write_all(b"\n"))?)
    }

    fn hand_over(&mut self, number: u32) -> Result<(), Failure> {
        let (Some(slice), Some(complete)) = (self.open.remove(&number), &self.complete) else {
            return Ok(());
        };
        complete.try_send(slice).map_err(|_| {
            Failure::new(format!("the checker is {WAITING_MAX} slices behind: use fewer clients"))
        })
    }

    /// No more operations: every slice is complete, and the checker is told that these were all.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        let open: Vec<u32> = self.open.keys().copied().collect();
        let handed = open.into_iter().try_for_each(|number| self.hand_over(number));
        self.complete = None;
        handed
    }

    /// Sees to it that the record is whole on disk.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        self.record.as_mut().map_or(Ok(()), |record| Ok(record.flush()?))
    }
}

/// Key `index` of a slice, and whether it counts or holds text.
pub(super) fn key(slice: u32, index: usize) -> (Key, bool) {
    let counts = index.is_multiple_of(2);
    let kind = if counts { 'n' } else { 's' };
    (format!("{kind}-{slice}-{index}").as_str().into(), counts)
}
