//! The load: a bounded number of requests on keep-alive connections, each sent when the one before it was answered.
//!
//! Every connection has visitors of its own, so that no two requests of one session are under way at once, and every
//! answer is checked.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::shopper::Shopper;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// The handler does not ask for the session.
    Untouched,
    /// It answers with one field.
    Read,
    /// It changes one field, and answers with it.
    Write,
}

impl Route {
    pub(crate) const ALL: [Self; 3] = [Self::Untouched, Self::Read, Self::Write];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Untouched => "untouched",
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    fn request(self, cookie: &str) -> Vec<u8> {
        let method = if self == Self::Write { "POST" } else { "GET" };
        request(method, self.name(), &format!("cookie: {cookie}\r\n"))
    }
}

fn request(method: &str, path: &str, headers: &str) -> Vec<u8> {
    let length = if method == "POST" { "content-length: 0\r\n" } else { "" };
    format!("{method} /{path} HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: */*\r\n{headers}{length}\r\n").into_bytes()
}

/// Connections to one server, with their visitors.
pub(crate) struct Load(Vec<Connection>);

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    visitors: Vec<Visitor>,
    turn: usize,
}

struct Visitor {
    requests: [Vec<u8>; 3],
    visits: u64,
}

impl Load {
    /// Opens the connections, and has the server begin the visitors' sessions.
    pub(crate) async fn begin(address: SocketAddr, connections: usize, visitors: usize) -> io::Result<Self> {
        let mut open = Vec::with_capacity(connections);
        for at in 0..connections {
            let mut connection = Connection::open(address).await?;
            for _ in (at..visitors.max(connections)).step_by(connections) {
                connection.begin_visitor().await?;
            }
            open.push(connection);
        }
        Ok(Self(open))
    }

    /// Makes about so many requests, spread evenly, and returns how long each took.
    pub(crate) async fn run(&mut self, route: Route, requests: usize) -> io::Result<Vec<Duration>> {
        let each = requests.div_ceil(self.0.len());
        let tasks: Vec<_> = self.0.drain(..).map(|connection| tokio::spawn(connection.run(route, each))).collect();
        let mut took = Vec::with_capacity(each * tasks.len());
        for task in tasks {
            let (connection, times) = task.await.map_err(io::Error::other)??;
            self.0.push(connection);
            took.extend(times);
        }
        Ok(took)
    }
}

impl Connection {
    async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::with_capacity(4096), visitors: Vec::new(), turn: 0 })
    }

    async fn begin_visitor(&mut self) -> io::Result<()> {
        let answer = self.ask(&request("POST", "begin", "")).await?;
        let cookie = answer.cookie.ok_or_else(|| wrong("/begin", "sends no cookie"))?;
        let requests = Route::ALL.map(|route| route.request(&cookie));
        self.visitors.push(Visitor { requests, visits: Shopper::example().visits });
        Ok(())
    }

    async fn run(mut self, route: Route, requests: usize) -> io::Result<(Self, Vec<Duration>)> {
        let mut took = Vec::with_capacity(requests);
        for _ in 0..requests {
            let at = self.turn % self.visitors.len();
            self.turn += 1;
            let request = std::mem::take(&mut self.visitors[at].requests[route as usize]);
            let asked = Instant::now();
            let answer = self.ask(&request).await?;
            took.push(asked.elapsed());
            self.visitors[at].requests[route as usize] = request;
            self.visitors[at].check(route, &answer.body)?;
        }
        Ok((self, took))
    }

    async fn ask(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.received.clear();
        self.stream.write_all(request).await?;
        loop {
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(answer) = Answer::parse(&self.received)? {
                return Ok(answer);
            }
        }
    }
}

impl Visitor {
    /// A contender that is quick since it loses what it is told is found here.
    fn check(&mut self, route: Route, body: &str) -> io::Result<()> {
        let right = match route {
            Route::Untouched => body == "untouched",
            Route::Read => body == Shopper::example().name,
            Route::Write => {
                self.visits += 1;
                body == self.visits.to_string()
            }
        };
        if right { Ok(()) } else { Err(wrong(route.name(), &format!("answers {body:?}"))) }
    }
}

struct Answer {
    /// `name=value` of each Set-Cookie that is no removal. `None`: there is none.
    cookie: Option<String>,
    body: String,
}

impl Answer {
    /// `None`: not all of it is there yet.
    fn parse(received: &[u8]) -> io::Result<Option<Self>> {
        let text = std::str::from_utf8(received).map_err(io::Error::other)?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(None) };
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(wrong("the server", &format!("answers {:?}", head.lines().next())));
        }
        let (mut cookies, mut length) = (Vec::new(), None);
        for (name, value) in head.lines().filter_map(|line| line.split_once(": ")) {
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse().ok();
            } else if name.eq_ignore_ascii_case("set-cookie") {
                let pair = value
                    .split(';')
                    .next()
                    .filter(|pair| pair.split_once('=').is_some_and(|(_, value)| !value.is_empty()));
                cookies.extend(pair);
            }
        }
        let length: usize = length.ok_or_else(|| wrong("the server", "does not say how long its answer is"))?;
        let cookie = if cookies.is_empty() { None } else { Some(cookies.join("; ")) };
        Ok((body.len() >= length).then(|| Self { cookie, body: body.to_owned() }))
    }
}

fn wrong(who: &str, what: &str) -> io::Error {
    io::Error::other(format!("{who} {what}"))
}
