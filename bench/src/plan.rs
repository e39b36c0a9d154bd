//! What a run is made of.
//!
//! Keys are numbers written as `key:000000000042`, as redis-benchmark writes them. Which key an operation
//! takes is drawn for each client from its own seeded generator: uniformly, or by Zipf's law with exponent
//! 0.99 as in YCSB (Cooper et al., SoCC '10), where of 100,000 keys the first takes about 8 % of all
//! operations.
//!
//! A value says whose it is: its key's number, a place in a block of random bytes, and the bytes from
//! there. Every value read is compared with that, byte for byte.
//!
//! Caveats: Zipf's keys are drawn from a table of [`ZIPF_DRAWS`] numbers made before the run, so that a
//! draw costs nothing; clients begin at different places of it.

use bytes::{Buf, BufMut, BytesMut};
use clap::{Args, ValueEnum};
use rand::{Rng, RngCore, SeedableRng, rngs::SmallRng};
use serde::{Deserialize, Serialize};
use std::{io, net::SocketAddr, ops::Range, rc::Rc, time::Duration};

/// Numbers in the table of Zipf draws: many times the keys that matter.
const ZIPF_DRAWS: usize = 1 << 20;
/// YCSB's exponent.
const ZIPF_EXPONENT: f64 = 0.99;
/// Values begin at this many places of the random block.
const VALUE_PLACES: usize = 4096;
/// Length of a key in bytes.
pub const KEY_BYTES: usize = 16;
/// What a value begins with: its key's number, eight bytes, and its place, two. The shortest value.
pub const VALUE_HEAD: usize = 10;

/// Which protocol the servers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    Redis,
    Etcd,
}

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// Writes, keys drawn uniformly.
    Write,
    /// Reads, keys drawn uniformly.
    Read,
    /// Half and half, keys drawn uniformly.
    Mixed,
    /// Half and half, keys drawn by Zipf's law.
    Zipf,
}

/// What happens to a server in the middle of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Blow {
    Kill,
    Stop,
}

/// A run.
#[derive(Args, Clone, Debug)]
pub struct Plan {
    /// What the report calls the servers
    #[arg(long)]
    pub system: String,
    /// Which table of the report the record goes to
    #[arg(long, default_value = "throughput")]
    pub kind: String,
    /// Which repetition this is
    #[arg(long, default_value_t = 1)]
    pub round: u32,
    #[arg(long, value_enum, default_value = "redis")]
    pub protocol: Protocol,
    /// Where clients connect, in turn
    #[arg(long, value_delimiter = ',', required = true)]
    pub address: Vec<SocketAddr>,
    /// Redis Sentinels, asked for the master at each connection
    #[arg(long, value_delimiter = ',')]
    pub sentinel: Vec<SocketAddr>,
    #[arg(long, default_value_t = 64)]
    pub connections: usize,
    /// Operations of one connection in flight at once
    #[arg(long, default_value_t = 1)]
    pub pipeline: usize,
    #[arg(long, value_enum, default_value = "write")]
    pub workload: Workload,
    /// Redis: replicas that WAIT asks for after each batch of writes; 0 sends no WAIT
    #[arg(long, default_value_t = 0)]
    pub wait: u32,
    #[arg(long, default_value_t = 100_000)]
    pub keys: u64,
    #[arg(long, default_value_t = 100)]
    pub value_bytes: usize,
    /// Seconds before anything is counted
    #[arg(long, default_value_t = 0.3)]
    pub warmup: f64,
    /// Seconds that are counted
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// Open loop: operations offered in a second, all clients together; 0 is a closed loop
    #[arg(long, default_value_t = 0.0)]
    pub rate: f64,
    /// Milliseconds after which a client gives a connection up
    #[arg(long, default_value_t = 10_000)]
    pub timeout: u64,
    /// Server processes whose processor time is counted
    #[arg(long, value_delimiter = ',')]
    pub server_pid: Vec<u32>,
    /// What happens to the victim
    #[arg(long, value_enum, requires = "victim_pid")]
    pub blow: Option<Blow>,
    #[arg(long)]
    pub victim_pid: Option<u32>,
    /// The victim's address: its connections are judged apart
    #[arg(long)]
    pub victim: Option<SocketAddr>,
    /// What the report says of the run
    #[arg(long)]
    pub note: Option<String>,
    /// Seconds from the start of counting to the blow
    #[arg(long, default_value_t = 2.0)]
    pub blow_after: f64,
}

impl Plan {
    /// The defaults, for these servers.
    pub fn new(system: &str, protocol: Protocol, address: &[SocketAddr]) -> Plan {
        Plan {
            system: system.to_owned(),
            kind: "throughput".to_owned(),
            round: 1,
            protocol,
            address: address.to_vec(),
            sentinel: Vec::new(),
            connections: 64,
            pipeline: 1,
            workload: Workload::Write,
            wait: 0,
            keys: 100_000,
            value_bytes: 100,
            warmup: 0.3,
            seconds: 2.0,
            rate: 0.0,
            timeout: 10_000,
            server_pid: Vec::new(),
            blow: None,
            victim_pid: None,
            victim: None,
            note: None,
            blow_after: 2.0,
        }
    }

    /// What no server could be asked.
    ///
    /// # Errors
    /// Which number is impossible.
    pub fn check(&self) -> io::Result<()> {
        let wrong = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, what.to_owned()));
        match self {
            _ if self.connections == 0 || self.pipeline == 0 => {
                wrong("--connections and --pipeline begin at 1")
            }
            _ if self.keys == 0 => wrong("--keys begins at 1"),
            _ if self.value_bytes < VALUE_HEAD => wrong("--value-bytes begins at 10"),
            _ if self.seconds.is_nan() || self.seconds <= 0.0 => wrong("--seconds is above 0"),
            _ if self.rate.is_nan() || self.rate < 0.0 => wrong("--rate is 0 or above"),
            _ if self.warmup.is_nan() || self.warmup < 0.0 => wrong("--warmup is 0 or above"),
            _ => Ok(()),
        }
    }

    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout)
    }

    pub fn is_open(&self) -> bool {
        self.rate > 0.0
    }
}

/// Keys and values, shared by all clients of a run.
pub struct Supply {
    pub keys: u64,
    pub value_bytes: usize,
    block: Vec<u8>,
    zipf: Vec<u32>,
    workload: Workload,
}

impl Supply {
    pub fn new(keys: u64, value_bytes: usize, workload: Workload) -> io::Result<Supply> {
        let mut rng = SmallRng::seed_from_u64(7);
        let mut block = vec![0; value_bytes + VALUE_PLACES];
        rng.fill_bytes(&mut block);
        let mut zipf = Vec::new();
        if workload == Workload::Zipf {
            let law = rand_distr::Zipf::new(keys as f64, ZIPF_EXPONENT);
            let law = law.map_err(|error| io::Error::other(error.to_string()))?;
            zipf = (0..ZIPF_DRAWS).map(|_| rng.sample(law) as u32 - 1).collect();
        }
        Ok(Supply { keys, value_bytes, block, zipf, workload })
    }

    /// Appends a value of key `number`.
    pub fn put_value(&self, out: &mut BytesMut, number: u64, place: usize) {
        let place = place % VALUE_PLACES;
        out.put_u64_le(number);
        out.put_u16_le(place as u16);
        out.put_slice(&self.block[place..place + self.value_bytes - VALUE_HEAD]);
    }

    /// Whether these bytes are a value of key `number`.
    pub fn is_value(&self, number: u64, mut value: &[u8]) -> bool {
        if value.len() != self.value_bytes || value.get_u64_le() != number {
            return false;
        }
        let place = usize::from(value.get_u16_le());
        self.block.get(place..place + value.len()).is_some_and(|block| block == value)
    }
}

/// What a client asks next.
pub struct Ask {
    pub write: bool,
    pub key: u64,
    /// For [`Supply::put_value`].
    pub place: usize,
}

/// A client's draws.
pub struct Draw {
    rng: SmallRng,
    supply: Rc<Supply>,
    at: usize,
}

impl Draw {
    pub fn new(supply: &Rc<Supply>, client: usize) -> Draw {
        let mut rng = SmallRng::seed_from_u64(client as u64 + 1);
        let at = rng.random_range(0..ZIPF_DRAWS);
        Draw { rng, supply: Rc::clone(supply), at }
    }

    pub fn next(&mut self) -> Ask {
        let bits = self.rng.next_u64();
        let half = bits & 1 == 0;
        let (write, key) = match self.supply.workload {
            Workload::Write => (true, self.uniform()),
            Workload::Read => (false, self.uniform()),
            Workload::Mixed => (half, self.uniform()),
            Workload::Zipf => {
                self.at = (self.at + 1) % ZIPF_DRAWS;
                (half, u64::from(self.supply.zipf[self.at]))
            }
        };
        Ask { write, key, place: (bits >> 32) as usize }
    }

    fn uniform(&mut self) -> u64 {
        self.rng.random_range(0..self.supply.keys)
    }
}

/// A key's bytes.
pub fn key(number: u64) -> [u8; KEY_BYTES] {
    let mut key = *b"key:000000000000";
    let (mut rest, mut at) = (number, KEY_BYTES);
    while rest > 0 && at > 4 {
        at -= 1;
        key[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// All keys, in parts of at most `of`.
pub fn parts(keys: u64, of: u64) -> impl Iterator<Item = Range<u64>> {
    let of = of.max(1);
    (0..keys.div_ceil(of)).map(move |part| part * of..((part + 1) * of).min(keys))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_with_leading_zeros() {
        assert_eq!(&key(0), b"key:000000000000");
        assert_eq!(&key(10_203), b"key:000000010203");
    }

    #[test]
    fn values_are_known_again() {
        let supply = Supply::new(9, 30, Workload::Read).unwrap();
        let mut value = BytesMut::new();
        supply.put_value(&mut value, 7, 123_456);
        assert_eq!(value.len(), 30);
        assert!(supply.is_value(7, &value));
        assert!(!supply.is_value(8, &value) && !supply.is_value(7, &value[..29]));
        for at in 0..value.len() {
            let mut wrong = value.clone();
            wrong[at] ^= 1;
            assert!(!supply.is_value(7, &wrong), "byte {at}");
        }
    }

    #[test]
    fn parts_cover_every_key_once() {
        let parts: Vec<_> = parts(10, 4).collect();
        assert_eq!(parts, [0..4, 4..8, 8..10]);
    }

    #[test]
    fn zipf_prefers_the_first_keys_and_stays_inside() {
        let supply = Rc::new(Supply::new(1_000, 10, Workload::Zipf).unwrap());
        let mut draw = Draw::new(&supply, 3);
        let (mut first, mut writes) = (0, 0);
        for _ in 0..100_000 {
            let ask = draw.next();
            assert!(ask.key < 1_000);
            first += u64::from(ask.key == 0);
            writes += u64::from(ask.write);
        }
        // Of 1,000 keys the first takes 1 / H(1000, 0.99) = 13 %.
        assert!((11_000..15_000).contains(&first), "{first}");
        assert!((49_000..51_000).contains(&writes), "{writes}");
    }
}
