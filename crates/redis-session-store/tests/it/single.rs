//! One server at a name that comes to lead to another one, while the old one lives on as a replica.

#![allow(clippy::print_stdout)] // figures

use std::time::{Duration, Instant};

use redis_session_core::{Replication, Saved, Store, Stored};
use redis_session_store::{RedisStore, ServerStatus};
use redis_session_testkit::{Proxy, Replicas};

use crate::deploy::{USERS, rights};
use crate::{Visitor, count, token, until};

const MS: Duration = Duration::from_millis(1);

/// A primary and its replica, behind a name that leads to the primary.
struct Moving {
    redis: Replicas,
    name: Proxy,
    store: RedisStore,
}

impl Moving {
    /// By the rule that is printed.
    async fn start() -> Self {
        Self::start_with(&[rights(USERS), vec!["+wait"]].concat()).await
    }

    async fn start_with(rights: &[&str]) -> Self {
        let redis = Replicas::start_with(1, |options| options.user("shop", "password", &rights.join(" ")));
        let name = Proxy::start(redis.primary().address());
        let store = RedisStore::options(&name.url()).user("shop").password("password").connect().await.unwrap();
        redis.wait_until_in_sync();
        Self { redis, name, store }
    }

    /// With a session, and the server that the name leads to a replica since.
    async fn demoted() -> (Self, Visitor) {
        let (moving, visitor) = (Self::start().await, Visitor::new());
        visitor.born(&moving.store, &[]).await;
        moving.redis.wait_until_in_sync();
        moving.change_places();
        (moving, visitor)
    }

    /// The replica takes over, and the primary becomes its replica.
    fn change_places(&self) {
        let (old, new) = (self.redis.primary(), &self.redis.replicas()[0]);
        new.run(&["REPLICAOF", "NO", "ONE"]);
        old.run(&["REPLICAOF", "127.0.0.1", &new.port().to_string()]);
    }

    fn status(&self) -> ServerStatus {
        self.store.servers().remove(0)
    }

    /// Lets a write be refused, and the name be looked at for it.
    async fn look(&self, visitor: &Visitor) {
        let connections = self.name.connections();
        until("a look at the name", async || {
            assert!(!self.counts(visitor).await, "by whom?");
            self.name.connections() > connections
        })
        .await;
    }

    fn move_name(&self) {
        self.name.lead_new_to(self.redis.replicas()[0].address());
    }

    async fn counts(&self, visitor: &Visitor) -> bool {
        let Some(Stored::Record(record)) = self.store.load(&visitor.key).await.unwrap() else {
            panic!("a session is gone")
        };
        let save = visitor.merge(record.tokens.newest(), count("n"));
        matches!(self.store.save(&visitor.key, &save).await, Ok(Saved::Saved { .. }))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_to_the_server_that_a_name_leads_to_once_the_old_one_is_a_replica() {
    for moved_after in [0, 300, 1000] {
        let moving = Moving::start().await;
        let visitor = Visitor::new();
        visitor.born(&moving.store, &[]).await;
        assert!(moving.counts(&visitor).await);
        moving.redis.wait_until_in_sync();
        moving.change_places();
        let demoted = Instant::now();
        while demoted.elapsed() < moved_after * MS {
            assert!(!moving.counts(&visitor).await, "by whom?");
            tokio::time::sleep(5 * MS).await;
        }
        moving.move_name();
        let took = until("the first write", async || moving.counts(&visitor).await).await;
        println!("a name that moved {moved_after} ms after its server was demoted: writes are taken {took:?} later");
        // Half a second, and what a busy machine may add.
        assert!(took < 500 * MS + 500 * MS, "{took:?}");
        let new = &moving.redis.replicas()[0];
        assert_eq!(new.run(&["HGET", &visitor.name(), "n"]).text(), "2");
        // One that waits for replicas as well.
        let other = Visitor::new();
        let wait = Replication { replicas: 1, within: 10_000 * MS };
        let made = moving.store.create_durably(&other.key, &other.create(&[]), wait).await.unwrap();
        assert!(made.missed.is_none(), "{:?}", made.missed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_comes_after_the_name_has_moved_is_made_there_at_once() {
    let (moving, _) = Moving::demoted().await;
    moving.move_name();
    let other = Visitor::new();
    // It waits until the name is connected to, unless that takes longer than its deadline.
    let begun = Instant::now();
    let created = moving.store.create(&other.key, &other.create(&[])).await;
    println!("the first write after the move was answered after {:?}: {created:?}", begun.elapsed());
    assert!(created.is_ok(), "{created:?}");
    assert_eq!(moving.name.connections(), 2 + 1, "one look at start, one connection, and another one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_moves_while_the_old_server_takes_writes_is_followed_once_that_one_closes_its_connections() {
    let moving = Moving::start().await;
    let (old, new) = (moving.redis.primary(), &moving.redis.replicas()[0]);
    new.run(&["REPLICAOF", "NO", "ONE"]);
    moving.move_name();
    let visitor = Visitor::new();
    visitor.born(&moving.store, &[]).await;
    assert_eq!([old, new].map(|server| server.run(&["EXISTS", &visitor.name()]).int()), [1, 0]);
    old.run(&["CLIENT", "KILL", "TYPE", "normal"]);
    let other = Visitor::new();
    until("the connection", async || moving.store.create(&other.key, &other.create(&[])).await.is_ok()).await;
    assert_eq!(new.run(&["EXISTS", &other.name()]).int(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stays_a_replica_is_left_in_peace_and_serves_every_read() {
    let (moving, visitor) = Moving::demoted().await;
    assert!(!moving.counts(&visitor).await, "by whom?");
    let (before, connections, begun) = (moving.status(), moving.name.connections(), Instant::now());
    let (mut reads, mut refused, mut slowest) = (0, 0, Duration::ZERO);
    let mut of_last = 0;
    while begun.elapsed() < 6000 * MS {
        let read = Instant::now();
        assert!(moving.store.load(&visitor.key).await.unwrap().is_some());
        slowest = slowest.max(read.elapsed());
        reads += 1;
        if reads % 10 == 0 {
            assert!(moving.store.create(&Visitor::new().key, &visitor.create(&[])).await.is_err());
            refused += 1;
            assert!(!moving.status().is_primary, "it is a replica");
        }
        if begun.elapsed() < 4500 * MS {
            of_last = moving.name.connections();
        }
        tokio::time::sleep(MS).await;
    }
    let (all, last) = (moving.name.connections() - connections, moving.name.connections() - of_last);
    println!(
        "a replica for six seconds: {refused} writes refused, {all} new connections, {last} in the last second and a half; \
         {reads} reads, all served, the slowest after {slowest:?}"
    );
    assert!((1..=2).contains(&last), "{last}");
    assert!(all <= 24, "{all}");
    // Of those who came to look, none took the place of the first, and what is counted goes on.
    let after = moving.status();
    assert!(after.commands >= before.commands + reads + refused, "{before:?} {after:?}");
    assert!(after.refused >= before.refused + refused, "{before:?} {after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_walk_over_a_server_that_stays_a_replica_comes_to_its_end() {
    let (moving, visitor) = Moving::demoted().await;
    // More than one step of a walk looks at.
    let new = &moving.redis.replicas()[0];
    new.run(&["EVAL", "for i = 1, 5000 do redis.call('HSET', 'other:' .. i, 'a', 'b') end", "0"]);
    until("the same on both", async || moving.redis.primary().run(&["DBSIZE"]).int() == 5001).await;
    let (realm, mut from, mut found, mut pages) = ("main".into(), None, 0, 0);
    loop {
        let page = moving.store.page(&realm, from).await.unwrap();
        (found, pages) = (found + page.sessions.len(), pages + 1);
        let Some(next) = page.next else { break };
        from = Some(next);
        assert!(pages < 20, "a walk without an end");
        moving.look(&visitor).await;
    }
    assert!(pages > 3 && found == 1, "{found} found on {pages} pages");
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_do_not_wait_again_for_a_replica_that_answers_what_needs_no_write() {
    let (moving, visitor) = Moving::demoted().await;
    // The first moments are waited out.
    for _ in 0..3 {
        assert!(!moving.counts(&visitor).await, "by whom?");
    }
    for _ in 0..5 {
        let nobody = Visitor::new();
        let gone = moving.store.save(&nobody.key, &nobody.merge(token(), count("n"))).await.unwrap();
        assert!(matches!(gone, Saved::Gone), "{gone:?}");
        let refused = moving.status().refused;
        assert!(moving.store.create(&nobody.key, &nobody.create(&[])).await.is_err());
        assert_eq!(moving.status().refused, refused + 1, "it was told at once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_becomes_a_primary_again_in_its_place_is_called_one() {
    let (moving, visitor) = Moving::demoted().await;
    // Whoever has the name answers nobody.
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    moving.name.lead_new_to(nobody);
    moving.look(&visitor).await;
    assert!(!moving.status().is_primary);
    moving.redis.primary().run(&["REPLICAOF", "NO", "ONE"]);
    assert!(moving.counts(&visitor).await);
    assert!(moving.status().is_primary && moving.status().is_well);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_not_ask_who_takes_writes_is_led_there_too() {
    let rights: Vec<_> = rights(USERS).into_iter().filter(|right| *right != "+info").collect();
    let (moving, visitor) = (Moving::start_with(&rights).await, Visitor::new());
    visitor.born(&moving.store, &[]).await;
    moving.redis.wait_until_in_sync();
    moving.change_places();
    moving.look(&visitor).await;
    moving.move_name();
    until("the first write", async || moving.counts(&visitor).await).await;
    assert!(moving.status().is_primary, "it took a write");
}
