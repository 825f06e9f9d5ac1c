//! Writes that race with the end or the rotation of their session, and scripts that are forgotten meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis_session_core::{Created, Ended, Save, Saved, Step, Store, Stored};
use redis_session_store::RedisStore;
use redis_session_testkit::RedisServer;

use crate::{Visitor, count, destroy, new_proof, patient, set};

const TASKS: usize = 20;
const ROUNDS: usize = 500;

/// A save races with an end; afterwards the session is dead, and stays so for a second, later save.
async fn end_wins(store: &RedisStore) -> bool {
    let visitor = Visitor::new();
    let first = visitor.born(store, &[("a", "1")]).await;
    let (save, end) = (visitor.merge(first, set("late", "1")), destroy());
    let (saved, ended) = tokio::join!(store.save(&visitor.key, &save), store.end(&visitor.key, &end));
    assert_eq!(ended.unwrap(), Ended::Ended);
    assert!(matches!(saved.unwrap(), Saved::Saved { .. } | Saved::Ended(_)));
    let later = store.save(&visitor.key, &visitor.merge(first, set("later", "1"))).await.unwrap();
    assert!(matches!(later, Saved::Ended(_)), "{later:?}");
    matches!(store.load(&visitor.key).await.unwrap(), Some(Stored::Ended(_)))
}

/// A save races with a rotation; it is in exactly if it was told so, and a later one with the old proof is not.
async fn rotation_wins(store: &RedisStore) -> bool {
    let visitor = Visitor::new();
    let first = visitor.born(store, &[("a", "1")]).await;
    let save = visitor.merge(first, set("late", "1"));
    let rotate = Save { step: Step::Rotate(new_proof()), ..visitor.merge(first, set("b", "2")) };
    let (saved, rotated) = tokio::join!(store.save(&visitor.key, &save), store.save(&visitor.key, &rotate));
    assert!(matches!(rotated.unwrap(), Saved::Saved { .. }));
    let saved = match saved.unwrap() {
        Saved::Saved { .. } => true,
        Saved::Replaced => false,
        other => panic!("{other:?}"),
    };
    let later = store.save(&visitor.key, &visitor.merge(first, set("later", "1"))).await.unwrap();
    assert_eq!(later, Saved::Replaced);
    let Some(Stored::Record(record)) = store.load(&visitor.key).await.unwrap() else { return false };
    record.fields.get(b"late").is_some() == saved && record.fields.get(b"later").is_none()
}

#[tokio::test(flavor = "multi_thread")]
async fn r38_a_late_save_undoes_neither_an_end_nor_a_rotation_in_10_000_rounds() {
    let redis = RedisServer::start();
    let store = patient(&redis.url()).await;
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..ROUNDS {
                    assert!(end_wins(&store).await, "an ended session lives again");
                    assert!(rotation_wins(&store).await, "a save is not what it was told");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_may_forget_the_scripts_at_any_time() {
    let redis = RedisServer::start();
    let store = patient(&redis.url()).await;
    let visitor = Arc::new(Visitor::new());
    let first = visitor.born(&store, &[]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (store, visitor, stop) = (store.clone(), visitor.clone(), stop.clone());
            tokio::spawn(async move {
                let (mut base, mut counted) = (first, 0);
                while !stop.load(Ordering::Relaxed) {
                    match store.save(&visitor.key, &visitor.merge(base, count("n"))).await.unwrap() {
                        Saved::Saved { .. } => counted += 1,
                        Saved::Moved(record) => base = record.tokens.newest(),
                        other => panic!("{other:?}"),
                    }
                }
                counted
            })
        })
        .collect();
    for _ in 0..100 {
        redis.run(&["SCRIPT", "FLUSH"]);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut counted = 0;
    for task in tasks {
        counted += task.await.unwrap();
    }
    assert_eq!(redis.run(&["HGET", &visitor.name(), "n"]).int(), counted);
    assert!(counted > 100 && redis.command_count("EVAL") > 10, "{counted} {:?}", redis.command_counts());
}

/// Runs a hundred of them at once, and answers what they were told.
async fn a_hundred<T, F>(attempt: impl Fn() -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks: Vec<_> = (0..100).map(|_| tokio::spawn(attempt())).collect();
    let mut told = Vec::new();
    for task in tasks {
        told.push(task.await.unwrap());
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn r05_of_a_hundred_that_create_one_key_one_succeeds_and_stays() {
    let redis = RedisServer::start();
    let store = patient(&redis.url()).await;
    let key = Visitor::new().key;
    let told = a_hundred(|| {
        // Another proving half each: what a generator that repeats itself would lead to.
        let (store, visitor) = (store.clone(), Visitor { key: key.clone(), ..Visitor::new() });
        async move {
            let create = visitor.create(&[("a", "1")]);
            let created = store.create(&visitor.key, &create).await.unwrap();
            matches!(created, Created::Created { .. }).then_some((create.token, create.proof))
        }
    })
    .await;
    let winners: Vec<_> = told.into_iter().flatten().collect();
    let Some(Stored::Record(record)) = store.load(&key).await.unwrap() else { panic!("no record") };
    assert_eq!(winners, [(record.tokens.newest(), record.proof)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn r05_r35_of_a_hundred_rotations_of_one_proof_one_succeeds_and_no_data_are_lost() {
    let redis = RedisServer::start();
    let store = patient(&redis.url()).await;
    let visitor = Arc::new(Visitor::new());
    let first = visitor.born(&store, &[("a", "1")]).await;
    let told = a_hundred(|| {
        let (store, visitor) = (store.clone(), visitor.clone());
        async move {
            let rotate = Save { step: Step::Rotate(new_proof()), ..visitor.merge(first, count("n")) };
            match store.save(&visitor.key, &rotate).await.unwrap() {
                Saved::Saved { .. } => rotate.step.new_proof(),
                Saved::Replaced => None,
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
    let winners: Vec<_> = told.into_iter().flatten().collect();
    let Some(Stored::Record(record)) = store.load(&visitor.key).await.unwrap() else { panic!("no record") };
    assert_eq!(winners, [record.proof]);
    assert_ne!(record.proof, visitor.id.proof());
    let fields: Vec<_> = record.fields.iter().map(|(_, value)| value.as_ref()).collect();
    assert_eq!(fields, [b"1", b"1"]);
}
