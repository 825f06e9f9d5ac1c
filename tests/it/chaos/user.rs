//! A user: logs in, writes, rotates, logs out, here or everywhere, and again, and writes every answer down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use fastrand::Rng;
use redis_session::Durability;
use redis_session_testkit::{Browser, Page};

use super::life::{Life, Lost, State, TRIED_AGAIN_WITHIN, Wrong};
use super::shop::Seen;

/// The longest that a step of a request waits for Redis: the default.
const DEADLINE: Duration = Duration::from_millis(250);
/// What a busy machine may add.
const SLACK: Duration = Duration::from_secs(2);
/// How long a user waits before the next request, in milliseconds.
const PACE: std::ops::Range<u64> = 20..150;

/// What a user asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asked {
    LogIn,
    Read,
    Edit,
    Save,
    Rotate,
    LogOut,
    Revoke,
}

impl Asked {
    /// How often it waits for Redis at most, one wait after the other.
    fn steps(self) -> u32 {
        match self {
            // Load, enter, write, look at the entry.
            Self::LogIn => 4,
            Self::Read => 1,
            Self::Edit | Self::Save | Self::Rotate => 2,
            // Load or doom, end, leave the list.
            Self::LogOut | Self::Revoke => 3,
        }
    }

    fn sets_cookies(self) -> bool {
        matches!(self, Self::LogIn | Self::Rotate | Self::LogOut)
    }
}

/// An answer.
pub(super) struct Answer {
    pub(super) asked: Asked,
    pub(super) at: Instant,
    pub(super) status: u16,
    pub(super) took: Duration,
}

pub(super) struct User {
    pub(super) name: String,
    app: Router,
    rng: Rng,
    stop: Arc<AtomicBool>,
    durability: Durability,
    pub(super) lives: Vec<Life>,
    pub(super) answers: Vec<Answer>,
    pub(super) wrong: Vec<(Wrong, String)>,
}

impl User {
    pub(super) fn new(number: usize, app: Router, seed: u64, stop: Arc<AtomicBool>, durability: Durability) -> Self {
        let rng = Rng::with_seed(seed.wrapping_add(1 + number as u64));
        let (lives, answers, wrong) = (Vec::new(), Vec::new(), Vec::new());
        Self { name: format!("user-{number}"), app, rng, stop, durability, lives, answers, wrong }
    }

    /// Until he is told to stop; the last session stays.
    pub(super) async fn live(mut self) -> Self {
        while let Some(mut life) = self.log_in().await {
            for _ in 0..self.rng.u32(4..30) {
                self.pause().await;
                if self.is_stopped() || life.state != State::Alive {
                    break;
                }
                self.act(&mut life).await;
            }
            if !self.is_stopped() && life.state == State::Alive {
                match self.rng.u32(0..4) {
                    // On a device that is left as it is.
                    0 => {}
                    1 => self.log_out_everywhere(&mut life).await,
                    _ => self.log_out(&mut life).await,
                }
            }
            // In a tab that was left open: what it is told takes no cookie away, nor gives one.
            self.ask(&life.browser, Asked::Read, "/read").await;
            self.lives.push(life);
        }
        self
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    async fn pause(&mut self) {
        tokio::time::sleep(Duration::from_millis(self.rng.u64(PACE))).await;
    }

    /// Logs in anew, again until it works. `None`: he is to stop.
    async fn log_in(&mut self) -> Option<Life> {
        let browser = Browser::new(self.app.clone());
        for attempt in 0.. {
            if self.is_stopped() {
                return None;
            }
            // A name for each attempt: one of unknown outcome may have made a session too.
            let life = format!("{}.{}.{attempt}", self.name, self.lives.len());
            let page = self.ask(&browser, Asked::LogIn, &format!("/log-in/{}/{life}", self.name)).await;
            match (page.status.as_u16(), seen(&page)) {
                (200, Some(seen)) => return Some(Life::new(&self.name, &life, &seen, browser, self.is_durable())),
                // Its entry went with a primary before the login looked at it once more, or nobody knows.
                (409 | 503, _) => {}
                _ => self.wrong.push((Wrong::Answer, format!("{page:?}"))),
            }
            self.pause().await;
        }
        None
    }

    async fn act(&mut self, life: &mut Life) {
        match self.rng.u32(0..100) {
            0..55 => {
                let tag = life.next_tag(0);
                self.edit(life, vec![tag]).await;
            }
            // Two tabs, perhaps of two servers.
            55..70 => {
                let tags = vec![life.next_tag(0), life.next_tag(1)];
                self.edit(life, tags).await;
            }
            70..82 => self.rotate(life).await,
            _ => {
                let sent = Instant::now();
                let page = self.ask(&life.browser.clone(), Asked::Read, "/read").await;
                self.look(life, &page, sent);
            }
        }
    }

    async fn edit(&mut self, life: &mut Life, tags: Vec<String>) {
        let asked = if self.rng.bool() { Asked::Edit } else { Asked::Save };
        let path = if asked == Asked::Edit { "edit" } else { "save" };
        let (browser, sent) = (life.browser.clone(), Instant::now());
        let pages = tags.iter().map(|tag| timed(&browser, format!("/{path}/{tag}")));
        for ((page, took), tag) in futures_util::future::join_all(pages).await.into_iter().zip(tags) {
            self.answered(&browser, asked, &page, took);
            self.look(life, &page, sent);
            life.edited(tag, page.status == 200);
        }
    }

    async fn rotate(&mut self, life: &mut Life) {
        let (browser, before, sent) = (life.browser.clone(), life.browser.copy(), Instant::now());
        let page = self.ask(&browser, Asked::Rotate, "/rotate").await;
        self.look(life, &page, sent);
        match page.status.as_u16() {
            200 => life.rotated(Some(before)),
            503 => life.rotated(None),
            _ => {}
        }
    }

    /// Until his cookie is gone: a request that cannot even read its session leaves it, and logs nobody out.
    async fn log_out(&mut self, life: &mut Life) {
        let browser = life.browser.clone();
        life.browser = browser.copy();
        while !self.is_stopped() && life.state == State::Alive {
            let sent = Instant::now();
            let page = self.ask(&browser, Asked::LogOut, "/log-out").await;
            self.look(life, &page, sent);
            match (page.status.as_u16(), removes_cookie(&page)) {
                _ if life.state != State::Alive => {}
                (200, _) => life.state = State::LoggedOut(Instant::now()),
                (_, true) => life.state = State::LogOutFailed(Instant::now()),
                (_, false) => self.pause().await,
            }
        }
    }

    /// Until it is said that all of his sessions have ended: who is told that it failed has to do it again.
    async fn log_out_everywhere(&mut self, life: &mut Life) {
        let set = |user: &mut Self, life: &mut Life, from: State, to: State| {
            let lives = user.lives.iter_mut().chain([life]);
            lives.filter(|life| life.state == from).for_each(|life| life.state = to);
        };
        let begun = Instant::now();
        set(self, life, State::Alive, State::Revoking(begun));
        let browser = Browser::new(self.app.clone());
        while !self.is_stopped() {
            let page = self.ask(&browser, Asked::Revoke, &format!("/revoke/{}", self.name)).await;
            match page.status.as_u16() {
                200 => return set(self, life, State::Revoking(begun), State::Revoked(begun, Instant::now())),
                503 => self.pause().await,
                _ => self.wrong.push((Wrong::Answer, format!("{page:?}"))),
            }
        }
    }

    fn is_durable(&self) -> bool {
        self.durability != Durability::Fast
    }

    async fn ask(&mut self, browser: &Browser<Router>, asked: Asked, path: &str) -> Page {
        let (page, took) = timed(browser, path.to_owned()).await;
        self.answered(browser, asked, &page, took);
        page
    }

    /// Writes an answer down, and looks at what is the same for all.
    fn answered(&mut self, browser: &Browser<Router>, asked: Asked, page: &Page, took: Duration) {
        browser.receive(page);
        self.answers.push(Answer { asked, at: Instant::now(), status: page.status.as_u16(), took });
        let has_cookies = !page.set_cookies().is_empty();
        if has_cookies && !asked.sets_cookies() || removes_cookie(page) && asked != Asked::LogOut {
            self.wrong.push((Wrong::Cookie, format!("{asked:?}: {page:?}")));
        }
        let waits = self.durability.replication().map_or(Duration::ZERO, |replication| replication.within);
        if took > DEADLINE * asked.steps() + waits + SLACK {
            self.wrong.push((Wrong::TooSlow, format!("{asked:?}: {took:?}")));
        }
    }

    /// Compares an answer to a visitor with a session with what he knows of it.
    fn look(&mut self, life: &mut Life, page: &Page, sent: Instant) {
        match (page.status.as_u16(), seen(page)) {
            (200 | 401, Some(seen)) => life.look(&seen, sent),
            // The session ended, or its id was replaced, between the load and the write.
            (409, _) if life.state == State::Alive => life.gone("gone before the write"),
            (409 | 503, _) => {}
            _ => self.wrong.push((Wrong::Answer, format!("{}: {page:?}", life.name))),
        }
    }

    /// Looks at every session that he had, with every cookie that he had, when all is well again.
    pub(super) async fn look_back(&mut self) {
        for mut life in std::mem::take(&mut self.lives) {
            for (browser, at) in std::mem::take(&mut life.before_rotations) {
                let seen = self.read(&browser).await;
                life.look_behind(&seen, Lost::Rotation, at, at);
            }
            let (sent, seen) = (Instant::now(), self.read(&life.browser.clone()).await);
            match life.state {
                State::Alive => life.look(&seen, sent),
                State::LoggedOut(at) => life.look_behind(&seen, Lost::LogOut, at, at),
                // Nobody is told when it succeeds.
                State::LogOutFailed(at) => {
                    life.look_behind(&seen, Lost::FailedLogOut, at, at + TRIED_AGAIN_WITHIN);
                }
                State::Revoked(from, to) => life.look_behind(&seen, Lost::Revocation, from, to),
                State::Revoking(_) | State::RotatedAway | State::Lost => {}
            }
            self.lives.push(life);
        }
    }

    async fn read(&mut self, browser: &Browser<Router>) -> Seen {
        for _ in 0..100 {
            let (page, _) = timed(browser, "/read".to_owned()).await;
            if let (200, Some(seen)) = (page.status.as_u16(), seen(&page)) {
                return seen;
            }
            self.pause().await;
        }
        panic!("{} is not served although all is well", self.name)
    }
}

fn removes_cookie(page: &Page) -> bool {
    page.set_cookies().iter().any(|cookie| cookie.contains("Max-Age=0"))
}

fn seen(page: &Page) -> Option<Seen> {
    serde_json::from_str(&page.body).ok()
}

async fn timed(browser: &Browser<Router>, path: String) -> (Page, Duration) {
    let sent = Instant::now();
    let page = browser.ask(Request::get(path).body(Body::empty()).unwrap()).await;
    (page, sent.elapsed())
}
