//! What a session takes in Redis's memory, beside what other libraries keep of the same state.

use bytes::Bytes;
use redis_session_core::{Create, Fields, Saved, Store};
use redis_session_testkit::{RedisServer, Reply};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::{Visitor, patient, set, text};

/// A shopper like that of the benchmarks: eight fields, 614 bytes of JSON.
fn shopper() -> Map<String, Value> {
    let item = |product: u32, title: &str, cents: u32, quantity: u32| json!({ "product": product, "title": title, "cents": cents, "quantity": quantity });
    let Value::Object(state) = json!({
        "name": "Ada Lovelace",
        "email": "ada.lovelace@example.org",
        "language": "en-GB",
        "visits": 1000,
        "cart": [
            item(48_213, "Notebook, squared, A5", 495, 3),
            item(50_117, "Fountain pen, fine, black", 2_950, 1),
            item(50_922, "Ink, royal blue, 50 ml", 780, 2),
            item(61_004, "Desk lamp, brass", 8_900, 1),
        ],
        "seen": [48_213, 48_220, 50_117, 50_118, 50_922, 61_004, 61_010, 61_377],
        "voucher": "SPRING-2026-TEN",
        "address": {
            "street": "12 St James's Square, first floor left", "city": "London", "postcode": "SW1Y 4LB", "country": "United Kingdom",
        },
    }) else {
        unreachable!("an object in braces is an object")
    };
    state
}

/// What `tower-sessions-redis-store` 0.16 writes: `rmp_serde::to_vec` of its `Record`, the time as the crate `time`
/// serialises it. Compared once with the bytes of the real one.
#[derive(Serialize)]
struct TowerSessionsRecord {
    id: i128,
    data: Map<String, Value>,
    /// Year, day of the year, hour, minute, second, nanosecond, and the offset in hours, minutes and seconds.
    expiry_date: (i32, u16, u8, u8, u8, u32, i8, i8, i8),
}

/// The key that tower-sessions gives a record: 16 bytes in base64url.
const TOWER_SESSIONS_KEY: &str = "q2Kx0FhZ8VbTn4cWm9rLpA";

fn of_tower_sessions() -> Vec<u8> {
    let expiry_date = (2027, 15, 8, 0, 0, 123_456_789, 0, 0, 0);
    let id = 0x00a4_cb9a_0b97_1c9e_d356_f159_58d0_b162;
    rmp_serde::to_vec(&TowerSessionsRecord { id, data: shopper(), expiry_date }).unwrap()
}

/// The key that connect-redis 8 gives a session of express-session: `sess:` and 24 bytes in base64url.
const CONNECT_REDIS_KEY: &str = "sess:Yl3pZk0w7Qc2sV9uR5tXn8aBfGhJmEdK";

/// What it writes: the state as JSON, and in it the cookie with its default attributes.
fn of_connect_redis() -> Vec<u8> {
    let mut session = Map::new();
    session
        .insert("cookie".to_owned(), json!({ "originalMaxAge": null, "expires": null, "httpOnly": true, "path": "/" }));
    session.extend(shopper());
    serde_json::to_vec(&session).unwrap()
}

/// The sizes in which jemalloc hands out memory.
const CLASSES: [u64; 9] = [512, 640, 768, 896, 1024, 1280, 1536, 1792, 2048];

fn class(bytes: usize) -> usize {
    CLASSES.iter().position(|class| *class >= bytes as u64).expect("no record of this test has 2 KiB")
}

#[tokio::test]
async fn a_shopper_of_600_bytes_takes_two_allocator_classes_more_than_its_json() {
    let redis = RedisServer::start_with(&[("hash-max-listpack-value", "1024")]);
    let store = patient(&redis.url()).await;
    let visitor = Visitor::new();
    let fields = shopper().into_iter().map(|(name, value)| (name.into(), value.to_string().into())).collect();
    let create = Create { fields: Fields::from_pairs(fields), ..visitor.create(&[]) };
    store.create(&visitor.key, &create).await.unwrap();
    let born = redis.memory_of(&visitor.name());
    // As many writes as it takes for our own field to be as long as it gets.
    let mut base = create.token;
    for visits in 1001..1010_u32 {
        let save = visitor.merge(base, set("visits", &visits.to_string()));
        assert!(matches!(store.save(&visitor.key, &save).await.unwrap(), Saved::Saved { .. }));
        base = save.token.unwrap();
    }
    let ours = redis.memory_of(&visitor.name());
    assert_eq!(redis.run(&["OBJECT", "ENCODING", &visitor.name()]).text(), "listpack");

    let json = Value::Object(shopper()).to_string();
    assert_eq!(json.len(), 614);
    let plain_key = format!("json:{}", &visitor.name()[5..]);
    let others: [(&str, &str, Vec<u8>); 3] = [
        ("its JSON as a string", &plain_key, json.clone().into_bytes()),
        ("tower-sessions-redis-store", TOWER_SESSIONS_KEY, of_tower_sessions()),
        ("connect-redis", CONNECT_REDIS_KEY, of_connect_redis()),
    ];
    let taken = others.map(|(what, key, value)| {
        redis.run(&[text("SET"), text(key), Bytes::from(value.clone()), text("EX"), text("1800")]);
        (what, value.len(), redis.memory_of(key))
    });

    let own = "@".len() + redis.run(&["HGET", &visitor.name(), "@"]).bytes().len();
    let hash = redis.run(&["HGETALL", &visitor.name()]);
    let hash: usize = hash.list().iter().map(|part| Reply::bytes(part).len()).sum();
    eprintln!("{:<32}{:>8}{:>16}", "the same shopper", "bytes", "in memory");
    for (what, bytes, memory) in taken {
        eprintln!("{what:<32}{bytes:>8}{memory:>16}");
    }
    eprintln!("{:<32}{hash:>8}{ours:>16} (just created: {born}; {own} bytes are our own)", "redis-session");

    assert!(own <= 120, "{own} bytes of our own");
    // Keys are equally long, so that the two differ by the one allocation that holds the value.
    let plain = taken[0].2;
    let most = plain + CLASSES[class(json.len()) + 2] - CLASSES[class(json.len())];
    assert!(ours <= most, "{ours} bytes in memory, {most} would be two classes above {plain}");
}
