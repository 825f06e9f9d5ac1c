//! Tests of the own redis-server: its life, its statistics and its end.

#![allow(clippy::unwrap_used)]

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use redis_session_testkit::{RedisServer, Reply};

#[test]
fn a_server_is_empty_and_answers_at_once() {
    let redis = RedisServer::start();
    assert_eq!(redis.run(&["DBSIZE"]), Reply::Int(0));
    assert_eq!(redis.url(), format!("redis://127.0.0.1:{}", redis.port()));
    redis.run(&[&b"SET"[..], b"k", b"\xff\r\n\0"]);
    assert_eq!(redis.run(&["GET", "k"]).bytes(), b"\xff\r\n\0");
}

#[test]
fn settings_reach_the_server() {
    let redis = RedisServer::start_with(&[("hash-max-listpack-value", "1024")]);
    let settings = redis.run(&["CONFIG", "GET", "hash-max-listpack-value"]).map();
    assert_eq!(settings["hash-max-listpack-value"], "1024");
}

#[test]
#[should_panic(expected = "redis-server refuses its settings")]
fn a_wrong_setting_is_named() {
    let _ = RedisServer::start_with(&[("no-such-setting", "1")]);
}

#[test]
fn a_killed_server_refuses_connections_and_comes_back_empty_on_its_port() {
    let redis = RedisServer::start();
    redis.run(&["SET", "k", "v"]);
    redis.kill();
    assert!(TcpStream::connect(redis.address()).is_err());
    redis.kill();
    redis.restart();
    assert!(redis.run(&["GET", "k"]).is_nil());
    redis.restart();
    assert_eq!(redis.run(&["PING"]).text(), "PONG");
}

#[test]
fn a_server_with_a_password_lets_in_its_test_and_nobody_without() {
    let redis = RedisServer::options().password(r#"it's "a \ secret"#).start();
    assert_eq!(redis.run(&["SET", "k", "v"]).text(), "OK");
    assert!(!format!("{redis:?}").contains("secret"));
    redis.restart();
    assert!(redis.run(&["GET", "k"]).is_nil());
}

#[test]
fn a_connection_that_the_server_has_closed_is_made_anew() {
    let redis = RedisServer::start();
    redis.run(&["PING"]);
    let mut other = TcpStream::connect(redis.address()).unwrap();
    other.write_all(b"CLIENT KILL TYPE normal SKIPME yes\r\n").unwrap();
    assert_eq!(other.read(&mut [0; 16]).unwrap(), b":1\r\n".len());
    assert_eq!(redis.run(&["PING"]).text(), "PONG");
}

#[test]
fn what_a_setting_keeps_on_disk_is_there_after_a_restart() {
    let settings = [[("appendonly", "yes"), ("appendfsync", "always")], [("save", "3600 1"), ("rdbcompression", "no")]];
    for settings in settings {
        let redis = RedisServer::start_with(&settings);
        redis.run(&["SET", "k", "v"]);
        redis.stop();
        redis.stop();
        redis.restart();
        assert_eq!(redis.run(&["GET", "k"]).text(), "v", "{settings:?}");
    }
}

#[test]
fn a_paused_server_answers_only_once_it_is_resumed() {
    let redis = RedisServer::start();
    redis.run(&["SET", "k", "v"]);
    redis.pause();
    let state = std::fs::read_to_string(format!("/proc/{}/stat", process_of(&redis))).unwrap();
    assert!(state.contains(") T "), "{state}");
    redis.resume();
    assert_eq!(redis.run(&["GET", "k"]).text(), "v");
}

// From /proc, since a paused server cannot be asked; it writes its address into its command line.
fn process_of(redis: &RedisServer) -> String {
    let port = format!("127.0.0.1:{}", redis.port());
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|entry| std::fs::read_to_string(entry.path().join("cmdline")).is_ok_and(|line| line.contains(&port)))
        .find_map(|entry| entry.file_name().into_string().ok())
        .expect("the server is running")
}

#[test]
fn the_counts_are_those_of_the_commands_that_ran() {
    let redis = RedisServer::start();
    assert!(redis.command_counts().is_empty());
    redis.run(&["SET", "k", "v"]);
    redis.run(&["GET", "k"]);
    redis.run(&["GET", "k"]);
    redis.run(&["INFO"]);
    let counts: Vec<_> = redis.command_counts().into_iter().collect();
    assert_eq!(counts, [("GET".to_owned(), 2), ("INFO".to_owned(), 1), ("SET".to_owned(), 1)]);
    assert_eq!(redis.command_count("get"), 2);
    redis.reset_stats();
    assert!(redis.command_counts().is_empty());
    redis.restart();
    assert!(redis.command_counts().is_empty());
}

#[test]
fn memory_and_processor_time_are_told() {
    let redis = RedisServer::start();
    redis.run(&["SET", "small", "v"]);
    redis.run(&["SET", "large", &"v".repeat(10_000)]);
    assert!(redis.memory_of("small") < 200);
    assert!(redis.memory_of("large") > 10_000);
    let before = redis.used_cpu_micros();
    redis.run(&["EVAL", "for i = 1, 300000 do redis.sha1hex('x') end", "0"]);
    assert!(redis.used_cpu_micros() > before);
}

#[test]
fn an_error_is_a_reply_of_command_and_the_end_of_run() {
    let redis = RedisServer::start();
    assert!(redis.command(&["NO-SUCH"]).error().unwrap().starts_with("ERR unknown command"));
    let refused = std::panic::catch_unwind(|| redis.run(&["NO-SUCH"]));
    assert!(refused.unwrap_err().downcast_ref::<String>().unwrap().starts_with("redis refused NO-SUCH"));
    assert_eq!(redis.run(&["PING"]).text(), "PONG");
}

#[test]
fn many_servers_start_at_the_same_time() {
    let starts: Vec<_> = (0..8).map(|_| thread::spawn(RedisServer::start)).collect();
    let servers: Vec<_> = starts.into_iter().map(|start| start.join().unwrap()).collect();
    for (number, redis) in servers.iter().enumerate() {
        redis.run(&["SET", "me", &number.to_string()]);
    }
    for (number, redis) in servers.iter().enumerate() {
        assert_eq!(redis.run(&["GET", "me"]).int(), i64::try_from(number).unwrap());
    }
}

/// Runs itself again in a process that aborts, which drops nothing.
#[test]
fn a_server_ends_with_a_test_process_that_dies() {
    const IN_CHILD: &str = "REDIS_SESSION_TESTKIT_CHILD";
    if let Some(file) = std::env::var_os(IN_CHILD) {
        let redis = RedisServer::start();
        std::fs::write(file, redis.port().to_string()).unwrap();
        std::process::abort();
    }
    let file = std::env::temp_dir().join(format!("redis-session-testkit-port-{}", std::process::id()));
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "a_server_ends_with_a_test_process_that_dies"]).env(IN_CHILD, &file);
    assert!(!child.output().unwrap().status.success());
    let port: u16 = std::fs::read_to_string(&file).unwrap().parse().unwrap();
    std::fs::remove_file(&file).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while TcpStream::connect(("127.0.0.1", port)).is_ok() {
        assert!(Instant::now() < deadline, "the server outlived its test");
        thread::sleep(Duration::from_millis(5));
    }
}
