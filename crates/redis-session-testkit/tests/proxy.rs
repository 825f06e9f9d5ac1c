//! Tests of the proxy, each before a real redis-server.

#![allow(clippy::unwrap_used)]

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::mpsc,
    time::Duration,
};

use redis_session_testkit::{Action, Proxy, RedisServer};

const UNTIL_RELEASED: Duration = Duration::MAX;

fn redis_behind_proxy() -> (RedisServer, Proxy) {
    let redis = RedisServer::start();
    let proxy = Proxy::start(redis.address());
    (redis, proxy)
}

/// A Redis behind a proxy, and another one; the key `k` says which is which.
fn old_behind_proxy_and_new() -> (RedisServer, Proxy, RedisServer) {
    let (redis, proxy) = redis_behind_proxy();
    let other = RedisServer::start();
    redis.run(&["SET", "k", "old"]);
    other.run(&["SET", "k", "new"]);
    (redis, proxy, other)
}

/// A client that speaks in plain bytes, so that a test sees what comes back and when the connection ends.
struct Client(TcpStream);

impl Client {
    fn of(proxy: &Proxy) -> Self {
        let stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self(stream)
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
    }

    fn expect(&mut self, wanted: &str) {
        let mut bytes = vec![0; wanted.len()];
        self.0.read_exact(&mut bytes).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), wanted);
    }

    /// Asks for the key `k`.
    fn reads(&mut self, value: &str) {
        self.send("GET k\r\n");
        self.expect(&format!("$3\r\n{value}\r\n"));
    }

    fn expect_end(&mut self) {
        let rest = self.0.read(&mut [0; 64]);
        assert!(
            matches!(&rest, Ok(0)) || rest.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset),
            "{rest:?}"
        );
    }
}

#[test]
fn what_passes_is_counted_and_unchanged() {
    let (redis, proxy) = redis_behind_proxy();
    let mut client = Client::of(&proxy);
    let set = "*3\r\n$3\r\nset\r\n$1\r\nk\r\n$5\r\na\r\n*1\r\n";
    client.send(set);
    client.expect("+OK\r\n");
    client.send("GET k\r\n");
    client.expect("$5\r\na\r\n*1\r\n");
    assert_eq!(redis.run(&["GET", "k"]).text(), "a\r\n*1");
    assert_eq!(proxy.counts().into_iter().collect::<Vec<_>>(), [("GET".to_owned(), 1), ("SET".to_owned(), 1)]);
    assert_eq!(proxy.bytes_to_server(), set.len() as u64 + 7);
    assert_eq!(proxy.bytes_to_client(), 5 + 11);
    assert_eq!(proxy.connections(), 1);
    proxy.reset_counts();
    assert_eq!((proxy.count("get"), proxy.bytes_to_client()), (0, 0));
}

#[test]
fn a_pipeline_that_arrives_in_pieces_is_answered_in_order() {
    let (_redis, proxy) = redis_behind_proxy();
    let mut client = Client::of(&proxy);
    let one =
        "*3\r\n$5\r\nRPUSH\r\n$1\r\nl\r\n$3\r\nabc\r\n*4\r\n$6\r\nLRANGE\r\n$1\r\nl\r\n$1\r\n0\r\n$2\r\n-1\r\nPING\r\n";
    client.0.set_nodelay(true).unwrap();
    for byte in one.as_bytes() {
        client.send([*byte]);
    }
    client.expect(":1\r\n*1\r\n$3\r\nabc\r\n+PONG\r\n");
    client.send("PING\r\n".repeat(1000));
    client.expect(&"+PONG\r\n".repeat(1000));
    assert_eq!(proxy.count("PING"), 1001);
}

#[test]
fn nested_and_resp3_replies_pass_whole() {
    let (redis, proxy) = redis_behind_proxy();
    redis.run(&["HSET", "h", "a", "1"]);
    redis.run(&["SADD", "s", "x"]);
    let mut client = Client::of(&proxy);
    client.send("MULTI\r\nHGETALL h\r\nSMEMBERS s\r\nGET none\r\nEXEC\r\n");
    client.expect("+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n*1\r\n$1\r\nx\r\n$-1\r\n");
    client.send("HELLO 3 SETNAME me\r\nCLIENT GETNAME\r\nHGETALL h\r\nSMEMBERS s\r\nGET none\r\n");
    client.expect("%7\r\n");
    let rest = "$2\r\nme\r\n%1\r\n$1\r\na\r\n$1\r\n1\r\n~1\r\n$1\r\nx\r\n_\r\n";
    let mut seen = String::new();
    while !seen.ends_with(rest) {
        let mut part = [0; 512];
        let count = client.0.read(&mut part).unwrap();
        assert_ne!(count, 0, "{seen:?}");
        seen.push_str(std::str::from_utf8(&part[..count]).unwrap());
    }
    // A map's replies were told apart: the fault meets the right one.
    proxy.fault_next("SMEMBERS", Action::DropReply);
    client.send("HGETALL h\r\nSMEMBERS s\r\n");
    client.expect("%1\r\n$1\r\na\r\n$1\r\n1\r\n");
    client.expect_end();
}

#[test]
fn messages_that_nobody_asked_for_pass() {
    let (redis, proxy) = redis_behind_proxy();
    redis.run(&["SET", "k", "1"]);
    let mut tracker = Client::of(&proxy);
    tracker.send("HELLO 3\r\nCLIENT TRACKING on\r\nGET k\r\n");
    let mut seen = Vec::new();
    while !seen.ends_with(b"+OK\r\n$1\r\n1\r\n") {
        let mut byte = [0];
        tracker.0.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
    redis.run(&["SET", "k", "2"]);
    tracker.expect(">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n");
    tracker.send("GET k\r\n");
    tracker.expect("$1\r\n2\r\n");
}

#[test]
fn a_command_whose_reply_is_lost_runs_exactly_once() {
    let (redis, proxy) = redis_behind_proxy();
    proxy.fault_next("incr", Action::DropReply);
    let mut client = Client::of(&proxy);
    client.send("PING\r\nINCR n\r\nINCR n\r\n");
    client.expect("+PONG\r\n");
    client.expect_end();
    assert_eq!(redis.run(&["GET", "n"]).int(), 1);
    let mut again = Client::of(&proxy);
    again.send("INCR n\r\n");
    again.expect(":2\r\n");
}

#[test]
fn a_cut_command_never_runs() {
    let (redis, proxy) = redis_behind_proxy();
    proxy.fault_next("INCR", Action::Cut);
    let mut client = Client::of(&proxy);
    client.send("PING\r\nINCR n\r\nPING\r\n");
    client.expect("+PONG\r\n");
    client.expect_end();
    assert_eq!(redis.command_count("INCR"), 0);
    assert_eq!(proxy.count("INCR"), 1);
}

#[tokio::test]
async fn a_command_held_from_a_client_that_was_cut_runs_later() {
    let (redis, proxy) = redis_behind_proxy();
    proxy.fault_next("INCR", Action::HoldThenSend { after: UNTIL_RELEASED, cut: true });
    let mut client = Client::of(&proxy);
    client.send("SELECT 3\r\nINCR n\r\n");
    client.expect("+OK\r\n");
    client.expect_end();
    proxy.until_held(1).await;
    assert_eq!(redis.command_count("INCR"), 0);

    proxy.release();
    proxy.until_settled().await;
    // On the connection that it came on: in its database.
    assert!(redis.run(&["GET", "n"]).is_nil());
    redis.run(&["SWAPDB", "0", "3"]);
    assert_eq!(redis.run(&["GET", "n"]).int(), 1);
}

#[tokio::test]
async fn a_held_command_holds_up_its_own_connection_only() {
    let (redis, proxy) = redis_behind_proxy();
    proxy.fault_next("INCR", Action::HoldThenSend { after: UNTIL_RELEASED, cut: false });
    let mut waiting = Client::of(&proxy);
    waiting.send("PING\r\nINCR n\r\nGET n\r\n");
    waiting.expect("+PONG\r\n");
    proxy.until_held(1).await;

    let mut other = Client::of(&proxy);
    other.send("SET n 10\r\n");
    other.expect("+OK\r\n");
    proxy.release();
    waiting.expect(":11\r\n$2\r\n11\r\n");
    proxy.until_settled().await;
    assert_eq!(redis.run(&["GET", "n"]).int(), 11);
}

#[tokio::test]
async fn a_held_command_runs_when_its_time_has_come_although_the_client_left() {
    let (redis, proxy) = redis_behind_proxy();
    proxy.fault_next("INCR", Action::HoldThenSend { after: Duration::from_millis(30), cut: false });
    let mut client = Client::of(&proxy);
    client.send("INCR n\r\n");
    proxy.until_held(1).await;
    drop(client);
    proxy.until_settled().await;
    assert_eq!(redis.run(&["GET", "n"]).int(), 1);
}

#[test]
fn an_answer_of_the_test_comes_in_its_turn() {
    let (redis, proxy) = redis_behind_proxy();
    proxy.fault_next("GET", Action::Answer(b"-LOADING Redis is loading the dataset in memory\r\n".to_vec()));
    let mut client = Client::of(&proxy);
    client.send("PING\r\nGET k\r\nGET k\r\n");
    client.expect("+PONG\r\n-LOADING Redis is loading the dataset in memory\r\n$-1\r\n");
    assert_eq!(redis.command_count("GET"), 1);
}

#[test]
fn a_fault_sees_the_arguments_and_the_connection() {
    let (_redis, proxy) = redis_behind_proxy();
    let (tell, told) = mpsc::channel();
    proxy.fault(move |command| {
        tell.send((command.clone(), command.has("k2"))).unwrap();
        Action::Pass
    });
    let mut first = Client::of(&proxy);
    first.send("set k1 v\r\n");
    first.expect("+OK\r\n");
    let mut second = Client::of(&proxy);
    second.send("set k2 v\r\n");
    second.expect("+OK\r\n");
    let (one, has_k2) = told.recv().unwrap();
    assert_eq!((one.name(), one.arg(0).as_str(), one.args().len(), one.connection()), ("SET", "k1", 2, 1));
    assert!(!has_k2);
    let (two, has_k2) = told.recv().unwrap();
    assert_eq!(two.connection(), 2);
    assert!(has_k2);
}

#[test]
fn a_killed_server_cuts_its_clients_and_a_restarted_one_is_found_again() {
    let (redis, proxy) = redis_behind_proxy();
    let mut client = Client::of(&proxy);
    client.send("PING\r\n");
    client.expect("+PONG\r\n");
    redis.kill();
    client.expect_end();
    Client::of(&proxy).expect_end();
    redis.restart();
    let mut again = Client::of(&proxy);
    again.send("PING\r\n");
    again.expect("+PONG\r\n");
}

#[test]
fn a_proxy_that_leads_elsewhere_cuts_its_clients_and_serves_new_ones_from_there() {
    let (_redis, proxy, other) = old_behind_proxy_and_new();
    let mut client = Client::of(&proxy);
    client.reads("old");
    proxy.lead_to(other.address());
    client.expect_end();
    let mut again = Client::of(&proxy);
    again.reads("new");
}

#[test]
fn a_proxy_that_leads_new_clients_elsewhere_leaves_the_others_where_they_are_until_it_cuts_them() {
    let (_redis, proxy, other) = old_behind_proxy_and_new();
    let mut client = Client::of(&proxy);
    client.reads("old");
    proxy.lead_new_to(other.address());
    let mut second = Client::of(&proxy);
    second.reads("new");
    client.reads("old");
    proxy.lead_to(other.address());
    client.expect_end();
    second.expect_end();
}

#[test]
fn a_slow_line_delays_replies_and_not_one_after_the_other() {
    let (_redis, proxy) = redis_behind_proxy();
    let slow = Duration::from_millis(200);
    proxy.fault(move |_| Action::Delay(slow));
    let mut client = Client::of(&proxy);
    let start = std::time::Instant::now();
    client.send("PING\r\n".repeat(20));
    client.expect(&"+PONG\r\n".repeat(20));
    assert!((slow..10 * slow).contains(&start.elapsed()), "{:?}", start.elapsed());
}

#[test]
fn replies_are_swapped_between_two_connections() {
    let (redis, proxy) = redis_behind_proxy();
    redis.run(&["MSET", "a", "1", "b", "2"]);
    proxy.fault(|command| if command.name() == "GET" { Action::Swap } else { Action::Pass });
    let (mut one, mut two) = (Client::of(&proxy), Client::of(&proxy));
    one.send("GET a\r\nPING\r\n");
    two.send("GET b\r\nPING\r\n");
    one.expect("$1\r\n2\r\n+PONG\r\n");
    two.expect("$1\r\n1\r\n+PONG\r\n");
}

#[test]
fn replies_shift_by_one_too_many_or_one_too_few() {
    let (redis, proxy) = redis_behind_proxy();
    redis.run(&["MSET", "a", "1", "b", "2"]);
    proxy.fault_next("GET", Action::AnswerAndShift(b"+OK\r\n".to_vec()));
    let mut client = Client::of(&proxy);
    client.send("GET a\r\nGET b\r\nPING\r\n");
    client.expect("+OK\r\n$1\r\n1\r\n$1\r\n2\r\n");
    client.send("GET a\r\n");
    client.expect("+PONG\r\n");
    proxy.fault_next("GET", Action::LoseReply);
    let mut client = Client::of(&proxy);
    client.send("GET a\r\nGET b\r\nPING\r\n");
    client.expect("$1\r\n2\r\n+PONG\r\n");
}

#[test]
fn a_dropped_proxy_cuts_its_clients() {
    let (_redis, proxy) = redis_behind_proxy();
    let mut client = Client::of(&proxy);
    client.send("PING\r\n");
    client.expect("+PONG\r\n");
    drop(proxy);
    client.expect_end();
}
