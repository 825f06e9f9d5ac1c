//! Lists of users' sessions over time: what is left when sessions expire, what a lost list costs, and what one takes.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use redis_session::{KeyRing, RedisSessionLayer};
use redis_session_core::ENTRY_STAYS;
use redis_session_testkit::{Browser, RedisServer};

use super::accounts::{Kept, told};
use super::{Visitor, patient_store, shop};
use crate::visitor::make_older;

const IDLE: Duration = Duration::from_secs(30 * 60);
const TOUCH_INTERVAL: Duration = Duration::from_secs(60);

struct Place {
    redis: RedisServer,
    visitor: Browser<Router>,
}

impl Place {
    async fn open() -> Self {
        let redis = RedisServer::start();
        let layer = RedisSessionLayer::with_store(patient_store(&redis.url()).await, KeyRing::random().unwrap());
        Self { visitor: Browser::new(shop(layer)), redis }
    }

    async fn log_in(&self, user: &str) -> Browser<Router> {
        let visitor = self.visitor.stranger();
        assert_eq!(visitor.get(&format!("/people/log-in/{user}")).await.status, 200);
        visitor
    }

    async fn list(&self, user: &str) -> Vec<String> {
        serde_json::from_str(&self.visitor.get(&format!("/people/list/{user}")).await.body).unwrap()
    }

    /// How many sessions a revocation of all of a user's ended.
    async fn revoke_all(&self, user: &str) -> usize {
        let page = self.visitor.get(&format!("/people/revoke-all/{user}")).await;
        assert_eq!(page.status, 200);
        told(&page).1.parse().unwrap()
    }

    fn lists(&self) -> Vec<String> {
        self.redis.run(&["KEYS", "sess:main:user:*"]).texts()
    }

    fn pass(&self, time: Duration) {
        make_older(&self.redis, time.as_millis() as i64);
    }
}

#[tokio::test]
async fn r77_of_1000_sessions_that_expire_nothing_is_left_a_minute_later() {
    let place = Place::open().await;
    for nth in 0..1000 {
        place.log_in(&format!("user{}", nth / 10)).await;
    }
    let records = |redis: &RedisServer| redis.run(&["KEYS", "sess:main:??????????????????????"]).list().len();
    let before = Kept::of(&place.redis);
    assert_eq!((before.living.len(), before.entries.len(), before.endless), (1000, 1000, 0));
    // A touch comes so late at most, so an idle session lives so much longer.
    place.pass(IDLE + TOUCH_INTERVAL);
    let (kept, dead) = (records(&place.redis), Kept::of(&place.redis).entries.len());
    place.pass(ENTRY_STAYS);
    let (keys, entries) = (place.redis.run(&["DBSIZE"]).int(), Kept::of(&place.redis).entries.len());
    println!(
        "1000 sessions of 100 users, {} s idle: {kept} records, {dead} entries; {} s later: {keys} keys, {entries} entries",
        (IDLE + TOUCH_INTERVAL).as_secs(),
        ENTRY_STAYS.as_secs()
    );
    assert_eq!((kept, keys, entries), (0, 0, 0));
}

#[tokio::test]
async fn r76_a_list_lost_under_100_living_sessions_is_whole_after_one_touch_interval_of_traffic() {
    let place = Place::open().await;
    let mut visitors = Vec::new();
    for _ in 0..100 {
        visitors.push(place.log_in("ada").await);
    }
    for list in place.lists() {
        place.redis.run(&["DEL", &list]);
    }
    let (listed, ended) = (place.list("ada").await.len(), place.revoke_all("ada").await);
    let missed = Kept::of(&place.redis).living.len();
    place.pass(TOUCH_INTERVAL);
    let mut alive = 0;
    for visitor in &visitors {
        alive += usize::from(visitor.get("/people/user").await.body == "ada");
    }
    let (again, ended_again) = (place.list("ada").await.len(), place.revoke_all("ada").await);
    let left = Kept::of(&place.redis).living.len();
    println!(
        "the list deleted under 100 sessions: {listed} listed, a revocation of all ends {ended} and misses {missed}; after a touch \
         interval of traffic {alive} alive, {again} listed, and a revocation ends {ended_again} and misses {left}"
    );
    assert_eq!((listed, ended, missed), (0, 0, 100));
    assert_eq!((alive, again, ended_again, left), (100, 100, 100, 0));
}

#[tokio::test]
async fn a_list_takes_so_much_memory_for_each_session() {
    let place = Place::open().await;
    let mut bytes = BTreeMap::new();
    for count in [1, 10, 100] {
        let user = format!("user{count}");
        let before = place.lists();
        for _ in 0..count {
            place.log_in(&user).await;
        }
        let list = place.lists().into_iter().find(|list| !before.contains(list)).unwrap();
        bytes.insert(count, place.redis.memory_of(&list));
    }
    for (count, bytes) in &bytes {
        println!("the list of {count} sessions: {bytes} bytes, {} a session", bytes / count);
    }
    // The same record with and without its login.
    place.redis.run(&["FLUSHALL"]);
    let visitor = place.visitor.stranger();
    assert_eq!(visitor.get("/push/7").await.status, 200);
    assert_eq!(visitor.get("/people/log-in/1234567").await.status, 200);
    assert_eq!(Visitor::on(&visitor.get("/read").await).cart, [7]);
    let key = place.redis.run(&["KEYS", "sess:main:??????????????????????"]).texts().remove(0);
    let value = place.redis.run(&["HGET", &key, "@user"]).text();
    let with = place.redis.memory_of(&key);
    place.redis.run(&["HDEL", &key, "@user"]);
    let without = place.redis.memory_of(&key);
    println!("the field @user of a record: a value of {} bytes, {} bytes of {with}", value.len(), with - without);
    assert!(with > without && bytes[&100] / 100 < 200, "{bytes:?}");
}
