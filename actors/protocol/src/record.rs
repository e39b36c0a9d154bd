//! What a replica stores of a key.

use crate::{ballot::Stamp, recent::Recent, short_bytes::ShortBytes, time::WallMillis};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, ops::Deref, sync::Arc};

/// Immutable bytes: cloning them for three replicas allocates nothing. Formats for people (JSON)
/// have them as text, escaped as in Rust's byte strings; binary formats as they are.
macro_rules! immutable_bytes {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($inner);

        impl Deref for $name {
            type Target = [u8];
            fn deref(&self) -> &[u8] {
                &self.0
            }
        }
        impl std::borrow::Borrow<[u8]> for $name {
            fn borrow(&self) -> &[u8] {
                &self.0
            }
        }
        impl From<&[u8]> for $name {
            fn from(bytes: &[u8]) -> Self {
                $name(bytes.into())
            }
        }
        impl From<Vec<u8>> for $name {
            fn from(bytes: Vec<u8>) -> Self {
                $name(bytes.into())
            }
        }
        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                $name(text.as_bytes().into())
            }
        }
        /// Printable ASCII as it is, every other byte escaped; long ones are cut.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                const SHOWN: usize = 48;
                write!(f, "{}", self.0.get(..SHOWN).unwrap_or(&self.0).escape_ascii())?;
                if self.0.len() > SHOWN { write!(f, "…({} B)", self.0.len()) } else { Ok(()) }
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "\"{self}\"")
            }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(&self.0.escape_ascii())
                } else {
                    serializer.serialize_bytes(&self.0)
                }
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Bytes;
                impl<'de> de::Visitor<'de> for Bytes {
                    type Value = $inner;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("bytes")
                    }
                    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                        Ok(bytes.into())
                    }
                    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Self::Value, E> {
                        Ok(bytes.into())
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                        let bytes = unescape(text.as_bytes()).map(Self::Value::from);
                        bytes.ok_or_else(|| E::custom("an escape that is none of \\\\ \\' \\\" \\n \\r \\t \\xNN"))
                    }
                }
                if deserializer.is_human_readable() {
                    deserializer.deserialize_str(Bytes).map($name)
                } else {
                    deserializer.deserialize_bytes(Bytes).map($name)
                }
            }
        }
    };
}

immutable_bytes! {
    /// A key: 1 to 65,535 bytes of any kind (the front end checks). A short one lies where the key
    /// does: each message names one, and the one that is looked for is compared without a detour.
    Key(ShortBytes)
}
immutable_bytes! {
    /// A value's bytes, shared by all who have it.
    Value(Arc<[u8]>)
}

/// The bytes that `escape_ascii` made `text` of; none where it is malformed.
fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.iter().copied();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'x' => {
                    let mut digit = || char::from(rest.next()?).to_digit(16);
                    u8::try_from(digit()? * 16 + digit()?).ok()?
                }
                same @ (b'\\' | b'\'' | b'"') => same,
                _ => return None,
            },
            byte => byte,
        });
    }
    Some(bytes)
}

/// A key's content, or the mark that it was deleted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Datum {
    /// The key has a value.
    Live {
        /// Its bytes.
        value: Value,
        /// When it ends, milliseconds since the Unix epoch.
        expires_at: Option<WallMillis>,
    },
    /// The key was deleted or has expired.
    Tombstone {
        /// When, by the deleting coordinator's clock; only the grace period of collection uses it.
        at: WallMillis,
    },
}

impl Datum {
    /// Whether the stamp of expiry has passed at `wall`.
    #[must_use]
    pub fn expired(&self, wall: WallMillis) -> bool {
        matches!(self, Datum::Live { expires_at: Some(at), .. } if *at <= wall)
    }

    /// The value, unless deleted.
    #[must_use]
    pub fn value(&self) -> Option<&Value> {
        match self {
            Datum::Live { value, .. } => Some(value),
            Datum::Tombstone { .. } => None,
        }
    }
}

/// One state of one key's register.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// Which state this is; records are ordered by it.
    pub stamp: Stamp,
    /// The content.
    pub datum: Datum,
    /// The exactly-once records of the operations that led here.
    pub recent: Recent,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.datum {
            Datum::Live { value, expires_at: None } => write!(f, "{} \"{value}\"", self.stamp),
            Datum::Live { value, expires_at: Some(at) } => {
                write!(f, "{} \"{value}\" until {at}", self.stamp)
            }
            Datum::Tombstone { .. } => write!(f, "{} deleted", self.stamp),
        }
    }
}

/// The stamp of a record that may not exist; none is below all.
#[must_use]
pub fn stamp_of(record: Option<&Record>) -> Option<Stamp> {
    record.map(|record| record.stamp)
}
