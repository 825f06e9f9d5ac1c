//! What comes from outside, a cookie's value and a stored record, is read without a panic and in bounded memory.
//!
//! `PROPERTY_CASES=1000000 cargo test -p redis-session-core --test properties` tries longer.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use allocation_counter::measure;
use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use redis_session_core::{
    Fields, KeyRing, Level, Login, Previous, Random, Record, ReplacedBy, SessionId, SessionKey, Signer, Stored, Time,
    Token, Tokens, User, Wishes,
};

fn config() -> ProptestConfig {
    let cases = std::env::var("PROPERTY_CASES").map_or(2_000, |cases| cases.parse().unwrap());
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

/// A generator that gives these bytes.
fn of<const N: usize>(bytes: [u8; N]) -> Random {
    Random::scripted(move |into| {
        into.copy_from_slice(&bytes[..into.len()]);
        Ok(())
    })
}

fn signer() -> Signer {
    let key: [u8; 32] = std::array::from_fn(|at| (at as u8).wrapping_mul(37) ^ 0x5b);
    KeyRing::new(key).unwrap().signer("main", "__Host-id")
}

fn id() -> SessionId {
    SessionId::random(&of(*b"sixteen bytes so")).unwrap()
}

fn key() -> SessionKey {
    id().key(&"main".into())
}

/// One small change, as a careless program or a patient attacker makes it. Places are taken modulo the length.
#[derive(Clone, Debug)]
enum Mutation {
    Put(usize, u8),
    Insert(usize, u8),
    Remove(usize),
    Swap(usize, usize),
    Cut(usize),
    Repeat(usize),
}

fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let byte = || prop_oneof![any::<u8>(), select(b"AQgw019-_=+/ %;,\"\0\r\n\xff".as_slice())];
    let one = prop_oneof![
        (any::<usize>(), byte()).prop_map(|(at, byte)| Mutation::Put(at, byte)),
        (any::<usize>(), byte()).prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        any::<usize>().prop_map(Mutation::Remove),
        any::<(usize, usize)>().prop_map(|(one, other)| Mutation::Swap(one, other)),
        any::<usize>().prop_map(Mutation::Cut),
        any::<usize>().prop_map(Mutation::Repeat),
    ];
    vec(one, 1..4)
}

fn mutated(good: &[u8], mutations: &[Mutation]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for mutation in mutations {
        let length = bytes.len();
        let place = |at: usize| at % length.max(1);
        match *mutation {
            Mutation::Insert(at, byte) => bytes.insert(place(at), byte),
            _ if length == 0 => {}
            Mutation::Put(at, byte) => bytes[place(at)] = byte,
            Mutation::Remove(at) => drop(bytes.remove(place(at))),
            Mutation::Swap(one, other) => bytes.swap(place(one), place(other)),
            Mutation::Cut(at) => bytes.truncate(place(at)),
            Mutation::Repeat(at) => bytes.extend_from_within(place(at)..),
        }
    }
    bytes
}

/// Any bytes, and such of our length and alphabet, and such with our version and key id before them.
fn cookie_values() -> impl Strategy<Value = Vec<u8>> {
    let good = signer().sign(&id()).into_bytes();
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".as_slice();
    let text = |length: usize| vec(select(alphabet), length);
    let after = move |begin: &[u8], rest: Vec<u8>| [begin, &rest].concat();
    prop_oneof![
        vec(any::<u8>(), 0..300),
        text(good.len()),
        text(good.len() - 1).prop_map(move |rest| after(b"1", rest)),
        text(good.len() - 6).prop_map(move |rest| after(&good[..6], rest)),
    ]
}

/// Names and values, our names among them, with values that are nearly ours.
fn hashes() -> impl Strategy<Value = Vec<(Bytes, Bytes)>> {
    let any_bytes = || vec(any::<u8>(), 0..60).prop_map(Bytes::from);
    let own = select(["@", "@", "@", "@ended", "@user"].as_slice()).prop_map(Bytes::from);
    let numbers = ["", "-", "0", "1", "2", "01", "+1", "9007199254740991", "9007199254740992", "18446744073709551616"];
    let tag = String::from_utf8(key().tag().to_vec()).unwrap();
    let word = prop_oneof![
        select(numbers.to_vec()).prop_map(str::to_owned),
        select(vec![tag, id().proof().to_text(), "destroyed".to_owned()]),
        "[A-Za-z0-9_-]{0,40}",
    ];
    let near = vec(word, 0..12).prop_map(|words| Bytes::from(words.join(" ")));
    vec((prop_oneof![own, any_bytes()], prop_oneof![any_bytes(), near]), 0..12)
}

fn records() -> impl Strategy<Value = Record> {
    let token = any::<[u8; 6]>().prop_map(|bytes| Token::random(&of(bytes)).unwrap());
    let tokens = vec(token, 1..7).prop_map(|tokens| {
        let mut kept = Tokens::first(tokens[0]);
        tokens[1..].iter().for_each(|token| kept.push(*token));
        kept
    });
    let proof = any::<[u8; 16]>().prop_map(|bytes| SessionId::random(&of(bytes)).unwrap().proof());
    let created = prop_oneof![any::<u64>(), 0..1_u64 << 45].prop_map(Time::from_millis);
    let after = || prop_oneof![Just(0), 0..1_u64 << 40, any::<u64>()].prop_map(Duration::from_millis);
    let number = || proptest::option::of(0..=Time::MAX.as_millis());
    let wishes = (number(), number())
        .prop_map(|(idle, remembered)| Wishes { idle, remembered: remembered.map(Time::from_millis) });
    let field =
        (vec(any::<u8>(), 0..20), vec(any::<u8>(), 0..60)).prop_map(|(name, value)| (name.into(), value.into()));
    let fields = vec(field.prop_filter("ours", |(name, _): &(Bytes, Bytes)| !name.starts_with(b"@")), 0..8);
    let by = select(vec![ReplacedBy::Renewal, ReplacedBy::SeenRenewal, ReplacedBy::Login]);
    let previous = proptest::option::of((proof.clone(), by, after()));
    let times = (created, after(), after());
    (tokens, proof, previous, times, wishes, logins(), fields.prop_map(Fields::from_pairs)).prop_map(
        |(tokens, proof, previous, (created, proved, seen), wishes, login, fields)| Record {
            tokens,
            proof,
            proved: created + proved,
            previous: previous.map(|(proof, by, after)| Previous { proof, by, at: created + after }),
            created,
            seen: created + seen,
            wishes,
            login: login.map(Box::new),
            fields,
        },
    )
}

fn logins() -> impl Strategy<Value = Option<Login>> {
    let time = || (0..=Time::MAX.as_millis()).prop_map(Time::from_millis);
    let label = proptest::option::of(".{0,30}");
    let login = ("(?s).{1,60}", time(), time(), any::<u8>(), label).prop_map(|(user, at, arrived, level, label)| {
        Login { user: User::new(user).unwrap(), at, arrived, level: Level(level), label }
    });
    proptest::option::of(login)
}

fn hash(record: &Record, meta: impl Into<Bytes>) -> Vec<(Bytes, Bytes)> {
    let mut hash: Vec<(Bytes, Bytes)> =
        record.fields.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    hash.push((Bytes::from_static(b"@"), meta.into()));
    if let Some(login) = &record.login {
        hash.push((Bytes::from_static(b"@user"), login.to_text().into()));
        hash.extend(login.label.clone().map(|label| (Bytes::from_static(b"@label"), label.into())));
    }
    hash
}

/// What is read of a record as we would write it.
fn read_back(record: &Record) -> Result<Option<Stored>, TestCaseError> {
    let stored = Stored::parse(hash(record, record.meta(&key())), &key());
    stored.map_err(|error| TestCaseError::fail(error.to_string()))
}

/// Reads a hash: what is refused is refused with a typed error, and the memory that it takes is a small multiple of
/// what was there already.
fn read_within_bounds(hash: Vec<(Bytes, Bytes)>) -> Result<Option<Stored>, TestCaseError> {
    let key = key();
    let most = 1024 + hash.iter().map(|(name, value)| 200 + 2 * (name.len() + value.len()) as u64).sum::<u64>();
    let mut stored = Ok(None);
    let bytes = measure(|| stored = Stored::parse(hash, &key)).bytes_max;
    prop_assert!(bytes <= most, "{} bytes, {} allowed", bytes, most);
    prop_assert!(stored.as_ref().err().is_none_or(|error| error.is_corrupt()), "{:?}", stored);
    Ok(stored.unwrap_or(None))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn r90_no_bytes_that_we_did_not_sign_are_an_id(value in cookie_values()) {
        let signer = signer();
        let mut accepted = None;
        let allocations = measure(|| accepted = signer.verify(&value).ok()).count_total;
        prop_assert_eq!((accepted, allocations), (None, 0));
    }

    #[test]
    fn r90_a_signed_value_that_was_changed_is_no_id(mutations in mutations()) {
        let (signer, good) = (signer(), signer().sign(&id()).into_bytes());
        let value = mutated(&good, &mutations);
        prop_assert_eq!(signer.verify(&value).is_ok(), value == good);
    }

    #[test]
    fn r90_any_hash_is_read_in_bounded_memory(hash in hashes()) {
        read_within_bounds(hash)?;
    }

    #[test]
    fn r90_a_record_that_was_changed_is_refused_or_is_a_record(record in records(), mutations in mutations()) {
        let meta = mutated(record.meta(&key()).as_bytes(), &mutations);
        if let Some(Stored::Record(other)) = read_within_bounds(hash(&record, meta))? {
            prop_assert_eq!(read_back(&other)?, Some(Stored::Record(other)));
        }
    }

    #[test]
    fn r72_any_record_reads_back_as_it_was_written(record in records()) {
        prop_assert_eq!(read_back(&record)?, Some(Stored::Record(record)));
    }
}
