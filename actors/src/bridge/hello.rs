//! The hello: who is at the other end, proved, before any message counts. No input or output here.
//!
//! ```text
//! dialer                                   listener
//!   Hello { versions, cluster, from, to, incarnation, store, connection, challenge } →
//!   ← Offer { version, from, incarnation, store, challenge, proof }
//!   Proof →
//!   ← Ready                                 messages flow from dialer to listener only
//! ```
//!
//! A proof is the HMAC-SHA256 (RFC 2104), keyed with the cluster's secret, of a label for the role
//! and of everything both have said. So the secret is never sent; a proof of another conversation
//! does not fit, because both challenges are in it; the other side's own proof, reflected, does not
//! fit, because the labels differ; and nobody can bargain the version down or change an id on the
//! way. Without a secret the key is empty and the same flow proves only that nothing was damaged.
//!
//! Each packet is `"SDYN"`, its length (u16 LE) and a [`Packet`] in postcard. The layout of
//! [`Hello`], [`Refusal`] and of this envelope never changes: they are what a peer of any version can
//! read. What a later version wants to add comes after the version has been agreed.
//!
//! Caveats. The proof is about the moment the connection opens: frames are neither encrypted nor
//! signed, so a network on which someone may alter packets needs a tunnel (WireGuard, TLS proxy).
//! Whoever can dial gets one proof to guess the secret against at home: use a long random one.

use super::PeerIdentity;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use simpledynamo_protocol::ring::NodeId;
use std::fmt;

/// The first four bytes of every packet; no other protocol that might ring here begins so.
pub const MAGIC: [u8; 4] = *b"SDYN";
/// The oldest version this build speaks.
pub const VERSION_MIN: u16 = 1;
/// The newest version this build speaks.
pub const VERSION_MAX: u16 = VERSION_TRACES;
/// From this version on a frame may carry a [trace](super::codec::Trace).
pub const VERSION_TRACES: u16 = 2;
/// Largest body of a packet, bytes: a hello of the largest numbers takes about 100. A stranger can
/// make us keep no more than this.
pub const PACKET_BYTES_MAX: usize = 256;
/// Bytes before a packet's body: magic and length.
pub const PACKET_HEADER_BYTES: usize = 6;

/// 32 bytes nobody could foresee, fresh for each connection.
pub type Challenge = [u8; 32];

/// The dialer introduces itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest version it speaks.
    pub version_min: u16,
    /// The newest version it speaks.
    pub version_max: u16,
    /// Digest of ids, strategy and quorums.
    pub cluster_id: u64,
    /// Who dials.
    pub from: NodeId,
    /// Whom it means to reach.
    pub to: NodeId,
    /// The dialer's start count, durable.
    pub incarnation: u64,
    /// The dialer's store.
    pub store: u64,
    /// Counts the dialer's connections to this peer in this life; a larger one supersedes.
    pub connection: u64,
    /// For the listener's proof.
    pub challenge: Challenge,
}

/// The listener's side of the bargain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// The version both speak.
    pub version: u16,
    /// Who listens.
    pub from: NodeId,
    /// Its start count, durable.
    pub incarnation: u64,
    /// Its store.
    pub store: u64,
    /// For the dialer's proof.
    pub challenge: Challenge,
}

/// An HMAC-SHA256.
pub type Proof = [u8; 32];

/// Everything that is said before messages flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Packet {
    /// Dialer, first.
    Hello(Hello),
    /// Listener: its offer and its proof.
    HelloBack(Offer, Proof),
    /// Dialer: its proof.
    Proof(Proof),
    /// Listener: messages may flow.
    Ready,
    /// Either: no, and the connection is closed.
    Refused(Refusal),
}

/// Why a peer is refused. `Display` says it for the log, the mend included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// No version that both speak.
    Version {
        /// The oldest the refusing side speaks.
        min: u16,
        /// The newest.
        max: u16,
    },
    /// The clusters differ.
    WrongCluster,
    /// Another node was meant to be here.
    WrongNode {
        /// Who is here.
        is: NodeId,
    },
    /// The one that dials is not in the refusing side's configuration.
    UnknownNode,
    /// The proof does not fit.
    BadProof,
    /// A later life of this node, or a later connection of this life, has been here.
    Stale {
        /// The later one's incarnation.
        incarnation: u64,
        /// The later one's connection.
        connection: u64,
    },
    /// A packet that has no place here.
    OutOfTurn,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Version { min, max } => write!(
                f,
                "no common protocol version (one side speaks {min} to {max}); \
                 bring both nodes to releases that overlap"
            ),
            Refusal::WrongCluster => f.write_str(
                "the clusters differ; make node ids, replication, replicas and quorums \
                 the same in both cluster.toml",
            ),
            Refusal::WrongNode { is } => write!(
                f,
                "node {is} answers at this address; correct `peer` of the two nodes in cluster.toml"
            ),
            Refusal::UnknownNode => f.write_str(
                "the dialing node is not in the other's cluster.toml; add it there or stop it",
            ),
            Refusal::BadProof => {
                f.write_str("the secrets differ; set the same `secret` on both nodes")
            }
            Refusal::Stale { incarnation, connection } => write!(
                f,
                "a later life of this node is known, incarnation {incarnation}, connection \
                 {connection}; if this repeats, either two processes run under one id: stop one, or \
                 its data directory is an older one: empty it, and the node copies all anew"
            ),
            Refusal::OutOfTurn => f.write_str("a packet out of turn; update the older node"),
        }
    }
}

/// What a node brings into every hello.
#[derive(Clone)]
pub struct Credentials {
    /// This node.
    pub me: PeerIdentity,
    /// Digest of ids, strategy and quorums.
    pub cluster_id: u64,
    /// The key of the proofs; empty without one.
    pub secret: Vec<u8>,
}

impl Credentials {
    fn prove(&self, role: Role, hello: &Hello, offer: &Offer) -> Option<Proof> {
        Some(self.transcript(role, hello, offer)?.finalize().into_bytes().into())
    }

    /// In constant time.
    fn check(&self, role: Role, hello: &Hello, offer: &Offer, proof: &Proof) -> bool {
        let mac = self.transcript(role, hello, offer);
        mac.is_some_and(|mac| mac.verify_slice(proof).is_ok())
    }

    fn transcript(&self, role: Role, hello: &Hello, offer: &Offer) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).ok()?;
        mac.update(role.label());
        mac.update(&postcard::to_stdvec(hello).ok()?);
        mac.update(&postcard::to_stdvec(offer).ok()?);
        Some(mac)
    }
}

/// Whose proof it is; the labels have one length, and what follows them delimits itself.
#[derive(Clone, Copy)]
enum Role {
    Dialer,
    Listener,
}

impl Role {
    fn label(self) -> &'static [u8; 24] {
        match self {
            Role::Dialer => b"SimpleDynamo dialer    1",
            Role::Listener => b"SimpleDynamo listener  1",
        }
    }
}

/// The dialer's half: it has sent `hello` and waits for the offer.
pub struct Dialing<'a> {
    credentials: &'a Credentials,
    /// To be sent first.
    pub hello: Hello,
}

impl<'a> Dialing<'a> {
    /// Begins connection number `connection` of this life towards `to`.
    #[must_use]
    pub fn begin(
        credentials: &'a Credentials,
        to: NodeId,
        connection: u64,
        challenge: Challenge,
    ) -> Dialing<'a> {
        let hello = Hello {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            cluster_id: credentials.cluster_id,
            from: credentials.me.id,
            to,
            incarnation: credentials.me.incarnation,
            store: credentials.me.store,
            connection,
            challenge,
        };
        Dialing { credentials, hello }
    }

    /// Takes the listener's offer; gives the dialer's proof and who listens.
    ///
    /// # Errors
    /// The refusal to send back.
    pub fn answer(&self, offer: &Offer, proof: &Proof) -> Result<(Proof, PeerIdentity), Refusal> {
        if !(VERSION_MIN..=VERSION_MAX).contains(&offer.version) {
            return Err(Refusal::Version { min: VERSION_MIN, max: VERSION_MAX });
        }
        if offer.from != self.hello.to {
            return Err(Refusal::WrongNode { is: offer.from });
        }
        if !self.credentials.check(Role::Listener, &self.hello, offer, proof) {
            return Err(Refusal::BadProof);
        }
        let own = self.credentials.prove(Role::Dialer, &self.hello, offer);
        let own = own.ok_or(Refusal::BadProof)?;
        let peer =
            PeerIdentity { id: offer.from, store: offer.store, incarnation: offer.incarnation };
        Ok((own, peer))
    }
}

/// The listener's half: it has made its offer and waits for the dialer's proof.
pub struct Offering<'a> {
    credentials: &'a Credentials,
    hello: Hello,
    /// To be sent.
    pub offer: Offer,
    /// To be sent with it.
    pub proof: Proof,
}

impl<'a> Offering<'a> {
    /// Takes a hello; `knows` says whether a node is in the configuration.
    ///
    /// # Errors
    /// The refusal to send back.
    pub fn begin(
        credentials: &'a Credentials,
        hello: Hello,
        challenge: Challenge,
        knows: impl Fn(NodeId) -> bool,
    ) -> Result<Offering<'a>, Refusal> {
        let version = hello.version_max.min(VERSION_MAX);
        if version < hello.version_min.max(VERSION_MIN) {
            return Err(Refusal::Version { min: VERSION_MIN, max: VERSION_MAX });
        }
        if hello.cluster_id != credentials.cluster_id {
            return Err(Refusal::WrongCluster);
        }
        let me = credentials.me;
        if hello.to != me.id {
            return Err(Refusal::WrongNode { is: me.id });
        }
        if hello.from == me.id || !knows(hello.from) {
            return Err(Refusal::UnknownNode);
        }
        let offer =
            Offer { version, from: me.id, incarnation: me.incarnation, store: me.store, challenge };
        let proof = credentials.prove(Role::Listener, &hello, &offer).ok_or(Refusal::BadProof)?;
        Ok(Offering { credentials, hello, offer, proof })
    }

    /// Takes the dialer's proof; gives who it is and the number of its connection.
    ///
    /// # Errors
    /// The refusal to send back.
    pub fn check(&self, proof: &Proof) -> Result<(PeerIdentity, u64), Refusal> {
        let Hello { from, store, incarnation, connection, .. } = self.hello;
        if !self.credentials.check(Role::Dialer, &self.hello, &self.offer, proof) {
            return Err(Refusal::BadProof);
        }
        Ok((PeerIdentity { id: from, store, incarnation }, connection))
    }
}

/// What a stranger's first bytes look like, for a log line that helps.
#[must_use]
pub fn looks_like(first: [u8; 4]) -> &'static str {
    match &first {
        b"*1\r\n" | b"*2\r\n" | b"*3\r\n" | b"PING" | b"AUTH" | b"HELL" | b"INFO" => {
            "the Redis protocol; clients belong on the `client` port"
        }
        b"GET " | b"POST" | b"HEAD" | b"PUT " | b"OPTI" | b"PRI " => {
            "HTTP; browsers and probes belong on the `http` port"
        }
        [0x16, 0x03, ..] => "TLS, which the peer port does not use",
        _ => "no protocol known here; the `peer` port is for nodes only",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u32, secret: &str) -> Credentials {
        Credentials {
            me: PeerIdentity { id: NodeId(id), store: u64::from(id) * 10, incarnation: 3 },
            cluster_id: 77,
            secret: secret.into(),
        }
    }

    /// Runs the whole exchange; `change` may spoil the offer on its way.
    fn exchange(
        dialer: &Credentials,
        listener: &Credentials,
        to: u32,
        change: impl Fn(&mut Offer, &mut Proof),
    ) -> Result<(PeerIdentity, PeerIdentity), Refusal> {
        let dialing = Dialing::begin(dialer, NodeId(to), 9, [1; 32]);
        let known = |id: NodeId| [1, 2].contains(&id.0);
        let offering = Offering::begin(listener, dialing.hello, [2; 32], known)?;
        let (mut offer, mut proof) = (offering.offer, offering.proof);
        change(&mut offer, &mut proof);
        let (own, listening) = dialing.answer(&offer, &proof)?;
        let (dialed, connection) = offering.check(&own)?;
        assert_eq!(connection, 9);
        Ok((dialed, listening))
    }

    #[test]
    fn both_learn_who_the_other_is() {
        for secret in ["", "s", "a long secret"] {
            let (a, b) = (node(1, secret), node(2, secret));
            assert_eq!(exchange(&a, &b, 2, |_, _| ()), Ok((a.me, b.me)));
        }
    }

    #[test]
    fn wrong_secret_cluster_or_node_is_refused() {
        let (a, b) = (node(1, "x"), node(2, "x"));
        assert_eq!(exchange(&a, &node(2, "y"), 2, |_, _| ()), Err(Refusal::BadProof));
        assert_eq!(exchange(&a, &node(2, ""), 2, |_, _| ()), Err(Refusal::BadProof));
        let other = Credentials { cluster_id: 78, ..b.clone() };
        assert_eq!(exchange(&a, &other, 2, |_, _| ()), Err(Refusal::WrongCluster));
        let elsewhere = Refusal::WrongNode { is: NodeId(2) };
        assert_eq!(exchange(&a, &b, 1, |_, _| ()), Err(elsewhere));
        assert_eq!(exchange(&node(7, "x"), &b, 2, |_, _| ()), Err(Refusal::UnknownNode));
        assert_eq!(exchange(&node(2, "x"), &b, 2, |_, _| ()), Err(Refusal::UnknownNode));
    }

    #[test]
    fn every_field_of_the_offer_is_proved() {
        let (a, b) = (node(1, "x"), node(2, "x"));
        let spoilers: [fn(&mut Offer, &mut Proof); 4] = [
            |offer, _| offer.incarnation += 1,
            |offer, _| offer.store += 1,
            |offer, _| offer.challenge[31] ^= 1,
            |_, proof| proof[0] ^= 1,
        ];
        for spoil in spoilers {
            assert_eq!(exchange(&a, &b, 2, spoil), Err(Refusal::BadProof));
        }
        let version = Refusal::Version { min: 1, max: 2 };
        assert_eq!(exchange(&a, &b, 2, |offer, _| offer.version = 3), Err(version));
        let older = exchange(&a, &b, 2, |offer, _| offer.version = 1);
        assert_eq!(older, Err(Refusal::BadProof), "nobody can bargain it down");
        let other = Refusal::WrongNode { is: NodeId(5) };
        assert_eq!(exchange(&a, &b, 2, |offer, _| offer.from = NodeId(5)), Err(other));
    }

    #[test]
    fn reflected_and_replayed_proofs_fail() {
        let (a, b) = (node(1, "x"), node(2, "x"));
        let dialing = Dialing::begin(&a, NodeId(2), 1, [1; 32]);
        let offering = Offering::begin(&b, dialing.hello, [2; 32], |_| true).unwrap();
        assert_eq!(offering.check(&offering.proof), Err(Refusal::BadProof), "its own proof");

        let (proof, _) = dialing.answer(&offering.offer, &offering.proof).unwrap();
        assert!(offering.check(&proof).is_ok());
        let again = Offering::begin(&b, dialing.hello, [3; 32], |_| true).unwrap();
        assert_eq!(again.check(&proof), Err(Refusal::BadProof), "a proof of another conversation");
        let later = Hello { connection: 2, ..dialing.hello };
        let later = Offering::begin(&b, later, [2; 32], |_| true).unwrap();
        assert_eq!(later.check(&proof), Err(Refusal::BadProof), "a changed hello");
    }

    /// Computed with another implementation (Python's hmac) over the bytes of both packets.
    #[test]
    fn proofs_are_the_known_answers() {
        let hex = |proof: &Proof| proof.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let (a, b) = (node(1, "x"), node(2, "x"));
        let dialing = Dialing::begin(&a, NodeId(2), 9, [1; 32]);
        let offering = Offering::begin(&b, dialing.hello, [2; 32], |_| true).unwrap();
        let listener = "e2dcbfbb899d630ebce469732f6b1abf7f29a1a5c7b249a678e8ccffeb536ad6";
        assert_eq!(hex(&offering.proof), listener);
        let (own, _) = dialing.answer(&offering.offer, &offering.proof).unwrap();
        let dialer = "31fac4434b49dce80db5e65fd5f4889b0674c53a299c8d847ff73af9c9cd3e43";
        assert_eq!(hex(&own), dialer);
    }

    #[test]
    fn versions_must_overlap() {
        let (a, b) = (node(1, ""), node(2, ""));
        let hello = Dialing::begin(&a, NodeId(2), 1, [1; 32]).hello;
        let offered = |min, max| {
            let hello = Hello { version_min: min, version_max: max, ..hello };
            Offering::begin(&b, hello, [2; 32], |_| true).map(|offering| offering.offer.version)
        };
        let none = Err(Refusal::Version { min: 1, max: 2 });
        assert_eq!(offered(1, 1), Ok(1));
        assert_eq!(offered(0, 9), Ok(2));
        assert_eq!(offered(2, 9), Ok(2));
        assert_eq!(offered(3, 9), none);
        assert_eq!(offered(0, 0), none);
        assert_eq!(offered(3, 1), none, "an empty range");
    }

    #[test]
    fn strangers_are_named() {
        assert!(looks_like(*b"*1\r\n").contains("client"));
        assert!(looks_like(*b"GET ").contains("http"));
        assert!(looks_like([0x16, 3, 1, 2]).contains("TLS"));
        assert!(looks_like([0; 4]).contains("nodes only"));
    }
}
