//! One connection, from its first byte to its last.
//!
//! A turn takes what the input holds, as far as there is room, writes what there is to write in one
//! go, and then waits for the first of three: a reply, room in the socket, bytes in the socket. A
//! connection whose replies are not read, or whose pipeline is full, is not read from: the kernel
//! then holds the client back.
//!
//! Every wait can be dropped without loss, so that the node's stop can break in at any of them.

use super::{
    OUTPUT_PAUSE, STOP_GRACE, Shared, WINDOW, connection,
    dispatch::{self, Action},
    execute::Asking,
    frame::Frame,
    parser::{Bounds, Lost, Parser, Request},
    pipeline::Pipeline,
    session::{Replies, Session},
};
use bytes::BytesMut;
use simpledynamo_actors::metrics::Metrics;
use socket2::SockRef;
use std::{
    future::poll_fn,
    io::{self, Read},
    pin::pin,
    rc::Rc,
    time::Duration,
};
use tokio::{io::Interest, net::TcpStream, sync::watch};

/// Bytes read at once, into a buffer that all connections share: an idle one holds none.
pub(super) const READ_BYTES: usize = 64 * 1024;
/// Largest values that one command may carry, so that MSET of many works and yet is bounded.
const VALUES_PER_COMMAND: usize = 16;
/// Commands of the largest size that all connections together may have begun and not ended; above it,
/// whoever adds to a large one is turned away.
const UNFINISHED_COMMANDS: usize = 16;
/// Commands after which a connection lets others come first.
const COMMANDS_PER_TURN: usize = 1024;
/// Capacity that an empty output buffer may keep, bytes.
const IDLE_OUTPUT_BYTES: usize = 4 * 1024;
/// How long, and for how many bytes, a closed connection is still read from. What lies unread at the
/// close makes the kernel reset the connection, and the client would never see the error.
const LINGER: (Duration, usize) = (Duration::from_millis(500), 1024 * 1024);

/// One client.
pub(super) struct Client {
    shared: Rc<Shared>,
    stream: TcpStream,
    session: Session,
    parser: Parser,
    bounds: Bounds,
    input: BytesMut,
    /// Bytes counted in `Shared::unfinished`.
    unfinished: usize,
    pipeline: Pipeline,
    output: Output,
    /// Whether the parser has used up the input.
    starved: bool,
    /// Whether nothing more is taken from the client.
    ending: bool,
    /// Whether it was this side that ended it.
    hung_up: bool,
    /// Commands since others were let first.
    taken: usize,
}

/// Replies on their way out.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    sent: usize,
    /// About the size of recent replies, bytes.
    typical: usize,
}

impl Output {
    fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    fn has_room(&self) -> bool {
        self.bytes.len() - self.sent < OUTPUT_PAUSE
    }

    /// Counts a reply of so many bytes: a large one at once, its end only slowly.
    fn note(&mut self, bytes: usize) {
        self.typical = bytes.max(self.typical - self.typical / 8);
    }

    /// Writes as much as the socket takes.
    fn flush(&mut self, stream: &TcpStream, metrics: &Metrics) -> io::Result<()> {
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match stream.try_write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.sent += count;
                    metrics.client_bytes_out.add(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // A client that is always a little behind must not make the buffer grow.
                    if self.sent >= self.bytes.len() / 2 {
                        self.bytes.drain(..self.sent);
                        self.sent = 0;
                    }
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        self.bytes.clear();
        self.bytes.shrink_to(IDLE_OUTPUT_BYTES);
        self.sent = 0;
        Ok(())
    }
}

impl Client {
    /// A connection just accepted.
    pub(super) fn new(shared: Rc<Shared>, stream: TcpStream, session: Session) -> Client {
        let limits = &shared.settings.limits;
        let bounds = Bounds {
            argument_bytes: limits.value_bytes.max(limits.key_bytes),
            command_bytes: VALUES_PER_COMMAND * (limits.value_bytes + limits.key_bytes),
        };
        Client {
            pipeline: Pipeline::new(Asking {
                node: shared.node.clone(),
                mark: Rc::clone(&session.mark),
            }),
            parser: Parser::new(bounds),
            bounds,
            unfinished: 0,
            shared,
            stream,
            session,
            input: BytesMut::new(),
            output: Output::default(),
            starved: true,
            ending: false,
            hung_up: false,
            taken: 0,
        }
    }

    /// Serves it until one side ends it, or the node stops: then what is in flight is finished.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        connection::publish(&self.shared, &self.session);
        let stopped = {
            let mut stopping = pin!(stop.wait_for(|stop| *stop));
            tokio::select! {
                biased;
                _ = &mut stopping => true,
                () = self.turns() => false,
            }
        };
        if stopped {
            self.ending = true;
            if tokio::time::timeout(STOP_GRACE, self.turns()).await.is_err() {
                log::warn!("client {} cut off: the node stops", self.session.peer);
            }
        }
        self.shared.clients.borrow_mut().remove(&self.session.id);
        self.shared.node.metrics.clients_closed.increment();
        self.count_unfinished(0);
        if self.hung_up {
            self.linger().await;
        }
    }

    async fn turns(&mut self) {
        loop {
            match self.turn().await {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    log::debug!("client {}: {error}", self.session.peer);
                    self.ending = true;
                    self.hung_up = false;
                    return;
                }
            }
        }
    }

    /// False once all is said.
    async fn turn(&mut self) -> io::Result<bool> {
        if self.shared.loading.get() && !self.input.is_empty() {
            self.shared.ask_phase().await;
        }
        self.take_commands();
        self.output.flush(&self.stream, &self.shared.node.metrics)?;
        if self.ending && self.pipeline.is_empty() && self.output.is_empty() {
            return Ok(false);
        }
        if self.taken >= COMMANDS_PER_TURN {
            self.taken = 0;
            tokio::task::yield_now().await;
        }
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        let Client { stream, pipeline, output, .. } = self;
        let work = !pipeline.is_empty() && output.has_room();
        let unsent = !output.is_empty();
        tokio::select! {
            biased;
            () = poll_fn(|cx| pipeline.progress(cx, |frame, protocol| {
                let before = output.bytes.len();
                frame.encode(protocol, &mut output.bytes);
                output.note(output.bytes.len() - before);
                output.has_room()
            })), if work => {}
            ready = stream.writable(), if unsent => ready?,
            ready = stream.readable(), if self.starved && !self.ending => {
                ready?;
                self.read()?;
            }
        }
        Ok(true)
    }

    /// Reads once. A read that does not fill the buffer has emptied the socket, which the runtime is
    /// told as "would block": it then waits for more without a second call that finds nothing.
    fn read(&mut self) -> io::Result<()> {
        let mut buffer = self.shared.read_buffer.borrow_mut();
        let mut outcome = Err(io::ErrorKind::WouldBlock.into());
        let _ = self.stream.try_io(Interest::READABLE, || {
            outcome = (&*SockRef::from(&self.stream)).read(&mut buffer);
            match &outcome {
                Ok(count) if *count == buffer.len() => Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
                _ => Err(io::ErrorKind::WouldBlock.into()),
            }
        });
        match outcome {
            Ok(0) => self.ending = true,
            Ok(count) => {
                self.starved = false;
                self.input.extend_from_slice(buffer.get(..count).unwrap_or_default());
                self.shared.node.metrics.client_bytes_in.add(count);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Commands that may be in flight at once, so that their replies stay below half of what may
    /// wait unread.
    fn window(&self) -> usize {
        let most = self.shared.settings.limits.client_output_bytes / 2;
        most.checked_div(self.output.typical).unwrap_or(WINDOW).clamp(1, WINDOW)
    }

    fn take_commands(&mut self) {
        let window = self.window();
        while !self.ending && self.pipeline.has_room(window) && self.output.has_room() {
            match self.parser.next(&mut self.input, !self.session.authenticated) {
                Ok(None) => {
                    self.starved = true;
                    self.bound_unfinished();
                    return;
                }
                Ok(Some(request)) => self.take(request),
                Err(Lost(text)) => self.close(text),
            }
        }
    }

    fn take(&mut self, request: Request) {
        self.taken += 1;
        let skipped = self.session.replies == Replies::SkipNext;
        if skipped {
            self.session.replies = Replies::On;
        }
        let action = match &request {
            Request::Command(args) => dispatch::dispatch(&self.shared, &mut self.session, args),
            Request::TooLarge(text) => Action::Reply(Frame::error(text.clone())),
        };
        if matches!(action, Action::Close(_) | Action::Hang) {
            self.hang_up();
        }
        let silent = skipped || self.session.replies != Replies::On;
        self.pipeline.push(action, self.session.protocol, silent);
    }

    /// The memory behind all unfinished commands is bounded, too; those of ordinary size still pass.
    fn bound_unfinished(&mut self) {
        let held = self.input.len() + self.parser.kept();
        let total = self.count_unfinished(held);
        let Bounds { argument_bytes, command_bytes } = self.bounds;
        if held > argument_bytes && total > UNFINISHED_COMMANDS * command_bytes {
            self.close("BUSY not applied: too many large commands are under way, try again".into());
        }
    }

    fn count_unfinished(&mut self, held: usize) -> usize {
        let total = self.shared.unfinished.get() - self.unfinished + held;
        self.shared.unfinished.set(total);
        self.unfinished = held;
        total
    }

    /// Tells why, after all earlier replies, and ends the connection.
    fn close(&mut self, why: String) {
        let peer = self.session.peer;
        self.shared.lines.closed.info(|| format!("client {peer} closed: {why}"));
        self.pipeline.push(Action::Reply(Frame::error(why)), self.session.protocol, false);
        self.hang_up();
    }

    fn hang_up(&mut self) {
        self.ending = true;
        self.hung_up = true;
    }

    /// Says that there is nothing more to come, and reads past what the client still sends.
    async fn linger(mut self) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (time, most) = LINGER;
        let read = async {
            let _ = self.stream.shutdown().await;
            self.input = BytesMut::with_capacity(READ_BYTES);
            let mut left = most;
            while let Ok(count @ 1..) = self.stream.read_buf(&mut self.input).await {
                left = left.saturating_sub(count);
                if left == 0 {
                    return;
                }
                self.input.clear();
            }
        };
        // Whatever comes of it, the connection is dropped.
        let _ = tokio::time::timeout(time, read).await;
    }
}
