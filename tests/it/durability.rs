//! Writes that wait for replicas, over HTTP: what stands, what the handler, the client and an observer are told.

use std::time::{Duration, Instant};

use redis_session::{Durability, Error, Event, Expiry, KeyRing, MemoryStore, Reason, RedisSessionLayer, Status};
use redis_session_core::User;
use redis_session_testkit::{Cluster, RedisServer, Replicas};

use crate::visitor::{Answer, Place, Visitor};
use crate::watched::patient;

const MS: Duration = Duration::from_millis(1);
const BOTH: Durability = Durability::Replicated { replicas: 2, within: Duration::from_millis(200) };

/// A primary with two replicas, and sessions on it.
async fn place(redis: &Replicas, durability: Durability) -> Place {
    place_at(&redis.primary().url(), durability).await
}

async fn place_at(url: &str, durability: Durability) -> Place {
    let store = patient(url, Duration::from_secs(10)).await;
    let expiry = Expiry::idle(Duration::from_secs(1800));
    let layer = RedisSessionLayer::with_store(store, KeyRing::random().unwrap()).expiry(expiry).durability(durability);
    Place::around(layer, None)
}

/// The write stands, and whoever waited for it was told that it may be lost.
fn is_told<V>(place: &Place, answer: &Answer<V>) {
    let error = answer.error.as_ref().expect("an error");
    assert!(error.is_not_replicated() && error.to_string().contains(" of 2 replicas after "), "{error}");
    assert_eq!((answer.page.status.as_u16(), answer.page.body.as_str()), (503, ""));
    assert_eq!(answer.page.header("retry-after").as_deref(), Some("1"));
    let events = place.events.take();
    assert!(events.contains(&Event::NotReplicated), "{events:?}");
    assert!(!events.iter().any(|event| matches!(event, Event::StoreFailed(_))), "{events:?}");
}

async fn visits(visitor: &Visitor) -> Option<u64> {
    visitor.visit(async |session| session.get("visits")).await
}

#[tokio::test]
async fn writes_that_reach_their_replicas_are_answered_as_ever() {
    let redis = Replicas::start(2);
    let patient = Durability::Replicated { replicas: 2, within: Duration::from_secs(10) };
    let place = place(&redis, patient).await;
    let visitor = place.visitor();
    visitor.visit(async |session| session.increment("visits", 1)).await;
    visitor.visit(async |session| session.increment("visits", 1)).await;
    visitor.visit(async |session| session.log_in("ada").await).await;
    let thief = visitor.copy();
    let on_replica = redis.replicas()[1].run(&["KEYS", "sess:*"]).texts();
    assert_eq!(on_replica.len(), 2, "the session and the list: {on_replica:?}");
    assert_eq!(visits(&visitor).await, Some(2));
    visitor.visit(async |session| session.rotate().await).await;
    visitor.visit(async |session| session.log_out().await).await;
    assert_eq!(thief.visit(async |session| Ok(session.status())).await, Status::Ended(Reason::LoggedOut));
    assert!(!place.events.take().contains(&Event::NotReplicated));
    // One for each, and one behind each of three scripts that this Redis had to be told first.
    assert_eq!(redis.primary().command_count("WAIT"), 5 + 3);
}

#[tokio::test]
async fn r87_a_commit_that_misses_its_replicas_stands_and_is_told() {
    let redis = Replicas::start(2);
    let place = place(&redis, BOTH).await;
    redis.replicas()[0].pause();
    let visitor = place.visitor();
    let begun = Instant::now();
    is_told(&place, &visitor.try_visit(async |session| session.increment("visits", 1)).await);
    assert!(begun.elapsed() >= 200 * MS && begun.elapsed() < 3000 * MS, "{:?}", begun.elapsed());
    assert!(visitor.cookie().is_some(), "the session has begun");
    assert_eq!(visits(&visitor).await, Some(1), "once, and reading waits for nothing");

    // What was asked for now is told to the handler, and not once more to the client.
    let saved = async |session: redis_session::Session| {
        session.increment("visits", 1)?;
        assert!(session.save().await.unwrap_err().is_not_replicated());
        assert!(session.rotate().await.unwrap_err().is_not_replicated());
        assert!(session.remember(Duration::from_secs(3600)).await.unwrap_err().is_not_replicated());
        let mut view = session.view::<std::collections::BTreeMap<String, u64>>()?;
        let change = view.transaction(|visits| {
            *visits.get_mut("visits").unwrap() += 1;
            Ok::<_, redis_session::Error>(())
        });
        assert!(change.await.unwrap_err().is_not_replicated());
        Ok(())
    };
    visitor.visit(saved).await;
    assert_eq!(visits(&visitor).await, Some(3), "all of it stands, and the newest cookie leads there");
    let events = place.events.take();
    assert_eq!(events.iter().filter(|event| **event == Event::NotReplicated).count(), 4, "{events:?}");
    assert!(events.contains(&Event::Rotated) && events.contains(&Event::Remembered), "{events:?}");
}

#[tokio::test]
async fn a_login_that_misses_its_replicas_stands_and_is_told() {
    let redis = Replicas::start(2);
    let place = place(&redis, BOTH).await;
    redis.replicas()[0].pause();
    for had_a_session in [false, true] {
        let visitor = place.visitor();
        if had_a_session {
            let fast = async |session: redis_session::Session| {
                session.durability(Durability::Fast)?;
                session.insert("cart", &["tea"])
            };
            visitor.visit(fast).await;
        }
        is_told(&place, &visitor.try_visit(async |session| session.log_in("ada").await).await);
        assert_eq!(visitor.visit(async |session| session.user()).await, Some("ada".to_owned()));
        assert_eq!(place.layer.sessions().list("ada").await.unwrap().len(), 1 + usize::from(had_a_session));
    }
}

#[tokio::test]
async fn r88_a_logout_that_misses_its_replicas_stands_removes_the_cookie_and_is_told() {
    let redis = Replicas::start(2);
    let place = place(&redis, Durability::Fast).await;
    for logged_in in [false, true] {
        redis.replicas()[0].resume();
        let visitor = place.visitor();
        visitor.visit(async |session| session.increment("visits", 1)).await;
        if logged_in {
            visitor.visit(async |session| session.log_in("ada").await).await;
        }
        let thief = visitor.copy();
        place.events.take();
        redis.wait_until_in_sync();
        redis.replicas()[0].pause();
        let log_out = async |session: redis_session::Session| {
            session.durability(BOTH)?;
            session.log_out().await
        };
        is_told(&place, &visitor.try_visit(log_out).await);
        assert_eq!(visitor.cookie(), None);
        let status = thief.visit(async |session| Ok(session.status())).await;
        assert_eq!(status, Status::Ended(Reason::LoggedOut));
        assert!(place.layer.sessions().list("ada").await.unwrap().is_empty());
    }
}

/// The first answer may have got lost, and the browser asks again.
#[tokio::test]
async fn r88_a_second_logout_is_told_too_as_long_as_the_first_is_not_where_it_was_to_be() {
    let redis = Replicas::start(2);
    let place = place(&redis, Durability::Fast).await;
    let first = place.visitor();
    first.visit(async |session| session.log_in("ada").await).await;
    let (second, third) = (first.copy(), first.copy());
    redis.replicas()[0].pause();
    for tab in [&first, &second] {
        let log_out = async |session: redis_session::Session| {
            session.durability(BOTH)?;
            session.log_out().await
        };
        is_told(&place, &tab.try_visit(log_out).await);
        assert_eq!(tab.cookie(), None);
    }
    redis.replicas()[0].resume();
    let patient = Durability::Replicated { replicas: 2, within: Duration::from_secs(10) };
    let log_out = async |session: redis_session::Session| {
        session.durability(patient)?;
        session.log_out().await
    };
    third.visit(log_out).await;
    assert_eq!(third.cookie(), None);
}

#[tokio::test]
async fn a_revocation_that_misses_its_replicas_ends_all_and_is_told() {
    let redis = Replicas::start(2);
    let place = place(&redis, Durability::Fast).await;
    let (mut devices, sessions) = (Vec::new(), place.layer.sessions());
    for _ in 0..3 {
        let device = place.visitor();
        device.visit(async |session| session.log_in("ada").await).await;
        devices.push(device);
    }
    redis.replicas()[0].pause();
    let durable = sessions.clone().durability(BOTH).unwrap();
    let one = sessions.list("ada").await.unwrap()[0].handle();
    assert!(durable.revoke("ada", one).await.unwrap_err().is_not_replicated());
    assert_eq!(sessions.list("ada").await.unwrap().len(), 2);
    place.events.take();
    let begun = Instant::now();
    assert!(durable.clone().revoke_all("ada").await.unwrap_err().is_not_replicated());
    assert!(begun.elapsed() < 3000 * MS, "side by side: {:?}", begun.elapsed());
    let events = place.events.take();
    assert_eq!(events.iter().filter(|event| **event == Event::Revoked(Reason::Revoked)).count(), 2, "{events:?}");
    // The marks in the list, two ends, and once more that of before.
    assert_eq!(events.iter().filter(|event| **event == Event::NotReplicated).count(), 4, "{events:?}");
    for device in &devices {
        assert_eq!(device.visit(async |session| session.user::<String>()).await, None);
    }
    assert!(sessions.list("ada").await.unwrap().is_empty());

    redis.replicas()[0].resume();
    devices[0].visit(async |session| session.log_in("ada").await).await;
    let patient = Durability::Replicated { replicas: 2, within: Duration::from_secs(10) };
    assert_eq!(sessions.durability(patient).unwrap().revoke_all("ada").await.unwrap(), 1);
}

/// On a cluster the list is on another server than most sessions.
struct Apart {
    cluster: Cluster,
    place: Place,
    /// Where ada's list is.
    list: String,
}

impl Apart {
    async fn start(within: Duration) -> Self {
        let cluster = Cluster::start();
        let place = place_at(&cluster.url(), Durability::Replicated { replicas: 1, within }).await;
        let list = format!("sess:{}", User::new("ada").unwrap().key(&"main".into()).to_text());
        Self { cluster, place, list }
    }

    /// The replicas of the server that has the list, or of the others.
    fn replicas(&self, of_the_list: bool) -> Vec<&RedisServer> {
        let shards = self.cluster.shards().into_iter().map(|(primary, _)| primary);
        let port = self.cluster.primary_of(&self.list).port();
        let wanted = shards.filter(|primary| (primary.port() == port) == of_the_list);
        wanted.flat_map(|primary| self.cluster.replicas_of(primary)).collect()
    }

    /// Logs ada in, in a session that is on another server than her list.
    async fn log_in(&self) -> (Visitor, Option<Error>) {
        loop {
            let visitor = self.place.visitor();
            let error = visitor.try_visit(async |session| session.log_in("ada").await).await.error;
            // It came within the same milliseconds as a revocation.
            if error.as_ref().is_some_and(|error| error.is_login_refused()) {
                continue;
            }
            let device = self.place.layer.sessions().list("ada").await.unwrap()[0].handle();
            let key = format!("sess:main:{device}");
            if self.cluster.primary_of(&key).port() != self.cluster.primary_of(&self.list).port() {
                return (visitor, error);
            }
            visitor
                .visit(async |session| {
                    session.durability(Durability::Fast)?;
                    session.log_out().await
                })
                .await;
        }
    }

    async fn revoke_all(&self) -> Result<usize, Error> {
        self.place.layer.sessions().revoke_all("ada").await
    }

    fn listed(&self) -> i64 {
        self.cluster.run_at(&self.list, &["ZCARD", &self.list]).int()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster_a_login_and_a_revocation_wait_for_the_list_and_the_sessions_and_not_longer_for_both() {
    let within = Duration::from_secs(1);
    let apart = Apart::start(within).await;
    let is_told = |error: Option<Error>| assert!(error.expect("an error").is_not_replicated());
    for paused in [[true, false].as_slice(), &[true], &[false]] {
        let replicas: Vec<_> = paused.iter().flat_map(|of_the_list| apart.replicas(*of_the_list)).collect();
        replicas.iter().for_each(|replica| replica.pause());
        let visitor = apart.place.visitor();
        let begun = Instant::now();
        drop(visitor.try_visit(async |session| session.log_in("ada").await).await);
        assert!(begun.elapsed() < within * 19 / 10, "{paused:?}: {:?}", begun.elapsed());
        is_told(apart.log_in().await.1);
        let begun = Instant::now();
        is_told(apart.revoke_all().await.err());
        assert!(begun.elapsed() < within * 19 / 10, "{paused:?}: {:?}", begun.elapsed());
        replicas.iter().for_each(|replica| replica.resume());
        apart.revoke_all().await.unwrap();
    }
}

/// A failover may bring it back, and then nobody would find it.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_end_misses_its_replicas_stays_in_the_list_until_a_revocation_reaches_them() {
    let apart = Apart::start(200 * MS).await;
    for by_logout in [false, true] {
        let (visitor, error) = apart.log_in().await;
        assert!(error.is_none(), "{error:?}");
        let of_sessions = apart.replicas(false);
        of_sessions.iter().for_each(|replica| replica.pause());
        let error = match by_logout {
            true => visitor.try_visit(async |session| session.log_out().await).await.error.unwrap(),
            false => apart.revoke_all().await.unwrap_err(),
        };
        assert!(error.is_not_replicated(), "{error}");
        assert!(apart.place.layer.sessions().list("ada").await.unwrap().is_empty());
        assert!(apart.revoke_all().await.unwrap_err().is_not_replicated(), "again");
        assert_eq!(apart.listed(), 2, "the session and the revocation");
        of_sessions.iter().for_each(|replica| replica.resume());
        let patient = Durability::Replicated { replicas: 1, within: Duration::from_secs(10) };
        let sessions = apart.place.layer.sessions().durability(patient).unwrap();
        assert_eq!(sessions.revoke_all("ada").await.unwrap(), 0);
        assert_eq!(apart.listed(), 1);
    }
}

#[tokio::test]
async fn a_mere_touch_waits_for_nothing() {
    let redis = Replicas::start(2);
    let place = place(&redis, BOTH).await;
    let visitor = place.visitor();
    // It stands, whether it is there in time or not.
    let _ = visitor.try_visit(async |session| session.increment("visits", 1)).await;
    redis.replicas()[0].pause();
    let waited = redis.primary().command_count("WAIT");
    crate::visitor::make_older(redis.primary(), 600_000);
    let begun = Instant::now();
    assert_eq!(visits(&visitor).await, Some(1));
    assert!(place.events.take().contains(&Event::Touched));
    assert_eq!(redis.primary().command_count("WAIT"), waited);
    assert!(begun.elapsed() < 3000 * MS);
}

#[tokio::test]
async fn what_cannot_be_waited_for_is_refused_with_what_to_write() {
    let layer = || RedisSessionLayer::with_store(MemoryStore::new(), KeyRing::random().unwrap());
    let none = Durability::Replicated { replicas: 0, within: Duration::from_secs(1) };
    let never = Durability::Replicated { replicas: 1, within: Duration::ZERO };
    let long = Durability::Replicated { replicas: 1, within: Duration::from_secs(11) };
    for (wrong, text) in [(none, "replicas: 1"), (never, "within: Duration"), (long, "within: Duration")] {
        let at_start: Result<RedisSessionLayer, _> = layer().durability(wrong).check();
        let place = Place::in_memory();
        let errors = [
            at_start.unwrap_err(),
            place.layer.sessions().durability(wrong).unwrap_err(),
            place.visitor().try_visit(async |session| session.durability(wrong)).await.error.unwrap(),
        ];
        for error in errors {
            assert!(error.is_config() && error.to_string().contains(text), "{error}");
        }
    }
    // A store without replicas has nothing to wait for.
    let place = Place::around(layer().durability(BOTH), None);
    let visitor = place.visitor();
    visitor.visit(async |session| session.increment("visits", 1)).await;
    visitor.visit(async |session| session.log_in("ada").await).await;
    visitor.visit(async |session| session.log_out().await).await;
    assert!(!place.events.take().contains(&Event::NotReplicated));
}
