//! A blocking Redis client of a few lines, so that the tests depend on nobody else's idea of the
//! protocol. RESP2; one command at a time.

use std::{
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Longer than a node's deadline and the longest pause in a test together: an answer that takes
/// longer never comes.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// A reply as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Simple(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Answer>),
}

impl Answer {
    /// The elements; none for anything but an array.
    pub fn array(self) -> Vec<Answer> {
        match self {
            Answer::Array(elements) => elements,
            other => panic!("not an array: {other:?}"),
        }
    }
}

/// A connection.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, SILENCE_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        Ok(Client { stream: BufReader::new(stream) })
    }

    /// Sends a command and waits for its reply. After an error the connection is of no use.
    pub fn call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> io::Result<Answer> {
        let mut bytes = format!("*{}\r\n", arguments.len()).into_bytes();
        for argument in arguments.iter().map(AsRef::as_ref) {
            bytes.extend(format!("${}\r\n", argument.len()).bytes());
            bytes.extend(argument);
            bytes.extend(b"\r\n");
        }
        self.stream.get_mut().write_all(&bytes)?;
        self.answer()
    }

    fn answer(&mut self) -> io::Result<Answer> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let Some(line) = line.strip_suffix("\r\n") else {
            return Err(ErrorKind::UnexpectedEof.into());
        };
        let (kind, rest) = line.split_at(1);
        let number = || rest.parse::<i64>().map_err(io::Error::other);
        match kind {
            "+" => Ok(Answer::Simple(rest.into())),
            "-" => Ok(Answer::Error(rest.into())),
            ":" => Ok(Answer::Int(number()?)),
            "$" | "*" if number()? < 0 => Ok(Answer::Nil),
            "$" => {
                let mut bytes = vec![0; number()? as usize + 2];
                self.stream.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Ok(Answer::Bulk(bytes))
            }
            "*" => {
                (0..number()?).map(|_| self.answer()).collect::<io::Result<_>>().map(Answer::Array)
            }
            _ => Err(io::Error::other(format!("not RESP2: {line}"))),
        }
    }
}
