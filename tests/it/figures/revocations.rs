//! Ends of sessions against requests in flight on two servers: what was to end is dead, what was not lives. (J1 and J1p of
//! the protocol.)

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Path;
use axum::http::{Request, StatusCode};
use axum::routing::get;
use axum::{Extension, Router};
use redis_session::{Error, KeyRing, RedisSessionLayer, Session, Sessions};
use redis_session_testkit::{Browser, HttpBrowser, Page, RedisServer};
use tokio::task::JoinSet;

use super::accounts::{ARRIVED, Kept, WAITS, now, rounds, told};
use super::processes::{Server, shared_key};
use super::{patient_store, setting};

const IN_FLIGHT: usize = 1000;
const DEVICES: usize = 10;
/// Clocks are coarse: a login that follows a revocation within less is refused.
const A_MOMENT: Duration = Duration::from_millis(5);

/// What ends sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    LogOut,
    One,
    Others,
    All,
}

impl End {
    /// Whether the logins under way of the user are concerned.
    fn takes_logins(self) -> bool {
        matches!(self, Self::Others | Self::All)
    }
}

/// A request in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Save,
    Touch,
    Rotate,
    /// In the session of a device of the user.
    StepUp,
    /// Without a session, or with that of an anonymous visitor.
    LogIn,
    /// That of another user.
    Bystander,
    End,
}

impl What {
    fn path(self, dice: &mut fastrand::Rng) -> &'static str {
        match self {
            Self::Save | Self::Bystander => dice.choice(["/touched/visit", "/touched/count"]).unwrap(),
            Self::Touch => "/touched/read",
            Self::Rotate => "/touched/rotate",
            Self::StepUp | Self::LogIn => "/touched/people/log-in/ada",
            Self::End => unreachable!("its path is made of a handle"),
        }
    }
}

/// An answer, to what, and from which of the devices; when it was asked for, and when it was there.
struct Answer {
    what: What,
    device: usize,
    asked: u64,
    answered: u64,
    page: Page,
}

impl Answer {
    /// A new id is in the browser from now on, as if no answer overtook another; all else arrives later.
    async fn to(what: What, device: usize, browser: &HttpBrowser, path: &str, waits: u64) -> Self {
        let asked = now();
        let page = browser.ask(Request::get(path).header(WAITS, waits).body(Body::empty()).unwrap()).await;
        if matches!(what, What::Rotate | What::StepUp) {
            browser.receive(&page);
        }
        Self { what, device, asked, answered: now(), page }
    }

    /// When the server had it, at the latest.
    fn arrived(&self) -> u64 {
        self.page.header(ARRIVED).unwrap().parse().unwrap()
    }

    fn is_of_the_device(&self) -> bool {
        !matches!(self.what, What::LogIn | What::Bystander)
    }

    fn is_ok(&self) -> bool {
        self.page.status == 200
    }

    /// The cookie that it gives. `None`: it gives none, or takes one away.
    fn cookie(&self) -> Option<String> {
        let line = self.page.set_cookies().into_iter().find(|line| !line.contains("Max-Age=0"))?;
        let (_, value) = line.split(';').next()?.split_once('=')?;
        Some(value.to_owned())
    }
}

/// What the rounds of one kind of end came to.
#[derive(Debug, Default)]
struct Tally {
    ended: usize,
    under_way: usize,
    revived: usize,
    lost: usize,
    server_errors: usize,
    stray_cookies: usize,
    replaced: usize,
    unlisted: usize,
    refused: usize,
    before_dead: usize,
    between: usize,
    after: usize,
}

struct Machines {
    redis: RedisServer,
    servers: [Server; 2],
}

impl Machines {
    fn start() -> Self {
        let (redis, key) = (RedisServer::start(), shared_key());
        let servers = [Server::start(&redis, &key), Server::start(&redis, &key)];
        Self { redis, servers }
    }

    async fn logged_in(&self, user: &str) -> Device {
        let browser = self.servers[0].browser();
        let page = browser.get(&format!("/touched/people/log-in/{user}")).await;
        assert_eq!(page.status, 200);
        Device { cookie: browser.cookie("__Host-id").unwrap(), browser, handle: told(&page).1 }
    }

    async fn any_is_alive(&self, browser: &HttpBrowser, cookies: impl Iterator<Item = String>, user: &str) -> bool {
        for cookie in cookies {
            if self.is_alive(browser, &cookie, user).await {
                return true;
            }
        }
        false
    }

    async fn is_alive(&self, browser: &HttpBrowser, cookie: &str, user: &str) -> bool {
        let browser = browser.stranger();
        browser.set_cookie("__Host-id", cookie);
        let page = browser.get("/touched/people/user").await;
        assert_eq!(page.status, 200);
        page.body == user
    }
}

/// A device of a user, with the session that it had at first.
struct Device {
    browser: HttpBrowser,
    cookie: String,
    handle: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn r38_r42_what_ends_against_1000_requests_in_flight_stays_dead_and_all_else_lives() {
    let (machines, seed) = (Machines::start(), setting("FIGURES_SEED", fastrand::u64(..)));
    println!("FIGURES_SEED={seed}");
    let mut dice = fastrand::Rng::with_seed(seed);
    let rounds = rounds(5, 1);
    for end in [End::LogOut, End::One, End::Others, End::All] {
        let mut tally = Tally::default();
        for _ in 0..rounds {
            round(&machines, end, &mut dice, &mut tally).await;
        }
        println!("{end:?} against {IN_FLIGHT} requests in flight, {rounds} rounds: {tally:?}");
        let Tally { ended, under_way, revived, lost, server_errors, stray_cookies, replaced, unlisted, .. } = tally;
        assert_eq!((revived, lost, server_errors, stray_cookies, replaced, unlisted), (0, 0, 0, 0, 0, 0), "{end:?}");
        assert!(ended == rounds && under_way > 10 * rounds, "{end:?}");
    }
}

async fn round(machines: &Machines, end: End, dice: &mut fastrand::Rng, tally: &mut Tally) {
    machines.redis.run(&["FLUSHALL"]);
    let (mut devices, mut bystanders) = (Vec::new(), Vec::new());
    for _ in 0..DEVICES {
        devices.push(machines.logged_in("ada").await);
        bystanders.push(machines.logged_in("bob").await);
    }
    let answers = storm(machines, end, &devices, &bystanders, dice).await;
    tally.server_errors += answers.iter().filter(|answer| answer.page.status.is_server_error()).count();

    let the_end = answers.iter().find(|answer| answer.what == What::End && answer.is_ok()).unwrap();
    tally.ended += 1;
    let (begun, of) = told(&the_end.page);
    let during = begun..the_end.answered;
    tally.under_way += answers.iter().filter(|one| one.asked < during.end && one.answered > during.start).count();
    for answer in &answers {
        // Only who was given a new id is given a cookie; and only who logs out loses one.
        let may = answer.is_ok() && matches!(answer.what, What::Rotate | What::StepUp | What::LogIn | What::End);
        tally.stray_cookies += usize::from(!may && !answer.page.set_cookies().is_empty());
        if matches!(answer.what, What::LogIn | What::StepUp) {
            let is_alive = match answer.cookie() {
                Some(cookie) => machines.is_alive(&devices[0].browser, &cookie, "ada").await,
                None => false,
            };
            let is_kept = end == End::Others && answer.is_ok() && told(&answer.page).1 == of;
            if !is_kept {
                count_login(end, answer, is_alive, &during, tally);
            }
        }
    }
    count_devices(machines, end, &of, &devices, &answers, tally).await;
    for device in &bystanders {
        tally.lost += usize::from(!machines.is_alive(&device.browser, &device.cookie, "bob").await);
    }
    tally.replaced += count_replaced(machines, &devices, &answers).await;
    tally.unlisted += Kept::of(&machines.redis).unlisted();
}

/// Most at once, and some when the end was answered for sure.
fn when(dice: &mut fastrand::Rng) -> Duration {
    Duration::from_micros(if dice.u8(0..100) < 85 { dice.u64(0..100_000) } else { dice.u64(400_000..600_000) })
}

/// Sends all that is in flight, the end in the midst of it.
async fn storm(
    machines: &Machines,
    end: End,
    devices: &[Device],
    bystanders: &[Device],
    dice: &mut fastrand::Rng,
) -> Vec<Answer> {
    let mut requests = JoinSet::new();
    for nth in 0..IN_FLIGHT {
        let device = dice.usize(0..DEVICES);
        let what = match dice.usize(0..100) {
            0..30 => What::Save,
            30..50 => What::Touch,
            50..54 => What::Rotate,
            54..58 => What::StepUp,
            58..90 => What::LogIn,
            _ => What::Bystander,
        };
        let browser = match what {
            What::LogIn => devices[device].browser.stranger(),
            What::Bystander => bystanders[device].browser.clone(),
            _ => devices[device].browser.clone(),
        };
        if what == What::LogIn && nth % 4 == 0 {
            browser.get("/touched/push/7").await;
        }
        let browser = machines.servers[dice.usize(0..2)].visited_by(&browser);
        let (path, late) = (what.path(dice).to_owned(), when(dice));
        let waits = if dice.u8(0..4) > 0 { dice.u64(200_000..450_000) } else { 0 };
        requests.spawn(async move {
            tokio::time::sleep(late).await;
            vec![Answer::to(what, device, &browser, &path, waits).await]
        });
    }
    let path = match end {
        End::LogOut => "/touched/people/log-out".to_owned(),
        End::One => format!("/touched/people/revoke/ada/{}", devices[0].handle),
        End::Others => "/touched/people/revoke-others".to_owned(),
        End::All => "/touched/people/revoke-all/ada".to_owned(),
    };
    let browser = machines.servers[1].visited_by(&devices[0].browser);
    requests.spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let mut answers = Vec::new();
        // Whose id is replaced meanwhile asks again with his new one.
        while !answers.last().is_some_and(Answer::is_ok) && answers.len() < 100 {
            answers.push(Answer::to(What::End, 0, &browser, &path, 0).await);
        }
        answers
    });
    requests.join_all().await.into_iter().flatten().collect()
}

fn count_login(end: End, login: &Answer, is_alive: bool, during: &Range<u64>, tally: &mut Tally) {
    // The next rotation in the same session is as good a reason to be dead.
    let is_lost = login.what == What::LogIn && !is_alive;
    if !end.takes_logins() {
        tally.lost += usize::from(is_lost);
    } else if login.asked > during.end + A_MOMENT.as_micros() as u64 {
        tally.after += 1;
        tally.lost += usize::from(is_lost);
    } else if login.is_ok() && login.arrived() < during.start {
        tally.before_dead += usize::from(!is_alive);
        tally.revived += usize::from(is_alive);
    } else if login.page.status == StatusCode::CONFLICT {
        tally.refused += 1;
    } else {
        tally.between += 1;
    }
}

/// Each device had a session before, whatever its cookie is now.
async fn count_devices(
    machines: &Machines,
    end: End,
    of: &str,
    devices: &[Device],
    answers: &[Answer],
    tally: &mut Tally,
) {
    let living = Kept::of(&machines.redis).living;
    for (at, device) in devices.iter().enumerate() {
        let is_to_die = match end {
            End::LogOut => device.handle == of,
            End::One => at == 0,
            End::Others => device.handle != of,
            End::All => true,
        };
        let is_alive = living.contains_key(&device.handle);
        tally.revived += usize::from(is_to_die && is_alive);
        tally.lost += usize::from(!is_to_die && !is_alive);
        if !is_to_die {
            let own = answers.iter().filter(|answer| answer.device == at && answer.is_of_the_device());
            let cookies = own.filter_map(Answer::cookie).chain([device.cookie.clone()]);
            tally.lost += usize::from(!machines.any_is_alive(&device.browser, cookies, "ada").await);
        }
    }
    if end == End::Others {
        tally.lost += usize::from(!living.contains_key(of));
    }
}

/// Each device's visitor logs in once more, and then the answers arrive that did not give him a session before.
async fn count_replaced(machines: &Machines, devices: &[Device], answers: &[Answer]) -> usize {
    let mut replaced = 0;
    tokio::time::sleep(A_MOMENT).await;
    for (at, device) in devices.iter().enumerate() {
        let browser = device.browser.copy();
        assert_eq!(browser.get("/touched/people/log-in/ada").await.status, 200);
        let cookie = browser.cookie("__Host-id").unwrap();
        let own = answers.iter().filter(|answer| answer.device == at);
        // A new id that was given before is not asked about: no server can take it back.
        for late in own.filter(|answer| matches!(answer.what, What::Save | What::Touch) || !answer.is_ok()) {
            browser.receive(&late.page);
        }
        let is_in = machines.is_alive(&browser, &cookie, "ada").await;
        replaced += usize::from(browser.cookie("__Host-id") != Some(cookie) || !is_in);
    }
    replaced
}

/// An application's accounts: the version of the one password there is.
#[derive(Clone, Default)]
struct Password(Arc<AtomicU64>);

/// Each handler takes its time, in microseconds: before and after it looks at the password.
fn bank(layer: RedisSessionLayer, password: Password) -> Router {
    let log_in = async |Path((before, after, known)): Path<(u64, u64, u64)>,
                        Extension(password): Extension<Password>,
                        session: Session| {
        wait(before).await;
        if password.0.load(Ordering::SeqCst) != known {
            return Ok(StatusCode::UNAUTHORIZED);
        }
        wait(after).await;
        session.log_in("ada").await?;
        Ok::<_, Error>(StatusCode::OK)
    };
    let change = async |Path((before, after)): Path<(u64, u64)>,
                        Extension(password): Extension<Password>,
                        session: Session,
                        sessions: Sessions| {
        wait(before).await;
        password.0.fetch_add(1, Ordering::SeqCst);
        wait(after).await;
        sessions.revoke_others(&session).await.map(|_| ())
    };
    Router::new()
        .route("/log-in/{before}/{after}/{known}", get(log_in))
        .route("/change/{before}/{after}", get(change))
        .route("/user", get(async |session: Session| session.user::<String>().map(Option::unwrap_or_default)))
        .layer(layer)
        .layer(Extension(password))
}

async fn wait(micros: u64) {
    if micros > 0 {
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r42_a_login_with_the_old_password_is_dead_once_the_password_is_changed() {
    let seed = setting("FIGURES_SEED", fastrand::u64(..));
    println!("FIGURES_SEED={seed}");
    let mut dice = fastrand::Rng::with_seed(seed);
    let (redis, keys, password) = (RedisServer::start(), KeyRing::random().unwrap(), Password::default());
    let app = async || {
        let store = patient_store(&redis.url()).await;
        Browser::new(bank(RedisSessionLayer::with_store(store, keys.clone()), password.clone()))
    };
    let (here, there) = (app().await, app().await);
    let rounds = rounds(1000, 50);
    let (mut wrong, mut refused, mut dead, mut alive, mut owners) = (0, 0, 0, 0, 0);
    for _ in 0..rounds {
        redis.run(&["FLUSHALL"]);
        let (owner, thief) = (here.stranger(), there.stranger());
        let known = password.0.load(Ordering::SeqCst);
        assert_eq!(owner.get(&format!("/log-in/0/0/{known}")).await.status, 200);
        let mut micros = || if dice.bool() { dice.u64(0..3000) } else { 0 };
        let log_in = format!("/log-in/{}/{}/{known}", micros(), micros());
        let change = format!("/change/{}/{}", micros(), micros());
        let (visitor, changes) = (thief.clone(), owner.clone());
        let login = tokio::spawn(async move { visitor.get(&log_in).await });
        let changed = tokio::spawn(async move { changes.get(&change).await });
        assert_eq!(changed.await.unwrap().status, 200);
        match login.await.unwrap().status.as_u16() {
            200 if thief.get("/user").await.body == "ada" => alive += 1,
            200 => dead += 1,
            401 => wrong += 1,
            409 => refused += 1,
            status => panic!("{status}"),
        }
        owners += usize::from(owner.get("/user").await.body == "ada");
    }
    println!(
        "a new password against a login with the old one in flight, {rounds} rounds: {wrong} times the password was wrong \
         already, {refused} refused, {dead} dead afterwards, {alive} alive; {owners} times its owner stayed in"
    );
    assert_eq!((alive, owners), (0, rounds));
    assert!(refused > 0 && dead > 0, "{refused} {dead}");
}
