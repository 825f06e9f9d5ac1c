//! Logins at once: two of one browser that may lose an answer, and fifty of one user who may have three sessions.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use redis_session::{KeyRing, RedisSessionLayer};
use redis_session_testkit::{Browser, RedisServer};
use tokio::task::JoinSet;

use super::accounts::{Kept, rounds, told};
use super::processes::{Server, shared_key};
use super::{Visitor, patient_store, setting, shop};

/// Which answers of a double click arrive, in this order.
const DELIVERIES: [(&str, &[usize]); 4] =
    [("the first only", &[0]), ("the second only", &[1]), ("first, second", &[0, 1]), ("second, first", &[1, 0])];

fn request(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_double_click_on_log_in_at_two_servers_logs_in_once_whichever_answers_arrive() {
    let redis = RedisServer::start();
    let key = shared_key();
    let servers = [Server::start(&redis, &key), Server::start(&redis, &key)];
    let rounds = rounds(200, 20);
    for (name, delivered) in DELIVERIES {
        let (mut logged_in, mut carts, mut alone, mut failed) = (0, 0, 0, 0);
        for round in 0..rounds {
            let user = format!("{}-{round}", name.replace([' ', ','], ""));
            let visitor = servers[round % 2].browser();
            visitor.get("/quiet/push/7").await;
            let path = format!("/quiet/people/log-in/{user}");
            let [one, two] = servers.each_ref().map(|server| server.visited_by(&visitor));
            let answers = tokio::join!(one.ask(request(&path)), two.ask(request(&path)));
            let answers = [answers.0, answers.1];
            failed += answers.iter().filter(|page| page.status != 200).count();
            for which in delivered {
                visitor.receive(&answers[*which]);
            }
            logged_in += usize::from(visitor.get("/quiet/people/user").await.body == user);
            carts += usize::from(Visitor::on(&visitor.get("/quiet/read").await).cart == [7]);
            let list: Vec<String> =
                serde_json::from_str(&visitor.get(&format!("/quiet/people/list/{user}")).await.body).unwrap();
            alone += usize::from(list.len() == 1);
        }
        let unlisted = Kept::of(&redis).unlisted();
        println!(
            "double click, {name} delivered, {rounds} rounds: {logged_in} logged in, {carts} carts kept, {alone} with one session \
             listed, {failed} answers not 200, {unlisted} sessions in no list"
        );
        assert_eq!((logged_in, carts, alone, failed, unlisted), (rounds, rounds, rounds, 0, 0));
        redis.run(&["FLUSHALL"]);
    }
}

const LOGINS: usize = 50;
const CAP: usize = 3;

/// How many sessions with a user there are, and how many of them are not about to be ended; in one moment.
const COUNT: &str = "
    local records, lasting, listed = 0, 0, {}
    for _, list in ipairs(redis.call('KEYS', 'sess:main:user:*')) do
        for _, session in ipairs(redis.call('ZRANGEBYSCORE', list, 0, '+inf')) do listed[session] = true end
    end
    for _, key in ipairs(redis.call('KEYS', 'sess:main:??????????????????????')) do
        if redis.call('HEXISTS', key, '@user') == 1 then
            records = records + 1
            if listed[string.sub(key, -22)] then lasting = lasting + 1 end
        end
    end
    return {records, lasting}";

fn count(redis: &RedisServer) -> (usize, usize) {
    let numbers = redis.run(&["EVAL", COUNT, "0"]).list().iter().map(|part| part.int() as usize).collect::<Vec<_>>();
    (numbers[0], numbers[1])
}

/// Tells in which order logins enter a list: Redis's own, of all connections.
struct Entries(BufReader<TcpStream>);

impl Entries {
    fn of(redis: &RedisServer) -> Self {
        let mut stream = TcpStream::connect(redis.address()).unwrap();
        stream.write_all(b"MONITOR\r\n").unwrap();
        let mut lines = BufReader::new(stream);
        assert_eq!(lines.by_ref().lines().next().unwrap().unwrap(), "+OK");
        Self(lines)
    }

    /// The sessions that have entered since it was last asked; the one that was last is last.
    fn since(&mut self, redis: &RedisServer) -> Vec<String> {
        redis.run(&["ECHO", "until here"]);
        let lines = self.0.by_ref().lines().map(Result::unwrap).take_while(|line| !line.contains("until here"));
        // Of the scripts on a list, only that of a login has six words.
        let words = |line: &str| line.split_once(":user:")?.1.split('"').nth(2).map(str::to_owned);
        let is_enter = |words: &String| words.split_whitespace().count() == 6;
        let entered = lines.filter(|line| line.to_lowercase().contains("\"evalsha\"")).filter_map(|line| words(&line));
        entered.filter(is_enter).map(|words| words.split(' ').next().unwrap().to_owned()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r43_50_parallel_logins_never_leave_more_sessions_than_the_cap_and_the_last_to_enter_is_in() {
    let (rounds, seed) = (rounds(200, 10), setting("FIGURES_SEED", fastrand::u64(..)));
    println!("FIGURES_SEED={seed}");
    let mut dice = fastrand::Rng::with_seed(seed);
    for (what, with_cart) in [("without a session", false), ("with a cart", true)] {
        let (redis, keys) = (Arc::new(RedisServer::start()), KeyRing::random().unwrap());
        let app = async || {
            let layer = RedisSessionLayer::with_store(patient_store(&redis.url()).await, keys.clone());
            shop(layer.sessions_per_user(NonZeroUsize::new(CAP).unwrap()))
        };
        let (apps, mut entries) = ([app().await, app().await], Entries::of(&redis));
        // Redis learns the scripts: the first calls of unknown ones are made twice.
        for _ in 0..=CAP {
            assert_eq!(Browser::new(apps[0].clone()).get("/people/log-in/ada").await.status, 200);
        }
        let (mut most, mut most_lasting, mut exact, mut last_in, mut refused, mut failed) = (0, 0, 0, 0, 0, 0);
        for _ in 0..rounds {
            redis.run(&["FLUSHALL"]);
            entries.since(&redis);
            let mut logins = JoinSet::new();
            for app in apps.iter().cycle().take(LOGINS) {
                let visitor = Browser::new(app.clone());
                if with_cart {
                    visitor.get("/push/7").await;
                }
                let (redis, late) = (redis.clone(), Duration::from_micros(dice.u64(0..2000)));
                logins.spawn(async move {
                    tokio::time::sleep(late).await;
                    let page = visitor.get("/people/log-in/ada").await;
                    let there = if page.status == 200 { count(&redis) } else { (0, 0) };
                    (page, visitor, there)
                });
            }
            let mut alive = Vec::new();
            for (page, visitor, (records, lasting)) in logins.join_all().await {
                (most, most_lasting) = (most.max(records), most_lasting.max(lasting));
                match page.status.as_u16() {
                    200 if visitor.get("/people/user").await.body == "ada" => alive.push(told(&page).1),
                    200 => {}
                    409 => refused += 1,
                    _ => failed += 1,
                }
            }
            exact += usize::from(alive.len() == CAP && count(&redis) == (CAP, CAP));
            let last = entries.since(&redis).pop();
            last_in += usize::from(last.is_some_and(|last| alive.contains(&last)));
        }
        println!(
            "{LOGINS} parallel logins {what}, cap {CAP}, {rounds} rounds: at most {most_lasting} alive at the end of a login \
             ({most} with those about to be ended, whose cookies nobody gets), {exact} times exactly {CAP} after the last, \
             {last_in} times the last to enter is in, {refused} refused by later ones, {failed} failed"
        );
        // One that is written into the visitor's own session is ended by itself where it was pushed out before that.
        assert!(most_lasting <= CAP && (with_cart || most <= CAP), "{most} {most_lasting}");
        assert_eq!((exact, last_in, failed), (rounds, rounds, 0));
    }
}
