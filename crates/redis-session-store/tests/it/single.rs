//! One server at a name that comes to lead to another one, while the old one lives on as a replica.

#![allow(clippy::print_stdout)] // figures

use std::time::{Duration, Instant};

use redis_session_core::{Replication, Saved, Store, Stored};
use redis_session_store::RedisStore;
use redis_session_testkit::{Proxy, Replicas};

use crate::{Visitor, count, until};

const MS: Duration = Duration::from_millis(1);

/// A primary and its replica, behind a name that leads to the primary.
struct Moving {
    redis: Replicas,
    name: Proxy,
    store: RedisStore,
}

impl Moving {
    async fn start() -> Self {
        let redis = Replicas::start(1);
        let name = Proxy::start(redis.primary().address());
        let store = RedisStore::connect(&name.url()).await.unwrap();
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
async fn a_server_that_stays_a_replica_is_left_in_peace_and_serves_every_read() {
    let (moving, visitor) = Moving::demoted().await;
    let (connections, begun) = (moving.name.connections(), Instant::now());
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
    assert!(all <= 20, "{all}");
}
