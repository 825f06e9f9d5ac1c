//! The connection cut, a reply lost, or the process dead, at each command of what acts on users' sessions in turn: each
//! living session is in its user's list or ends with his next revocation, and nothing in a list stays for ever.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use axum::Router;
use redis_session::{KeyRing, RedisSessionLayer, RedisStore};
use redis_session_testkit::{Action, Browser, Command, Proxy, RedisServer};

use super::accounts::{Kept, rounds, told};
use super::{patient_store, shop};
use crate::visitor::make_older;

const DEADLINE: Duration = Duration::from_secs(1);
const CAP: usize = 3;
/// More than any of these acts has.
const MOST_COMMANDS: usize = 20;

/// What happens at one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It never arrives; the process lives and goes on.
    Cut,
    /// It runs, and its reply is lost.
    ReplyLost,
    /// The process dies before it is sent.
    DeadBefore,
    /// The process dies when it is sent; it runs.
    DeadAfter,
}

/// All of them with `PEOPLE_FULL=1`, otherwise the first two: those after which something is there.
const FAULTS: [Fault; 4] = [Fault::ReplyLost, Fault::DeadAfter, Fault::Cut, Fault::DeadBefore];

impl Fault {
    fn kills(self) -> bool {
        matches!(self, Self::DeadBefore | Self::DeadAfter)
    }

    fn action(self) -> Action {
        match self {
            Self::Cut | Self::DeadBefore => Action::Cut,
            Self::ReplyLost | Self::DeadAfter => Action::DropReply,
        }
    }
}

/// What is done, by a visitor who is prepared for it.
#[derive(Clone, Copy, Debug)]
enum Act {
    LogIn,
    LogInWithCart,
    LogInOverTheCap,
    SwitchUser,
    StepUp,
    Rotate,
    Touch,
    LogOut,
    RevokeOne,
    RevokeOthers,
    RevokeAll,
}

const ACTS: [Act; 11] = [
    Act::LogIn,
    Act::LogInWithCart,
    Act::LogInOverTheCap,
    Act::SwitchUser,
    Act::StepUp,
    Act::Rotate,
    Act::Touch,
    Act::LogOut,
    Act::RevokeOne,
    Act::RevokeOthers,
    Act::RevokeAll,
];

impl Act {
    /// Sessions that are there before; the last of them is the visitor's. Answers his path.
    async fn prepare(self, visitor: &Browser<Router>, user: &str) -> String {
        let log_in = format!("/people/log-in/{user}");
        let others = match self {
            Self::LogIn | Self::LogInWithCart => 1,
            Self::LogInOverTheCap => CAP,
            _ => 2,
        };
        let mut handle = String::new();
        for _ in 0..others {
            handle = told(&visitor.stranger().get(&log_in).await).1;
        }
        match self {
            Self::LogIn | Self::LogInOverTheCap => return log_in,
            Self::LogInWithCart => assert_eq!(visitor.get("/push/7").await.status, 200),
            Self::SwitchUser => assert_eq!(visitor.get(&format!("/people/log-in/{user}-before")).await.status, 200),
            _ => assert_eq!(visitor.get(&log_in).await.status, 200),
        }
        match self {
            Self::Rotate => "/rotate".to_owned(),
            Self::Touch => "/visit".to_owned(),
            Self::LogOut => "/people/log-out".to_owned(),
            Self::RevokeOne => format!("/people/revoke/{user}/{handle}"),
            Self::RevokeOthers => "/people/revoke-others".to_owned(),
            Self::RevokeAll => format!("/people/revoke-all/{user}"),
            _ => log_in,
        }
    }
}

/// The connection's own commands and health checks are not the act's.
fn is_of_the_act(command: &Command) -> bool {
    ["EVALSHA", "EVAL", "HGETALL", "HMGET", "ZSCORE", "ZREM", "ZRANGEBYSCORE"].contains(&command.name())
}

fn app(store: RedisStore, keys: KeyRing) -> Router {
    let expiry = redis_session::Expiry::default().touch_every(Duration::ZERO);
    let layer = RedisSessionLayer::with_store(store, keys).expiry(expiry);
    shop(layer.sessions_per_user(NonZeroUsize::new(CAP).unwrap()))
}

/// A process of its own, as far as it can be seen from Redis: what it had under way is gone when this returns.
/// Answers the status of its answer, if it lived to give one; and whether the command came.
fn process(redis: &RedisServer, keys: KeyRing, visit: (Browser<Router>, String), nth: usize, fault: Fault) -> Outcome {
    let proxy = Proxy::start(redis.address());
    let (url, (visitor, path)) = (proxy.url(), visit);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store = runtime.block_on(async { RedisStore::options(&url).deadline(DEADLINE).connect().await.unwrap() });
    let (seen, came) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
    let (ended, end) = mpsc::channel();
    let (dies, told) = (ended.clone(), came.clone());
    proxy.fault(move |command| {
        if !is_of_the_act(command) {
            return if fault.kills() && told.load(Ordering::SeqCst) { Action::Cut } else { Action::Pass };
        }
        match seen.fetch_add(1, Ordering::SeqCst).cmp(&nth) {
            std::cmp::Ordering::Less => Action::Pass,
            std::cmp::Ordering::Equal => {
                told.store(true, Ordering::SeqCst);
                if fault.kills() {
                    let _ = dies.send(None);
                }
                fault.action()
            }
            // The dead send nothing.
            std::cmp::Ordering::Greater if fault.kills() => Action::Cut,
            std::cmp::Ordering::Greater => Action::Pass,
        }
    });
    let cookie = visitor.cookie("__Host-id");
    let browser = Browser::new(app(store, keys));
    if let Some(cookie) = &cookie {
        browser.set_cookie("__Host-id", cookie);
    }
    runtime.spawn(async move {
        let page = browser.get(&path).await;
        let _ = ended.send(Some(page.status.as_u16()));
    });
    let status = end.recv().unwrap();
    let status = if fault.kills() && came.load(Ordering::SeqCst) { None } else { status };
    if !matches!(status, None | Some(200)) {
        // What it goes on with in the background.
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(250)).await });
    }
    runtime.shutdown_background();
    Outcome { came: came.load(Ordering::SeqCst), status }
}

struct Outcome {
    came: bool,
    status: Option<u16>,
}

#[derive(Debug, Default)]
struct Tally {
    cases: usize,
    answered_200: usize,
    answered_409: usize,
    answered_503: usize,
    died: usize,
    /// Living sessions in no list.
    unlisted: usize,
    /// Doomed entries, or ones without a session, that wait for the next to come.
    left_over: usize,
    survived_revocation: usize,
    endless: usize,
    too_late: usize,
}

#[test]
fn r76_a_cut_at_any_command_leaves_no_session_that_the_next_revocation_misses_and_no_entry_for_ever() {
    let (redis, keys) = (RedisServer::start(), KeyRing::random().unwrap());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let sound = runtime.block_on(async { app(patient_store(&redis.url()).await, keys.clone()) });
    let visitor = Browser::new(sound);
    // Redis learns the scripts.
    for (nth, act) in ACTS.into_iter().enumerate() {
        runtime.block_on(async {
            let visitor = visitor.stranger();
            let path = act.prepare(&visitor, &format!("learn{nth}")).await;
            assert_eq!(visitor.get(&path).await.status, 200);
        });
    }
    for act in ACTS {
        let mut tally = Tally::default();
        let mut commands = 0;
        for fault in FAULTS.into_iter().take(rounds(4, 2)) {
            for nth in 0..MOST_COMMANDS {
                redis.run(&["FLUSHALL"]);
                let user = format!("{act:?}-{fault:?}-{nth}");
                let visitor = visitor.stranger();
                let path = runtime.block_on(act.prepare(&visitor, &user));
                let outcome = process(&redis, keys.clone(), (visitor.clone(), path), nth, fault);
                if !outcome.came {
                    assert_eq!(outcome.status, Some(200), "{user}");
                    break;
                }
                commands = commands.max(nth + 1);
                judge(&redis, &runtime, &visitor, &user, &outcome, &mut tally);
            }
        }
        println!("{act:?}, a fault at each of {commands} commands: {tally:?}");
        let Tally { unlisted, survived_revocation, endless, too_late, .. } = tally;
        assert_eq!((unlisted, survived_revocation, endless, too_late), (0, 0, 0, 0), "{act:?}");
        assert!(tally.cases >= rounds(4, 2) * (commands - 1), "{act:?}");
    }
}

fn judge(
    redis: &RedisServer,
    runtime: &tokio::runtime::Runtime,
    visitor: &Browser<Router>,
    user: &str,
    outcome: &Outcome,
    tally: &mut Tally,
) {
    tally.cases += 1;
    match outcome.status {
        None => tally.died += 1,
        Some(200) => tally.answered_200 += 1,
        Some(409) => tally.answered_409 += 1,
        Some(503) => tally.answered_503 += 1,
        Some(status) => panic!("{user}: {status}"),
    }
    let kept = Kept::of(redis);
    tally.unlisted += kept.unlisted();
    tally.left_over += kept.entries.iter().filter(|(of, score)| **score < 0 || !kept.living.contains_key(*of)).count();
    let now: i64 = redis.run(&["TIME"]).texts()[0].parse::<i64>().unwrap() * 1000;
    // Half an hour, and the minute that an entry outlasts its session; and a second of this sum.
    let latest = now + 31 * 60_000 + 1000;
    tally.endless += kept.endless;
    tally.too_late += kept.entries.values().filter(|score| score.abs() > latest).count();
    runtime.block_on(async {
        for user in [user.to_owned(), format!("{user}-before")] {
            assert_eq!(visitor.stranger().get(&format!("/people/revoke-all/{user}")).await.status, 200);
        }
    });
    tally.survived_revocation += Kept::of(redis).living.len();
    make_older(redis, 31 * 60_000 + 1000);
    tally.endless += redis.run(&["DBSIZE"]).int() as usize;
}
