//! Bytes → arguments, one command at a time, resumable at every byte.
//!
//! A request is an array of bulk strings, or one line of words ("inline", for people with telnet).
//! Every limit is checked before memory is taken: a declared length reserves nothing, an argument too
//! large for any use is read past, not kept, and the command gets an error while the connection lives
//! on. Where the bytes make no sense any more the error ends the connection. Texts as in Redis
//! (`networking.c`).
//!
//! Caveat: arguments are slices of the input buffer and keep it alive, so they are copied where they
//! outlive their command.

use super::args;
use bytes::{Buf, Bytes, BytesMut};

/// Longest line: an inline request, or the head of an array or bulk string; bytes. As in Redis.
const LINE_BYTES_MAX: usize = 64 * 1024;
/// Most arguments of a command, as in Redis.
const ARGUMENTS_MAX: i64 = 1024 * 1024;
/// Bytes an argument is counted at beside its own, so that a million empty ones are not free.
const ARGUMENT_OVERHEAD: usize = 64;
/// Longest bulk string that is read past; above it the declaration is taken for nonsense. As in Redis.
const BULK_BYTES_MAX: i64 = 512 * 1024 * 1024;
/// Most arguments before authentication, as in Redis.
const STRANGER_ARGUMENTS_MAX: i64 = 10;
/// Longest argument before authentication, bytes; as in Redis.
const STRANGER_BULK_BYTES_MAX: i64 = 16 * 1024;

/// What a client may send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Longest argument kept, bytes.
    pub(super) argument_bytes: usize,
    /// All arguments of one command together, bytes, with an overhead for each.
    pub(super) command_bytes: usize,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// A command's name and arguments; never empty.
    Command(Vec<Bytes>),
    /// A command that was read to its end but too large to keep: what to tell the client.
    TooLarge(String),
}

/// The protocol is lost: the text to send before the connection is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lost(pub(super) String);

fn lost<T>(what: &str) -> Result<T, Lost> {
    Err(Lost(format!("ERR Protocol error: {what}")))
}

/// Where in a request the input stands.
#[derive(Debug)]
enum State {
    /// Before a request.
    Start,
    /// So many arguments to come, the next one's head first.
    Head { left: i64 },
    /// In an argument of so many bytes.
    Body { left: i64, length: usize },
    /// In an argument that is not kept: so many bytes of it to come.
    Skip { left: i64, bytes: usize },
    /// After an argument, before its end of line.
    End { left: i64 },
}

/// Turns the input into requests.
#[derive(Debug)]
pub(super) struct Parser {
    bounds: Bounds,
    state: State,
    arguments: Vec<Bytes>,
    kept: usize,
    too_large: Option<String>,
}

impl Parser {
    /// A parser at the start of a connection.
    pub(super) fn new(bounds: Bounds) -> Parser {
        Parser { bounds, state: State::Start, arguments: Vec::new(), kept: 0, too_large: None }
    }

    /// Bytes kept of a request that has not ended, overhead included.
    pub(super) fn kept(&self) -> usize {
        self.kept
    }

    /// The next request, or none before more input has come. `stranger`: not authenticated yet.
    ///
    /// # Errors
    /// Where the bytes are no request; nothing sensible can follow.
    pub(super) fn next(
        &mut self,
        input: &mut BytesMut,
        stranger: bool,
    ) -> Result<Option<Request>, Lost> {
        loop {
            match self.state {
                State::Start => match input.first() {
                    None => return Ok(None),
                    Some(b'*') => {
                        let Some(line) = line(input, "too big mbulk count string")? else {
                            return Ok(None);
                        };
                        self.begin(&line, stranger)?;
                    }
                    Some(_) => {
                        let Some(line) = line(input, "too big inline request")? else {
                            return Ok(None);
                        };
                        let words = words(&line)?;
                        if !words.is_empty() {
                            return Ok(Some(Request::Command(words)));
                        }
                    }
                },
                State::Head { left: 0 } => return Ok(Some(self.finish())),
                State::Head { left } => {
                    if !self.head(input, left, stranger)? {
                        return Ok(None);
                    }
                }
                State::Body { left, length } => {
                    if input.len() < length {
                        return Ok(None);
                    }
                    self.arguments.push(input.split_to(length).freeze());
                    self.state = State::End { left };
                }
                State::Skip { left, bytes } => {
                    let gone = bytes.min(input.len());
                    input.advance(gone);
                    if gone < bytes {
                        self.state = State::Skip { left, bytes: bytes - gone };
                        return Ok(None);
                    }
                    self.state = State::End { left };
                }
                State::End { left } => {
                    if input.len() < 2 {
                        return Ok(None);
                    }
                    if !input.starts_with(b"\r\n") {
                        return lost("expected CRLF after a bulk string");
                    }
                    input.advance(2);
                    self.state = State::Head { left: left - 1 };
                }
            }
        }
    }

    /// `*3`: so many arguments. None, or fewer, is a request of nothing.
    fn begin(&mut self, line: &[u8], stranger: bool) -> Result<(), Lost> {
        let count = line.get(1..).and_then(args::integer);
        let Some(left) = count.filter(|count| *count <= ARGUMENTS_MAX) else {
            return lost("invalid multibulk length");
        };
        if stranger && left > STRANGER_ARGUMENTS_MAX {
            return lost("unauthenticated multibulk length");
        }
        if left > 0 {
            self.state = State::Head { left };
        }
        Ok(())
    }

    /// `$5`: so many bytes. False before the whole line has come.
    fn head(&mut self, input: &mut BytesMut, left: i64, stranger: bool) -> Result<bool, Lost> {
        if let Some(other) = input.first().filter(|first| **first != b'$') {
            let shown = char::from(*other);
            let shown = if shown.is_ascii_graphic() { shown } else { '?' };
            return lost(&format!("expected '$', got '{shown}'"));
        }
        let Some(line) = line(input, "too big bulk count string")? else { return Ok(false) };
        let declared = line.get(1..).and_then(args::integer);
        let Some(declared) = declared.filter(|length| (0..=BULK_BYTES_MAX).contains(length)) else {
            return lost("invalid bulk length");
        };
        if stranger && declared > STRANGER_BULK_BYTES_MAX {
            return lost("unauthenticated bulk length");
        }
        let length = usize::try_from(declared).unwrap_or(usize::MAX);
        self.state = if self.keeps(length) {
            State::Body { left, length }
        } else {
            State::Skip { left, bytes: length }
        };
        Ok(true)
    }

    /// Whether an argument of this length is kept; from the first that is not, none is.
    fn keeps(&mut self, length: usize) -> bool {
        if self.too_large.is_some() {
            return false;
        }
        self.kept += length + ARGUMENT_OVERHEAD;
        let Bounds { argument_bytes, command_bytes } = self.bounds;
        if length > argument_bytes {
            self.too_large = Some(format!(
                "ERR argument of {length} bytes: the largest value is {argument_bytes} bytes"
            ));
        } else if self.kept > command_bytes {
            self.too_large = Some(format!(
                "ERR command of more than {command_bytes} bytes: send fewer keys at a time"
            ));
        }
        if self.too_large.is_some() {
            self.arguments = Vec::new();
            self.kept = 0;
        }
        self.too_large.is_none()
    }

    fn finish(&mut self) -> Request {
        self.state = State::Start;
        self.kept = 0;
        let arguments = std::mem::take(&mut self.arguments);
        self.too_large.take().map_or(Request::Command(arguments), Request::TooLarge)
    }
}

/// Takes a line without its end; none before its end has come.
fn line(input: &mut BytesMut, too_big: &str) -> Result<Option<Bytes>, Lost> {
    let seen = input.get(..LINE_BYTES_MAX).unwrap_or(input);
    let Some(end) = seen.iter().position(|byte| *byte == b'\n') else {
        return if input.len() >= LINE_BYTES_MAX { lost(too_big) } else { Ok(None) };
    };
    let line = input.split_to(end + 1).freeze();
    let bare = line.get(..end).unwrap_or(&line);
    let bare = bare.strip_suffix(b"\r").unwrap_or(bare);
    Ok(Some(line.slice_ref(bare)))
}

/// The words of an inline request. Double quotes know escapes (`\n`, `\x41`), single quotes only `\'`.
fn words(line: &[u8]) -> Result<Vec<Bytes>, Lost> {
    const UNBALANCED: &str = "unbalanced quotes in request";
    let mut words = Vec::new();
    let mut rest = line.trim_ascii_start();
    while let Some(first) = rest.first() {
        let mut word = Vec::new();
        rest = match first {
            quote @ (b'"' | b'\'') => {
                let after = rest.get(1..).unwrap_or_default();
                let Some(after) = quoted(after, *quote, &mut word) else {
                    return lost(UNBALANCED);
                };
                if after.first().is_some_and(|next| !next.is_ascii_whitespace()) {
                    return lost(UNBALANCED);
                }
                after
            }
            _ => {
                let end = rest.iter().position(|byte| {
                    byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | 0)
                });
                let (bare, after) = rest.split_at(end.unwrap_or(rest.len()));
                word.extend_from_slice(bare);
                match after.first() {
                    // As in Redis, quotes may begin within a word and end it.
                    Some(quote @ (b'"' | b'\'')) => {
                        let after = after.get(1..).unwrap_or_default();
                        let Some(after) = quoted(after, *quote, &mut word) else {
                            return lost(UNBALANCED);
                        };
                        if after.first().is_some_and(|next| !next.is_ascii_whitespace()) {
                            return lost(UNBALANCED);
                        }
                        after
                    }
                    Some(0) => &[],
                    _ => after,
                }
            }
        };
        words.push(Bytes::from(word));
        rest = rest.trim_ascii_start();
    }
    Ok(words)
}

/// Appends what stands up to the closing quote and gives what follows it; none without one.
fn quoted<'a>(mut rest: &'a [u8], quote: u8, word: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (byte, after) = match rest {
            [] => return None,
            [end, after @ ..] if *end == quote => return Some(after),
            [b'\\', b'x', high, low, after @ ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex(*high) << 4 | hex(*low), after)
            }
            [b'\\', escaped, after @ ..] if quote == b'"' => (
                match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                },
                after,
            ),
            [b'\\', b'\'', after @ ..] if quote == b'\'' => (b'\'', after),
            [byte, after @ ..] => (*byte, after),
        };
        word.push(byte);
        rest = after;
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.to_ascii_uppercase().saturating_sub(b'A') + 10,
    }
}

/// Reads `bytes` whole and in pieces of `step`: both must give the same requests and keep no more
/// than is allowed. The body of a fuzz target.
pub(crate) fn fuzz(step: usize, bytes: &[u8]) {
    const BOUNDS: Bounds = Bounds { argument_bytes: 64, command_bytes: 1_024 };
    let read = |pieces: std::slice::Chunks<'_, u8>| {
        let (mut parser, mut input, mut requests) =
            (Parser::new(BOUNDS), BytesMut::new(), Vec::new());
        for piece in pieces {
            input.extend_from_slice(piece);
            loop {
                let next = parser.next(&mut input, false);
                assert!(parser.kept() <= BOUNDS.command_bytes, "{} bytes kept", parser.kept());
                match next {
                    Ok(Some(request)) => requests.push(request),
                    Ok(None) => break,
                    Err(lost) => return (requests, Some(lost)),
                }
            }
        }
        (requests, None)
    };
    assert_eq!(read(bytes.chunks(bytes.len().max(1))), read(bytes.chunks(step.max(1))));
}

/// How many requests stand in the input, which is taken. What the micro-benchmarks measure.
pub(crate) fn count(input: &mut BytesMut) -> usize {
    const BOUNDS: Bounds = Bounds { argument_bytes: 1 << 20, command_bytes: 2 << 20 };
    let mut parser = Parser::new(BOUNDS);
    std::iter::from_fn(|| parser.next(input, false).ok().flatten()).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { argument_bytes: 100, command_bytes: 1_000 };

    type Outcome = (Vec<Request>, Option<Lost>);

    fn feed(parts: &[&[u8]], stranger: bool) -> Outcome {
        let mut parser = Parser::new(BOUNDS);
        let mut input = BytesMut::new();
        let mut requests = Vec::new();
        for part in parts {
            input.extend_from_slice(part);
            loop {
                match parser.next(&mut input, stranger) {
                    Ok(Some(request)) => requests.push(request),
                    Ok(None) => break,
                    Err(lost) => return (requests, Some(lost)),
                }
            }
        }
        (requests, None)
    }

    fn command(words: &[&'static str]) -> Request {
        Request::Command(words.iter().map(|word| Bytes::from_static(word.as_bytes())).collect())
    }

    const STREAM: &[u8] =
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$4\r\n\r\n\0$\r\nPING\r\n\r\n*0\r\n*-1\r\n\
        set 'a b' \"\\x41\\n\"\n*2\r\n$4\r\nECHO\r\n$0\r\n\r\n*2\r\n$3\r\nGET\r\n$101\r\n\
        12345678901234567890123456789012345678901234567890123456789012345678901234567890\
        123456789012345678901\r\n*1\r\n$4\r\nPING\r\n*1\r\n%";

    #[test]
    fn every_split_of_a_stream_gives_the_same_requests() {
        let whole = feed(&[STREAM], false);
        assert_eq!(
            whole.0,
            [
                command(&["SET", "k", "\r\n\0$"]),
                command(&["PING"]),
                command(&["set", "a b", "A\n"]),
                command(&["ECHO", ""]),
                Request::TooLarge(
                    "ERR argument of 101 bytes: the largest value is 100 bytes".into()
                ),
                command(&["PING"]),
            ]
        );
        assert_eq!(whole.1, Some(Lost("ERR Protocol error: expected '$', got '%'".into())));
        for at in 0..STREAM.len() {
            let (one, two) = STREAM.split_at(at);
            assert_eq!(feed(&[one, two], false), whole, "split at {at}");
        }
        let bytes: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(feed(&bytes, false), whole);
    }

    #[test]
    fn nonsense_is_named_and_ends_the_connection() {
        let long = vec![b'a'; LINE_BYTES_MAX];
        let long_head = [b"*", &vec![b'1'; LINE_BYTES_MAX][..]].concat();
        let long_bulk = [b"*1\r\n$", &vec![b'1'; LINE_BYTES_MAX][..]].concat();
        for (bytes, text) in [
            (&b"*x\r\n"[..], "invalid multibulk length"),
            (b"*1048577\r\n", "invalid multibulk length"),
            (b"*99999999999999999999\r\n", "invalid multibulk length"),
            (b"*1\r\n$-1\r\n", "invalid bulk length"),
            (b"*1\r\n$3000000000\r\n", "invalid bulk length"),
            (b"*1\r\n:1\r\n", "expected '$', got ':'"),
            (b"*1\r\n$1\r\nabc", "expected CRLF after a bulk string"),
            (b"set \"a\r\n", "unbalanced quotes in request"),
            (b"set 'a'b\r\n", "unbalanced quotes in request"),
            (&long, "too big inline request"),
            (&long_head, "too big mbulk count string"),
            (&long_bulk, "too big bulk count string"),
        ] {
            let (requests, lost) = feed(&[bytes], false);
            assert_eq!(lost, Some(Lost(format!("ERR Protocol error: {text}"))));
            assert_eq!(requests, []);
        }
    }

    #[test]
    fn strangers_may_send_little() {
        assert_eq!(feed(&[b"*10\r\n$16384\r\n"], true).1, None);
        let text = |bytes: &[u8]| feed(&[bytes], true).1.unwrap().0;
        assert_eq!(text(b"*11\r\n"), "ERR Protocol error: unauthenticated multibulk length");
        assert_eq!(text(b"*1\r\n$16385\r\n"), "ERR Protocol error: unauthenticated bulk length");
    }

    #[test]
    fn a_command_of_many_arguments_is_bounded_and_read_past() {
        let mut bytes = b"*20\r\n".to_vec();
        for _ in 0..20 {
            bytes.extend_from_slice(b"$10\r\n0123456789\r\n");
        }
        bytes.extend_from_slice(b"PING\r\n");
        let (requests, lost) = feed(&[&bytes], false);
        assert_eq!(lost, None);
        assert_eq!(
            requests,
            [
                Request::TooLarge(
                    "ERR command of more than 1000 bytes: send fewer keys at a time".into()
                ),
                command(&["PING"])
            ]
        );
    }

    proptest! {
        #[test]
        fn garbage_neither_panics_nor_costs_more_than_the_bound(
            parts in proptest::collection::vec(
                proptest::collection::vec(
                    prop_oneof![
                        Just(b'*'), Just(b'$'), Just(b'\r'), Just(b'\n'), b'0'..=b'9', any::<u8>()
                    ],
                    0..40,
                ),
                0..40,
            ),
            head in prop_oneof![Just(&b""[..]), Just(&b"*3\r\n$90\r\n"[..]), Just(&b"*9\r\n$1000\r\n"[..])],
        ) {
            let mut parser = Parser::new(BOUNDS);
            let mut input = BytesMut::from(head);
            'parts: for part in parts {
                input.extend_from_slice(&part);
                loop {
                    match parser.next(&mut input, false) {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => break 'parts,
                    }
                }
                prop_assert!(parser.kept() <= BOUNDS.command_bytes);
                prop_assert!(input.len() <= LINE_BYTES_MAX.max(BOUNDS.argument_bytes));
            }
        }
    }
}
