//! Stand-ins for the node and the client front end, with their interfaces, until those are joined:
//! a store in this process's memory that answers PING, AUTH, GET, SET and DEL.

pub(crate) mod node {
    use actix::{Actor, Addr, Context, Handler};
    use simpledynamo_actors::{
        messages::{
            AskStatus, AskTable, Completed, CountKeys, Execute, LocalGet, LocalPage, LocalRows,
            Member, NodeHandle, Page, Phase, ScanPage, Standing, Status, Table, Verdict,
        },
        settings::Settings,
    };
    use simpledynamo_protocol::{message::Reason, recent::OpId, record::Record, ring::NodeId};

    pub(crate) struct Stopper;
    impl Stopper {
        pub(crate) async fn stop(self) {}
    }

    struct Node(Settings);
    impl Actor for Node {
        type Context = Context<Self>;
    }
    impl Handler<Execute> for Node {
        type Result = ();
        fn handle(&mut self, message: Execute, _: &mut Context<Self>) {
            let op = OpId::default();
            let _ = message.reply.send(Completed { op, verdict: Verdict::Unknown });
        }
    }
    impl Handler<ScanPage> for Node {
        type Result = Result<Page, Reason>;
        fn handle(&mut self, _: ScanPage, _: &mut Context<Self>) -> Self::Result {
            Ok(Page::default())
        }
    }
    impl Handler<CountKeys> for Node {
        type Result = Result<u64, Reason>;
        fn handle(&mut self, _: CountKeys, _: &mut Context<Self>) -> Self::Result {
            Ok(0)
        }
    }
    impl Handler<LocalGet> for Node {
        type Result = Option<Record>;
        fn handle(&mut self, _: LocalGet, _: &mut Context<Self>) -> Self::Result {
            None
        }
    }
    impl Handler<LocalPage> for Node {
        type Result = actix::MessageResult<LocalPage>;
        fn handle(&mut self, _: LocalPage, _: &mut Context<Self>) -> Self::Result {
            actix::MessageResult(LocalRows::default())
        }
    }
    impl Handler<AskTable> for Node {
        type Result = actix::MessageResult<AskTable>;
        fn handle(&mut self, _: AskTable, _: &mut Context<Self>) -> Self::Result {
            let Settings { me, listen, peers, ring, .. } = &self.0;
            let row = |id: NodeId| Member {
                id,
                peer: peers.iter().find(|p| p.id == id).map_or(*listen, |p| p.address),
                position: ring.position(id).map(|p| format!("{p:?}")).unwrap_or_default(),
                share: ring.share(id),
                standing: if id == *me { Standing::Me } else { Standing::Trusted },
            };
            actix::MessageResult(Table { me: *me, nodes: ring.nodes().map(row).collect() })
        }
    }
    impl Handler<AskStatus> for Node {
        type Result = actix::MessageResult<AskStatus>;
        fn handle(&mut self, _: AskStatus, _: &mut Context<Self>) -> Self::Result {
            let phase = Phase::Serving;
            actix::MessageResult(Status { phase, level: true, ..Status::default() })
        }
    }

    pub(crate) async fn start(settings: Settings) -> Result<(NodeHandle, Stopper), String> {
        let node: Addr<Node> = Node(settings).start();
        let handle = NodeHandle {
            execute: node.clone().recipient(),
            scan: node.clone().recipient(),
            count: node.clone().recipient(),
            local_get: node.clone().recipient(),
            local_page: node.clone().recipient(),
            table: node.clone().recipient(),
            status: node.recipient(),
        };
        Ok((handle, Stopper))
    }
}

pub(crate) mod resp {
    use simpledynamo_actors::{messages::NodeHandle, settings::Limits};
    use simpledynamo_protocol::ring::{NodeId, Ring};
    use std::{cell::RefCell, collections::BTreeMap, rc::Rc};
    use tokio::{
        io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
        net::{TcpListener, TcpStream},
        sync::watch,
    };

    pub(crate) struct ClientSettings {
        pub(crate) limits: Limits,
        pub(crate) password: Option<String>,
        pub(crate) ring: Ring,
        pub(crate) me: NodeId,
        pub(crate) write_quorum: usize,
    }

    type Store = Rc<RefCell<BTreeMap<Vec<u8>, Vec<u8>>>>;

    pub(crate) async fn serve(
        listener: TcpListener,
        _node: NodeHandle,
        settings: ClientSettings,
        mut stop: watch::Receiver<bool>,
    ) -> std::io::Result<()> {
        let ClientSettings { limits, password, ring, me, write_quorum } = settings;
        log::debug!("{limits:?} {} {ring:?} {me} {write_quorum}", password.is_some());
        let store = Store::default();
        loop {
            tokio::select! {
                Ok((stream, _)) = listener.accept() => {
                    tokio::task::spawn_local(answer(stream, Rc::clone(&store)));
                }
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            }
        }
    }

    async fn answer(stream: TcpStream, store: Store) -> Option<()> {
        let mut stream = BufReader::new(stream);
        loop {
            let count = number(&mut stream).await?;
            let mut words = Vec::new();
            for _ in 0..count {
                let length = number(&mut stream).await?;
                let mut word = vec![0; usize::try_from(length).ok()? + 2];
                stream.read_exact(&mut word).await.ok()?;
                word.truncate(word.len() - 2);
                words.push(word);
            }
            let reply = reply(&words, &store);
            stream.get_mut().write_all(&reply).await.ok()?;
        }
    }

    fn reply(words: &[Vec<u8>], store: &Store) -> Vec<u8> {
        let mut store = store.borrow_mut();
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        match words.as_slice() {
            [b"PING"] => b"+PONG\r\n".to_vec(),
            [b"AUTH", _] => b"+OK\r\n".to_vec(),
            [b"GET", key] => match store.get(*key) {
                Some(value) => {
                    let mut out = format!("${}\r\n", value.len()).into_bytes();
                    out.extend_from_slice(value);
                    out.extend_from_slice(b"\r\n");
                    out
                }
                None => b"$-1\r\n".to_vec(),
            },
            [b"SET", key, value] => {
                store.insert(key.to_vec(), value.to_vec());
                b"+OK\r\n".to_vec()
            }
            [b"DEL", key] => format!(":{}\r\n", u8::from(store.remove(*key).is_some())).into(),
            _ => b"-ERR unknown command\r\n".to_vec(),
        }
    }

    async fn number(stream: &mut BufReader<TcpStream>) -> Option<u64> {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok().filter(|n| *n > 0)?;
        line.trim().get(1..)?.parse().ok()
    }
}
