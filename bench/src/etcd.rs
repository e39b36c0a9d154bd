//! Clients of etcd: one HTTP/2 connection each, as many calls on it at once as the pipeline is deep.
//!
//! A call that is late, or a connection that breaks, sends the client to the next address, as etcd's own
//! client does. The operation counts as failed and is not sent again.

use crate::{
    drive::{Clients, Run},
    grpc::{
        CallError, Channel, Empty, PUT, PutRequest, RANGE, RangeRequest, RangeResponse, STATUS,
        StatusResponse,
    },
    plan::{Ask, Draw, Supply, key},
};
use bytes::{Bytes, BytesMut};
use prost::Message;
use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::{
    sync::Mutex,
    task::spawn_local,
    time::{sleep, timeout},
};

/// Pause after an address refused, before the next is tried.
const RETRY: Duration = Duration::from_millis(5);

/// A client's connection, and which one it is.
#[derive(Clone)]
struct Current {
    channel: Channel,
    address: SocketAddr,
    place: usize,
}

struct Client {
    run: Rc<Run>,
    current: RefCell<Option<Current>>,
    /// The address that is next; held while somebody connects.
    next: Mutex<usize>,
    draw: RefCell<Draw>,
    in_flight: Cell<usize>,
    /// When the operations in flight were due, for those that never end.
    due: RefCell<std::collections::BTreeMap<u64, Instant>>,
    numbers: Cell<u64>,
}

/// All of a run's clients.
pub struct Etcd {
    clients: Vec<Rc<Client>>,
}

/// Connects every client.
///
/// # Errors
/// The first connection that does not come about.
pub async fn connect(run: &Rc<Run>) -> io::Result<Etcd> {
    let mut clients = Vec::new();
    for place in 0..run.plan.connections {
        let client = Client {
            run: Rc::clone(run),
            current: RefCell::new(None),
            next: Mutex::new(place),
            draw: RefCell::new(Draw::new(&run.supply, place)),
            in_flight: Cell::new(0),
            due: RefCell::default(),
            numbers: Cell::new(0),
        };
        client.connect_next(&mut *client.next.lock().await).await?;
        clients.push(Rc::new(client));
    }
    Ok(Etcd { clients })
}

impl Clients for Etcd {
    fn begin(&self) {
        for client in &self.clients {
            for _ in 0..client.run.plan.pipeline {
                let client = Rc::clone(client);
                spawn_local(async move {
                    while !client.run.over.get() {
                        client.operate(Instant::now()).await;
                    }
                });
            }
        }
    }

    fn issue(&self, client: usize, due: Instant) {
        if let Some(client) = self.clients.get(client).cloned() {
            spawn_local(async move { client.operate(due).await });
        }
    }

    /// Every call has its own time-out.
    fn sweep(&self, _now: Instant) {}

    fn is_idle(&self) -> bool {
        self.clients.iter().all(|client| client.in_flight.get() == 0)
    }

    fn give_up(&self, now: Instant) {
        for client in &self.clients {
            for due in std::mem::take(&mut *client.due.borrow_mut()).into_values() {
                client.run.failed(due, now, true, "no answer at the end of the run");
            }
        }
    }
}

impl Client {
    async fn operate(&self, due: Instant) {
        let number = self.numbers.replace(self.numbers.get() + 1);
        self.in_flight.set(self.in_flight.get() + 1);
        self.due.borrow_mut().insert(number, due);
        let ask = self.draw.borrow_mut().next();
        let patience = self.run.plan.timeout();
        let connected = self.connected(due + patience).await;
        let (ended, live) = match connected {
            None => (Err("no connection".to_owned()), true),
            Some(current) => {
                let ended = timeout(patience, self.call(&current.channel, &ask)).await;
                let late = || Err(CallError::Broken(format!("no answer in {patience:?}")));
                let ended = ended.unwrap_or_else(|_| late());
                if matches!(ended, Err(CallError::Broken(_))) {
                    self.leave(&current);
                }
                let told = |(CallError::Broken(why) | CallError::Refused(why)): CallError| why;
                (ended.map_err(told), self.run.is_live(current.address))
            }
        };
        self.in_flight.set(self.in_flight.get() - 1);
        // Given up by the end of the run: counted there.
        if self.due.borrow_mut().remove(&number).is_none() {
            return;
        }
        match ended {
            Ok(()) => self.run.done(due, Instant::now(), live),
            Err(why) => self.run.failed(due, Instant::now(), live, &why),
        }
    }

    async fn call(&self, channel: &Channel, ask: &Ask) -> Result<(), CallError> {
        let supply = &self.run.supply;
        if ask.write {
            return channel.call(PUT, &put(supply, ask.key, ask.place)).await.map(|_| ());
        }
        let key = Bytes::copy_from_slice(&key(ask.key));
        let answer = channel.call(RANGE, &RangeRequest { key: key.clone() }).await?;
        let found = RangeResponse::decode(answer);
        let found = found.map_err(|error| CallError::Broken(error.to_string()))?;
        let refused = |why: &str| Err(CallError::Refused(why.to_owned()));
        match found.kvs.as_slice() {
            [pair] if pair.key == key && supply.is_value(ask.key, &pair.value) => Ok(()),
            [] => refused("the key is not there"),
            _ => refused("a value that nobody wrote to this key"),
        }
    }

    /// The connection, after connecting where there is none; none if that takes until then.
    async fn connected(&self, until: Instant) -> Option<Current> {
        loop {
            if let Some(current) = self.current.borrow().clone() {
                return Some(current);
            }
            let mut next = self.next.lock().await;
            if self.current.borrow().is_some() {
                continue;
            }
            if self.connect_next(&mut next).await.is_err() {
                sleep(RETRY).await;
            }
            if Instant::now() >= until {
                return None;
            }
        }
    }

    async fn connect_next(&self, next: &mut usize) -> io::Result<()> {
        let place = *next;
        *next += 1;
        let address = self.run.plan.address[place % self.run.plan.address.len()];
        let channel = Channel::open(address).await?;
        *self.current.borrow_mut() = Some(Current { channel, address, place });
        Ok(())
    }

    /// Forgets this connection, unless a newer one is there.
    fn leave(&self, current: &Current) {
        let mut now = self.current.borrow_mut();
        if now.as_ref().is_some_and(|now| now.place == current.place) {
            *now = None;
        }
    }
}

/// The write of a key.
pub fn put(supply: &Supply, number: u64, place: usize) -> PutRequest {
    let mut value = BytesMut::with_capacity(supply.value_bytes);
    supply.put_value(&mut value, number, place);
    PutRequest { key: Bytes::copy_from_slice(&key(number)), value: value.freeze() }
}

/// The place of the address whose server says that it leads.
pub async fn leader(addresses: &[SocketAddr]) -> io::Result<usize> {
    for (place, address) in addresses.iter().enumerate() {
        let channel = Channel::open(*address).await?;
        let answer = channel.call(STATUS, &Empty {}).await;
        let answer = answer.map_err(|error| io::Error::other(format!("{error:?}")))?;
        let status = StatusResponse::decode(answer).map_err(io::Error::other)?;
        if status.header.is_some_and(|header| header.member_id == status.leader) {
            return Ok(place);
        }
    }
    Err(io::Error::other("no server says that it leads"))
}
