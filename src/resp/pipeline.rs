//! Many commands of one connection in flight, replies in order.
//!
//! A command starts at once unless that could change what the client sees: not while an earlier one
//! on its key is in flight (unless both read), and work of its own (multi-key commands, SCAN, …) not
//! before everything earlier has ended, nor anything after it before it has. A command that must not
//! start yet is held, and with it all that follows: so there is one at most.
//!
//! No task is spawned for a command: its end is a oneshot channel, polled by the connection. Only the
//! front of the queue is polled, as nothing behind it can be told to the client before, unless a
//! command is held and waits for one further back.

use super::{
    WINDOW,
    dispatch::Action,
    execute::{self, Asking, Shape},
    frame::{Frame, Protocol},
};
use futures::future::LocalBoxFuture;
use simpledynamo_actors::messages::Completed;
use simpledynamo_protocol::record::Key;
use std::{
    collections::{BTreeMap, VecDeque},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::sync::oneshot;

/// Bytes of values of one connection on their way to the node, from which no further command starts:
/// a pipeline of the largest values must not cost [`WINDOW`] of them.
const VALUE_BYTES: usize = 8 * 1024 * 1024;

/// One command between its start and its reply.
struct Slot {
    state: State,
    protocol: Protocol,
    silent: bool,
}

enum State {
    Done(Frame),
    Single { end: oneshot::Receiver<Completed>, key: Key, shape: Shape, read: bool, size: usize },
    Task(LocalBoxFuture<'static, Frame>),
}

/// What is in flight on a key: so many reads, or one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Reads(usize),
    Write,
}

/// A command that must not start yet.
struct Held {
    action: Action,
    protocol: Protocol,
    silent: bool,
}

/// The commands of one connection in flight.
pub(super) struct Pipeline {
    asking: Asking,
    slots: VecDeque<Slot>,
    keys: BTreeMap<Key, Use>,
    /// Bytes of values on their way to the node.
    bytes: usize,
    /// Whether work of its own runs; it is then the last slot.
    alone: bool,
    held: Option<Held>,
}

impl Pipeline {
    /// Nothing in flight.
    pub(super) fn new(asking: Asking) -> Pipeline {
        Pipeline {
            asking,
            slots: VecDeque::new(),
            keys: BTreeMap::new(),
            bytes: 0,
            alone: false,
            held: None,
        }
    }

    /// Whether a further command may come, given the size of recent replies: the fewer, the larger.
    pub(super) fn has_room(&self, window: usize) -> bool {
        self.held.is_none() && self.slots.len() < window.min(WINDOW) && self.bytes < VALUE_BYTES
    }

    /// Whether nothing is in flight.
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.held.is_none()
    }

    /// Takes a command on: starts it, or holds it back. Only while there is room.
    pub(super) fn push(&mut self, action: Action, protocol: Protocol, silent: bool) {
        let held = Held { action, protocol, silent };
        if self.must_wait(&held.action) {
            self.held = Some(held);
        } else {
            self.start(held);
        }
    }

    fn must_wait(&self, action: &Action) -> bool {
        match action {
            Action::Reply(_) | Action::Close(_) | Action::Hang => false,
            Action::Single { key, command, .. } => {
                self.alone
                    || match self.keys.get(key) {
                        None => false,
                        Some(Use::Reads(_)) => !command.is_read(),
                        Some(Use::Write) => true,
                    }
            }
            Action::Task(_) => self.alone || !self.keys.is_empty(),
        }
    }

    fn start(&mut self, held: Held) {
        let Held { action, protocol, silent } = held;
        let state = match action {
            Action::Reply(frame) | Action::Close(frame) => State::Done(frame),
            Action::Hang => return,
            Action::Single { key, command, shape } => {
                let read = command.is_read();
                let used = self.keys.entry(key.clone()).or_insert(Use::Reads(0));
                *used = match used {
                    Use::Reads(reads) if read => Use::Reads(*reads + 1),
                    _ => Use::Write,
                };
                let size = command.size();
                self.bytes += size;
                let end = self.asking.start(key.clone(), command);
                State::Single { end, key, shape, read, size }
            }
            Action::Task(work) => {
                self.alone = true;
                State::Task(work)
            }
        };
        self.slots.push_back(Slot { state, protocol, silent });
    }

    /// Gives the next replies to `reply`, in order, while it says that there is room. Ready once
    /// anything has changed; `reply` gets each frame with the protocol of its command.
    pub(super) fn progress(
        &mut self,
        cx: &mut Context<'_>,
        mut reply: impl FnMut(Frame, Protocol) -> bool,
    ) -> Poll<()> {
        let mut changed = Poll::Pending;
        let mut room = true;
        while room && let Some(frame) = self.poll_slot(0, cx) {
            changed = Poll::Ready(());
            if let Some(Slot { protocol, silent: false, .. }) = self.slots.pop_front() {
                room = reply(frame, protocol);
            }
        }
        if self.held.is_some() {
            for at in 0..self.slots.len() {
                if let Some(frame) = self.poll_slot(at, cx)
                    && let Some(slot) = self.slots.get_mut(at)
                {
                    slot.state = State::Done(frame);
                }
            }
            if let Some(held) = self.held.take() {
                if self.must_wait(&held.action) {
                    self.held = Some(held);
                } else {
                    self.start(held);
                    changed = Poll::Ready(());
                }
            }
        }
        changed
    }

    /// The reply of a slot that has ended; its key is free from then on.
    fn poll_slot(&mut self, at: usize, cx: &mut Context<'_>) -> Option<Frame> {
        let slot = self.slots.get_mut(at)?;
        match &mut slot.state {
            State::Done(frame) => Some(std::mem::replace(frame, Frame::Nil)),
            State::Task(work) => {
                let Poll::Ready(frame) = work.as_mut().poll(cx) else { return None };
                self.alone = false;
                Some(frame)
            }
            State::Single { end, key, shape, read, size } => {
                let Poll::Ready(end) = Pin::new(end).poll(cx) else { return None };
                self.bytes -= *size;
                match self.keys.get_mut(key) {
                    Some(Use::Reads(reads)) if *reads > 1 => *reads -= 1,
                    _ => {
                        self.keys.remove(key);
                    }
                }
                let end = end.ok();
                self.asking.ended(end.as_ref());
                Some(execute::ended(end, *shape, *read))
            }
        }
    }
}
