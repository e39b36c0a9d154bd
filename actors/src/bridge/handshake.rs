//! The hello on a stream: reads and writes the packets of [`super::hello`].
//!
//! Both sides read exactly what a packet declares, never more than [`PACKET_BYTES_MAX`], within
//! [`HANDSHAKE_TIME_MAX`]: a stranger costs a small buffer for a short time. The first four bytes
//! decide whether it is a stranger, so that a Redis or HTTP client is named in the log and let go.

use super::{
    PeerIdentity,
    hello::{
        Challenge, Credentials, Dialing, Hello, MAGIC, Offering, PACKET_BYTES_MAX,
        PACKET_HEADER_BYTES, Packet, Refusal, looks_like,
    },
};
use simpledynamo_protocol::ring::NodeId;
use std::{fmt, future::Future, io, time::Duration};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Time for a connection to be opened and the hello to be over, on either side: many round trips of
/// any network a ring is built on, and short enough that what waits for the connection is not stale.
pub const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(1);

/// Why no connection came about. `Display` is the log's, the mend included where there is one.
#[derive(Debug)]
pub enum HandshakeError {
    /// The network's.
    Io(io::Error),
    /// Not over in time.
    TooSlow,
    /// Something that does not speak this protocol, by its first bytes.
    Stranger([u8; 4]),
    /// A packet larger than any.
    TooLong(usize),
    /// A packet of no known form.
    Unreadable,
    /// The other side said no.
    Refused(Refusal),
    /// This side said no.
    Refusing(Refusal),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        HandshakeError::Io(error)
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HandshakeError::Io(error) => write!(f, "{error}"),
            HandshakeError::TooSlow => {
                write!(f, "no hello within {} ms", HANDSHAKE_TIME_MAX.as_millis())
            }
            HandshakeError::Stranger(first) => {
                write!(f, "\"{}\" looks like {}", first.escape_ascii(), looks_like(*first))
            }
            HandshakeError::TooLong(bytes) => write!(f, "a hello packet of {bytes} bytes"),
            HandshakeError::Unreadable => f.write_str(
                "a hello packet that this version cannot read; bring both nodes to one release",
            ),
            HandshakeError::Refused(refusal) => write!(f, "the other side refuses: {refusal}"),
            HandshakeError::Refusing(refusal) => write!(f, "refused: {refusal}"),
        }
    }
}

/// Limits a part of the handshake to [`HANDSHAKE_TIME_MAX`].
///
/// # Errors
/// The part's own, or [`HandshakeError::TooSlow`].
pub async fn in_time<T>(
    part: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    tokio::time::timeout(HANDSHAKE_TIME_MAX, part).await.unwrap_or(Err(HandshakeError::TooSlow))
}

/// The dialer's side, to the end: messages may follow, in the version that is given back.
///
/// # Errors
/// Every [`HandshakeError`]; the stream is to be dropped.
pub async fn dial<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    credentials: &Credentials,
    to: NodeId,
    connection: u64,
) -> Result<(PeerIdentity, u16), HandshakeError> {
    let dialing = Dialing::begin(credentials, to, connection, challenge()?);
    write_packet(stream, &Packet::Hello(dialing.hello)).await?;
    let Packet::HelloBack(offer, proof) = read_packet(stream).await? else {
        return refuse(stream, Refusal::OutOfTurn).await;
    };
    let (own, peer) = match dialing.answer(&offer, &proof) {
        Ok(answer) => answer,
        Err(refusal) => return refuse(stream, refusal).await,
    };
    write_packet(stream, &Packet::Proof(own)).await?;
    match read_packet(stream).await? {
        Packet::Ready => Ok((peer, offer.version)),
        _ => refuse(stream, Refusal::OutOfTurn).await,
    }
}

/// The listener's side, up to the dialer's proof: who it is, and its connection's number. The caller
/// ends it with [`welcome`] or [`refuse`].
///
/// # Errors
/// Every [`HandshakeError`]; the stream is to be dropped.
pub async fn hear<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    credentials: &Credentials,
    knows: impl Fn(NodeId) -> bool,
) -> Result<(PeerIdentity, u64), HandshakeError> {
    let Packet::Hello(hello) = read_packet(stream).await? else {
        return refuse(stream, Refusal::OutOfTurn).await;
    };
    match offer(stream, credentials, hello, knows).await? {
        Ok(known) => Ok(known),
        Err(refusal) => refuse(stream, refusal).await,
    }
}

async fn offer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    credentials: &Credentials,
    hello: Hello,
    knows: impl Fn(NodeId) -> bool,
) -> Result<Result<(PeerIdentity, u64), Refusal>, HandshakeError> {
    let offering = match Offering::begin(credentials, hello, challenge()?, knows) {
        Ok(offering) => offering,
        Err(refusal) => return Ok(Err(refusal)),
    };
    write_packet(stream, &Packet::HelloBack(offering.offer, offering.proof)).await?;
    Ok(match read_packet(stream).await? {
        Packet::Proof(proof) => offering.check(&proof),
        _ => Err(Refusal::OutOfTurn),
    })
}

/// Lets the dialer's messages flow.
///
/// # Errors
/// The network's.
pub async fn welcome<S: AsyncWrite + Unpin>(stream: &mut S) -> Result<(), HandshakeError> {
    write_packet(stream, &Packet::Ready).await
}

/// Says why not, and closes.
///
/// # Errors
/// Always [`HandshakeError::Refusing`], for the caller to pass on.
pub async fn refuse<S: AsyncWrite + Unpin, T>(
    stream: &mut S,
    refusal: Refusal,
) -> Result<T, HandshakeError> {
    // What becomes of it is the other side's loss: this side has decided.
    if write_packet(stream, &Packet::Refused(refusal)).await.is_ok() {
        stream.shutdown().await.ok();
    }
    Err(HandshakeError::Refusing(refusal))
}

/// From the operating system; a stranger must not foresee it.
fn challenge() -> io::Result<Challenge> {
    let mut challenge = [0; 32];
    getrandom::fill(&mut challenge).map_err(io::Error::other)?;
    Ok(challenge)
}

async fn write_packet<S: AsyncWrite + Unpin>(
    stream: &mut S,
    packet: &Packet,
) -> Result<(), HandshakeError> {
    let body = postcard::to_stdvec(packet).map_err(|_| HandshakeError::Unreadable)?;
    let length = u16::try_from(body.len()).map_err(|_| HandshakeError::TooLong(body.len()))?;
    let mut bytes = Vec::with_capacity(PACKET_HEADER_BYTES + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&body);
    stream.write_all(&bytes).await?;
    Ok(stream.flush().await?)
}

/// A packet other than a refusal: that one is an error here.
async fn read_packet<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Packet, HandshakeError> {
    let mut first = [0; 4];
    stream.read_exact(&mut first).await?;
    if first != MAGIC {
        return Err(HandshakeError::Stranger(first));
    }
    let length = usize::from(stream.read_u16_le().await?);
    let mut body = [0; PACKET_BYTES_MAX];
    let body = body.get_mut(..length).ok_or(HandshakeError::TooLong(length))?;
    stream.read_exact(body).await?;
    match postcard::take_from_bytes(body) {
        Ok((Packet::Refused(refusal), [])) => Err(HandshakeError::Refused(refusal)),
        Ok((packet, [])) => Ok(packet),
        _ => Err(HandshakeError::Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::hello::Offer, *};
    use futures::executor::block_on;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn written(packet: &Packet) -> Vec<u8> {
        let mut bytes = Vec::new();
        block_on(write_packet(&mut bytes, packet)).unwrap();
        bytes
    }

    fn hello() -> Hello {
        Hello {
            version_min: 1,
            version_max: 2,
            cluster_id: 0x0123_4567_89ab_cdef,
            from: NodeId(5554),
            to: NodeId(5556),
            incarnation: 7,
            store: u64::MAX,
            connection: 3,
            challenge: [0xcc; 32],
        }
    }

    #[test]
    fn packets_have_golden_bytes() {
        let c32 = "cc".repeat(32);
        let offer = Offer {
            version: 1,
            from: NodeId(5556),
            incarnation: 7,
            store: u64::MAX,
            challenge: [0xcc; 32],
        };
        let golden = [
            (
                Packet::Hello(hello()),
                format!(
                    "5344594e3c00000102ef9bafcdf8acd19101b22bb42b07ffffffffffffffffff0103{c32}"
                ),
            ),
            (
                Packet::HelloBack(offer, [0xcc; 32]),
                format!("5344594e4f000101b42b07ffffffffffffffffff01{c32}{c32}"),
            ),
            (Packet::Proof([0xcc; 32]), format!("5344594e210002{c32}")),
            (Packet::Ready, "5344594e010003".into()),
            (Packet::Refused(Refusal::Version { min: 1, max: 2 }), "5344594e040004000102".into()),
            (Packet::Refused(Refusal::WrongCluster), "5344594e02000401".into()),
            (Packet::Refused(Refusal::WrongNode { is: NodeId(1) }), "5344594e0300040201".into()),
            (Packet::Refused(Refusal::UnknownNode), "5344594e02000403".into()),
            (Packet::Refused(Refusal::BadProof), "5344594e02000404".into()),
            (
                Packet::Refused(Refusal::Stale { incarnation: 8, connection: 9 }),
                "5344594e040004050809".into(),
            ),
            (Packet::Refused(Refusal::OutOfTurn), "5344594e02000406".into()),
        ];
        for (packet, expected) in golden {
            assert_eq!(hex(&written(&packet)), expected, "{packet:?}");
        }
    }

    #[test]
    fn the_largest_packet_fits() {
        let most = u64::MAX;
        let largest = Hello {
            version_min: u16::MAX,
            version_max: u16::MAX,
            cluster_id: most,
            from: NodeId(u32::MAX),
            to: NodeId(u32::MAX),
            incarnation: most,
            store: most,
            connection: most,
            challenge: [0xff; 32],
        };
        assert!(written(&Packet::Hello(largest)).len() <= PACKET_HEADER_BYTES + PACKET_BYTES_MAX);
    }

    #[test]
    fn garbage_is_an_error_and_never_more_than_a_packet_is_read() {
        let read = |bytes: &[u8]| {
            let mut rest = bytes;
            let result = block_on(read_packet(&mut rest));
            (result, rest.len())
        };
        assert!(matches!(read(b"*1\r\nPING").0, Err(HandshakeError::Stranger([b'*', ..]))));
        let (long, left) = read(b"SDYN\xff\xff and much more");
        assert!(matches!(long, Err(HandshakeError::TooLong(65_535))));
        assert_eq!(left, b" and much more".len());
        assert!(matches!(read(b"SDYN\x01\x00\x7f").0, Err(HandshakeError::Unreadable)));
        assert!(matches!(read(b"SDYN\x02\x00\x03\x00").0, Err(HandshakeError::Unreadable)));
        assert!(matches!(read(b"SDYN\x01").0, Err(HandshakeError::Io(_))));
        let refused = read(b"SDYN\x02\x00\x04\x04").0;
        assert!(matches!(refused, Err(HandshakeError::Refused(Refusal::BadProof))));
    }
}
