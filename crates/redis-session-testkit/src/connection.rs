//! A connection of the test's own to a redis-server: blocking, in RESP2.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    time::Duration,
};

use crate::resp::{self, Reply};

/// How long an answer may take before the test ends.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    /// Connects, and says the password of the default user where there is one.
    pub(crate) fn open(port: u16, password: Option<&str>, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        let mut connection = Self { stream, received: Vec::new() };
        if let Some(password) = password
            && let Reply::Error(error) = connection.ask(&["AUTH", password])?
        {
            return Err(io::Error::other(error));
        }
        Ok(connection)
    }

    /// Whether the server has not closed it.
    pub(crate) fn is_open(&self) -> bool {
        let peeked = self.stream.set_nonblocking(true).and_then(|()| self.stream.peek(&mut [0]));
        let open = matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        open && self.stream.set_nonblocking(false).is_ok()
    }

    pub(crate) fn ask<A: AsRef<[u8]>>(&mut self, command: &[A]) -> io::Result<Reply> {
        self.stream.write_all(&resp::encode(command))?;
        let mut part = [0; 16 * 1024];
        loop {
            match resp::reply(&self.received) {
                Ok(Some((reply, length))) => {
                    self.received.drain(..length);
                    return Ok(reply);
                }
                Ok(None) => {}
                Err(_) => return Err(io::Error::other("the answer is not the redis protocol")),
            }
            match self.stream.read(&mut part)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.received.extend_from_slice(&part[..count]),
            }
        }
    }
}
