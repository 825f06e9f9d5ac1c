//! Tests of several servers: replicas, sentinels and clusters, and what a test can do to them.

#![allow(clippy::unwrap_used)]

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use redis_session_testkit::{Cluster, RedisServer, Replicas, Reply, Sentinels};

fn role(server: &RedisServer) -> String {
    server.run(&["ROLE"]).list()[0].text()
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what} does not come");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn replicas_follow_their_primary_also_after_a_restart() {
    let redis = Replicas::start_with(2, |options| options.password("secret"));
    redis.primary().run(&["SET", "k", "v"]);
    redis.wait_until_in_sync();
    let replica = &redis.replicas()[1];
    replica.restart();
    redis.primary().run(&["SET", "other", "v"]);
    redis.wait_until_in_sync();
    for replica in redis.replicas() {
        assert_eq!(replica.run(&["MGET", "k", "other"]).texts(), ["v", "v"]);
        assert_eq!(role(replica), "slave");
    }
    assert_eq!(redis.primary().run(&["WAIT", "2", "5000"]).int(), 2);
}

#[test]
fn sentinels_put_a_replica_in_the_place_of_a_primary_that_died() {
    let options = Sentinels::options().sentinel_password("guard");
    let redis = options.start_with(|options| options.password("secret").user("shop", "pw", "~* +@all"));
    assert_eq!((redis.servers().len(), redis.sentinels().len()), (3, 3));
    let hosts: Vec<_> = redis.sentinels().iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port())).collect();
    assert_eq!(redis.url(), format!("redis-sentinel://:secret@{}/{}", hosts.join(","), redis.name()));
    assert_eq!(redis.url_of("shop", "pw"), format!("redis-sentinel://shop:pw@{}/{}", hosts.join(","), redis.name()));

    let old = redis.primary();
    assert_eq!(old.port(), redis.servers()[0].port());
    old.run(&["SET", "k", "v"]);
    old.run(&["WAIT", "2", "5000"]);
    redis.sentinels()[0].pause();
    old.kill();
    let new = redis.wait_for_new_primary(old);
    assert_eq!(new.run(&["GET", "k"]).text(), "v");
    redis.sentinels()[0].resume();

    for sentinel in redis.sentinels() {
        // A sentinel believes an old primary after four of these, which are of two seconds.
        sentinel.run(&["SENTINEL", "DEBUG", "publish-period", "200"]);
    }
    old.restart();
    until("the old primary as a replica", || redis.who_is_primary().len() == 1 && role(old) == "slave");
    assert_eq!(redis.primary().port(), new.port());
    // It is kept for a restart.
    old.restart();
    assert_eq!(role(old), "slave");
}

#[test]
fn sentinels_fail_over_by_hand_again_and_again() {
    let redis = Sentinels::options().sentinels(1).start();
    assert_eq!(redis.sentinel_password(), None);
    let mut old = redis.primary().port();
    for number in 0..2 {
        redis.primary().run(&["SET", &format!("k{number}"), "v"]);
        redis.primary().run(&["WAIT", "2", "5000"]);
        let new = redis.failover();
        assert_ne!(new.port(), old);
        assert_eq!(new.run(&["GET", &format!("k{number}")]).text(), "v");
        old = new.port();
    }
}

#[test]
fn a_cluster_is_whole_and_each_key_is_at_its_primary() {
    let start = Instant::now();
    let cluster = Cluster::options().start_with(|options| options.password("secret"));
    eprintln!("3 primaries and 3 replicas started in {:?}", start.elapsed());
    assert_eq!(cluster.nodes().len(), 6);
    let mut homes = Vec::new();
    for number in 0..50 {
        let key = format!("k{number}");
        cluster.run_at(&key, &["SET", &key, "v"]);
        let primary = cluster.primary_of(&key);
        assert_eq!(primary.run(&["GET", &key]).text(), "v");
        let replicas = cluster.replicas_of(primary);
        assert_eq!(replicas.len(), 1);
        assert_eq!(role(replicas[0]), "slave");
        homes.push(primary.port());
    }
    homes.sort_unstable();
    homes.dedup();
    assert_eq!(homes.len(), 3);
    let hosts: Vec<_> = cluster.nodes().iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
    assert_eq!(cluster.url(), format!("redis-cluster://:secret@{}", hosts.join(",")));
    assert_eq!(cluster.url_of("shop", "pw"), format!("redis-cluster://shop:pw@{}", hosts.join(",")));
    // The slot that is given in the specification of the cluster.
    assert_eq!(cluster.slot_of("123456789"), 12_739);
}

#[test]
fn a_slot_moves_with_its_keys_and_can_be_held_half_way() {
    let cluster = Cluster::options().replicas(0).start_with(|options| options.password("secret"));
    let keys: Vec<_> = (0..250).map(|number| format!("{{cart}}{number}")).collect();
    for key in &keys {
        cluster.run_at(key, &["SET", key, "v"]);
    }
    let old = cluster.primary_of("{cart}");
    let new = cluster.nodes().iter().find(|node| node.port() != old.port()).unwrap();
    let slot = cluster.slot_of("{cart}");

    let moving = cluster.begin_move(slot, new);
    assert_eq!((moving.from().port(), moving.to().port()), (old.port(), new.port()));
    moving.move_key(&keys[0]);
    moving.move_key("{cart}nothing");
    let ask = old.command(&["GET", &keys[0]]);
    assert_eq!(ask.error().unwrap(), format!("ASK {slot} 127.0.0.1:{}", new.port()));
    assert!(new.command(&["GET", &keys[0]]).error().unwrap().starts_with("MOVED "));
    assert!(old.command(&["MGET", &keys[0], &keys[1]]).error().unwrap().starts_with("TRYAGAIN"));
    assert_eq!(cluster.primary_of(&keys[0]).port(), old.port());
    for key in &keys[..2] {
        assert_eq!(cluster.run_at(key, &["GET", key]).text(), "v");
    }
    assert_eq!(moving.move_keys(), keys.len() - 1);
    moving.finish();
    assert_eq!(cluster.primary_of(&keys[0]).port(), new.port());
    for key in &keys {
        assert_eq!(new.run(&["GET", key]).text(), "v");
    }
    for node in cluster.nodes().iter().filter(|node| node.port() != new.port()) {
        assert!(node.command(&["GET", &keys[0]]).error().unwrap().starts_with("MOVED "));
    }
    cluster.move_slot(slot, old);
    assert_eq!(old.run(&["GET", &keys[0]]).text(), "v");
}

#[test]
fn a_cluster_fails_over_by_hand_and_by_itself_and_nodes_come_back_as_themselves() {
    let cluster = Cluster::options().node_timeout(Duration::from_secs(1)).without_full_coverage().start();
    cluster.run_at("k", &["SET", "k", "v"]);
    let first = cluster.primary_of("k");
    first.run(&["WAIT", "1", "5000"]);
    let second = cluster.failover("k");
    assert_ne!(second.port(), first.port());
    assert_eq!(cluster.primary_of("k").port(), second.port());
    assert_eq!(second.run(&["GET", "k"]).text(), "v");

    let id = second.run(&["CLUSTER", "MYID"]);
    second.kill();
    assert_eq!(cluster.primary_of("k").port(), second.port(), "nobody else is known yet");
    let other = cluster.nodes().iter().find(|node| ![first.port(), second.port()].contains(&node.port())).unwrap();
    assert!(matches!(other.command(&["GET", "k"]), Reply::Error(error) if error.starts_with("MOVED ")));
    assert_eq!(cluster.wait_for_new_primary("k", second).port(), first.port());
    assert_eq!(cluster.run_at("k", &["GET", "k"]).text(), "v");

    second.restart();
    cluster.wait_until_well();
    assert_eq!(second.run(&["CLUSTER", "MYID"]), id);
    assert_eq!(role(second), "slave");

    first.pause();
    assert_eq!(cluster.wait_for_new_primary("k", first).port(), second.port());
    first.resume();
    cluster.wait_until_well();
    assert_eq!(role(first), "slave");
}

#[test]
fn a_node_whose_lines_are_cut_is_replaced_and_what_it_is_sent_comes_when_they_are_mended() {
    let options = Cluster::options().node_timeout(Duration::from_secs(1)).without_full_coverage().lines();
    let cluster = options.start();
    cluster.run_at("k", &["SET", "k", "v"]);
    let old = cluster.primary_of("k");
    let slot = cluster.slot_of("k");
    let serves = |node: &RedisServer| {
        let mut shards = cluster.shards().into_iter().filter(|(primary, _)| primary.port() == node.port());
        shards.any(|(_, slots)| slots.iter().any(|slots| slots.contains(&slot)))
    };
    assert!(serves(old) && cluster.shards().len() == 3);
    for other in cluster.nodes().iter().filter(|node| node.port() != old.port()) {
        cluster.cut(old, other);
    }
    assert_eq!(old.run(&["SET", "k", "of nobody else"]).text(), "OK");
    until("another primary", || cluster.primary_of("k").port() != old.port());
    let new = cluster.primary_of("k");
    assert!(serves(new) && !serves(old));
    until("it knows that it is alone", || old.command(&["GET", "k"]).error().is_some());
    cluster.mend();
    cluster.wait_until_well();
    assert_eq!((role(old).as_str(), cluster.run_at("k", &["GET", "k"]).text()), ("slave", "v".to_owned()));

    let url = cluster.url();
    let first = url.trim_start_matches("redis-cluster://").split(',').next().unwrap();
    let mut client = TcpStream::connect(first).unwrap();
    let mut answer = [0; 7];
    let mut ask = || {
        client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        client.write_all(b"PING\r\n").unwrap();
        client.read_exact(&mut answer).map(|()| answer)
    };
    assert_eq!(&ask().unwrap(), b"+PONG\r\n");
    cluster.cut_clients(&cluster.nodes()[0]);
    assert!(ask().is_err());
    cluster.mend();
    let mut late = Vec::new();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client.write_all(b"QUIT\r\n").unwrap();
    client.read_to_end(&mut late).unwrap();
    assert_eq!(late, b"+PONG\r\n+OK\r\n");
}

#[test]
fn a_cluster_of_one_serves_all_slots() {
    let cluster = Cluster::options().primaries(1).replicas(0).start();
    for key in ["a", "b", "c"] {
        assert_eq!(cluster.run_at(key, &["INCR", key]).int(), 1);
    }
    let refused = std::panic::catch_unwind(|| cluster.begin_move(0, &cluster.nodes()[0]).finish());
    assert!(refused.unwrap_err().downcast_ref::<String>().unwrap().contains("slot 0 is where it is to be moved"));
}
