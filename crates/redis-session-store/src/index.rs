//! The list of a user's sessions on Redis: a sorted set in a slot of its own, its three scripts, and what they say.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use redis_session_core::{
    Doom, Doomed, Enter, Entered, Error, Kind, Page, PageMark, Prolong, Prolonged, Replication, SessionHandle,
    SessionKey, Standing, Stored, Time, UserKey, Waited, Which,
};

use crate::script::{Script, Words, named, unexpected};
use crate::server::{Failure, Reply, ScanMark, Server};
use crate::store::Operations;

pub(crate) static ENTER: Script = Script {
    lua: concat!(include_str!("lua/script.lua"), include_str!("lua/index.lua"), include_str!("lua/enter.lua")),
    sha: "a932636f5b133eac2b14d7b7e3e4c69f679ebd75",
};
pub(crate) static PROLONG: Script = Script {
    lua: concat!(include_str!("lua/script.lua"), include_str!("lua/index.lua"), include_str!("lua/prolong.lua")),
    sha: "0aa867a4670e68cf6d3004a38fb5ef4a120c6b45",
};
pub(crate) static DOOM: Script = Script {
    lua: concat!(include_str!("lua/script.lua"), include_str!("lua/index.lua"), include_str!("lua/doom.lua")),
    sha: "c0a105247f770b5674fcc62499fc25d190961040",
};

/// How many keys one `SCAN` looks at.
const SCANNED_AT_ONCE: &[u8] = b"1000";

impl<S: Server> Operations<S> {
    pub(crate) async fn enter(
        &self,
        user: &UserKey,
        enter: &Enter,
        wait: Option<Replication>,
    ) -> Result<Waited<Entered>, Error> {
        let key = self.user_key(user);
        // On one server the session is written after its entry, and waits for both.
        let wait = wait.filter(|_| self.server.spreads_keys());
        let words = vec![enter_words(enter, self.until(&key, enter.not_after))];
        let wrote = |outcome: &Entered| matches!(outcome, Entered::Entered { .. });
        self.write(&ENTER, &key, words, wait, |reply| entered(reply, &key), wrote).await
    }

    pub(crate) async fn prolong(&self, user: &UserKey, prolong: &Prolong) -> Result<Prolonged, Error> {
        let key = self.user_key(user);
        self.checked(prolonged(
            self.run(&PROLONG, &key, vec![prolong_words(prolong, self.until(&key, prolong.not_after))]).await?,
            &key,
        ))
    }

    /// Waits on any topology: there may be no session to be ended after it.
    pub(crate) async fn doom(
        &self,
        user: &UserKey,
        doom: &Doom,
        wait: Option<Replication>,
    ) -> Result<Waited<Doomed>, Error> {
        let key = self.user_key(user);
        let words = vec![doom_words(doom, self.until(&key, doom.not_after))];
        let wrote = |outcome: &Doomed| matches!(outcome, Doomed::Doomed(_));
        self.write(&DOOM, &key, words, wait, |reply| doomed(reply, &key), wrote).await
    }

    pub(crate) async fn leave(&self, user: &UserKey, sessions: &[SessionHandle]) -> Result<(), Error> {
        if sessions.is_empty() {
            return Ok(());
        }
        let members = sessions.iter().map(|session| session.to_text().into()).collect();
        let reply = self.server.command("ZREM", &self.user_key(user), members, self.by()).await;
        reply.map(drop).map_err(Failure::of_write)
    }

    pub(crate) async fn standing(&self, user: &UserKey, session: SessionHandle) -> Result<Option<Standing>, Error> {
        let member = vec![session.to_text().into()];
        match self.server.command("ZSCORE", &self.user_key(user), member, self.by()).await.map_err(Failure::of_read)? {
            Reply::Nothing => Ok(None),
            Reply::Text(score) if score.starts_with(b"-") => Ok(Some(Standing::Doomed)),
            Reply::Text(_) => Ok(Some(Standing::Listed)),
            _ => Err(unexpected()),
        }
    }

    pub(crate) async fn sessions(&self, user: &UserKey) -> Result<Vec<SessionHandle>, Error> {
        let (key, by) = (self.user_key(user), self.by());
        self.know_the_time(by).await?;
        // What is past its time is dropped by the next step that writes.
        let now = self.server.now().map(|now| self.until(&key, now));
        let from = now.map_or_else(|| "0".to_owned(), |now| format!("({}", now.as_millis()));
        let range = vec![from.into(), Bytes::from_static(b"+inf")];
        let reply = self.server.command("ZRANGEBYSCORE", &key, range, by).await;
        match reply.map_err(Failure::of_read)? {
            Reply::List(members) => handles(members.into_iter().filter(|member| !is_revocation(member))),
            _ => Err(unexpected()),
        }
    }

    /// Our own fields of a record, and no others.
    pub(crate) async fn glance(&self, session: &SessionKey) -> Result<Option<Stored>, Error> {
        const OWN: [&str; 4] = ["@", "@ended", "@user", "@label"];
        let names = OWN.map(Bytes::from).to_vec();
        let reply = self.server.command("HMGET", &self.key(session), names, self.by()).await;
        let Reply::List(values) = reply.map_err(Failure::of_read)? else { return Err(unexpected()) };
        if values.len() != OWN.len() {
            return Err(unexpected());
        }
        let mut hash = Vec::with_capacity(OWN.len());
        for (name, value) in OWN.into_iter().zip(values) {
            match value {
                Reply::Text(value) => hash.push((Bytes::from(name), value)),
                Reply::Nothing => {}
                _ => return Err(unexpected()),
            }
        }
        self.checked(Stored::parse(hash, session))
    }

    /// Some of a realm's sessions, as `SCAN` finds them.
    pub(crate) async fn page(&self, realm: &Arc<str>, from: Option<PageMark>) -> Result<Page, Error> {
        let from = from.map(|PageMark(text)| mark(&text)).transpose()?.unwrap_or_default();
        let place = [self.prefix.as_str(), realm, ":"].concat();
        let pattern = [&literally(&place), "??????????????????????"].concat();
        let words = [b"MATCH".as_slice(), pattern.as_bytes(), b"COUNT", SCANNED_AT_ONCE, b"TYPE", b"hash"];
        let args = words.iter().map(|word| Bytes::copy_from_slice(word)).collect();
        let (keys, next) = self.server.scan(from, args, self.by()).await.map_err(Failure::of_read)?;
        let session = |key: Reply| match key {
            Reply::Text(key) => {
                let handle = std::str::from_utf8(&key).ok()?.strip_prefix(&place)?.to_owned();
                SessionKey::from_text(realm, &handle)
            }
            _ => None,
        };
        let text = |ScanMark { visited, server, cursor }| format!("{cursor} {server} {}", visited.join(","));
        let next = next.map(|next| PageMark(text(next)));
        Ok(Page { sessions: keys.into_iter().filter_map(session).collect(), next })
    }

    fn user_key(&self, user: &UserKey) -> Bytes {
        [&self.prefix, user.to_text().as_str()].concat().into()
    }
}

/// What a page before said. It is opaque to callers, who may have kept it as text.
fn mark(text: &str) -> Result<ScanMark, Error> {
    let mut parts = text.splitn(3, ' ');
    let read = (|| {
        let (cursor, server) = (parts.next()?.parse().ok()?, parts.next()?.to_owned());
        let visited = parts.next()?.split(',').filter(|server| !server.is_empty()).map(str::to_owned).collect();
        Some(ScanMark { visited, server, cursor })
    })();
    read.ok_or_else(|| Error::new(Kind::Config, "this is no mark of a page of sessions"))
}

/// A text as a glob that matches nothing else.
fn literally(text: &str) -> String {
    text.chars().flat_map(|c| if "*?[]^\\-".contains(c) { vec!['\\', c] } else { vec![c] }).collect()
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn enter_words(enter: &Enter, until: Time) -> Bytes {
    Words::new()
        .handle(Some(enter.session))
        .number(ms(enter.life))
        .optional(enter.cap.map(|cap| cap as u64))
        .number(ms(enter.age))
        .handle(enter.instead_of)
        .number(until.as_millis())
        .finish()
}

fn prolong_words(prolong: &Prolong, until: Time) -> Bytes {
    Words::new()
        .handle(Some(prolong.session))
        .number(ms(prolong.life))
        .flag(prolong.add, "add")
        .number(until.as_millis())
        .finish()
}

fn doom_words(doom: &Doom, until: Time) -> Bytes {
    let (which, session) = match doom.which {
        Which::Only(session) => ("only", Some(session)),
        Which::AllBut(session) => ("but", Some(session)),
        Which::All => ("all", None),
    };
    Words::new().word(which.as_bytes()).handle(session).number(until.as_millis()).finish()
}

/// The last revocation, which is a member as well.
fn is_revocation(member: &Reply) -> bool {
    matches!(member, Reply::Text(text) if text == "!")
}

fn handles(members: impl Iterator<Item = Reply>) -> Result<Vec<SessionHandle>, Error> {
    let handle = |member| match member {
        Reply::Text(text) => std::str::from_utf8(&text).ok()?.parse().ok(),
        _ => None,
    };
    members.map(|member| handle(member).ok_or_else(unexpected)).collect()
}

/// What a reply to `enter.lua` says.
fn entered(reply: Reply, key: &Bytes) -> Result<Entered, Error> {
    let (word, mut parts) = named(reply, key)?;
    match (word.as_ref(), parts.next()) {
        (b"late", None) => Ok(Entered::Late),
        (b"revoked", None) => Ok(Entered::Revoked),
        (b"doomed", None) => Ok(Entered::Doomed),
        (b"entered", Some(since)) => {
            let since_revoked = match since {
                Reply::Number(ms) => Some(Duration::from_millis(u64::try_from(ms).map_err(|_| unexpected())?)),
                Reply::Text(none) if none.is_empty() => None,
                _ => return Err(unexpected()),
            };
            Ok(Entered::Entered { since_revoked, doomed: handles(parts)? })
        }
        _ => Err(unexpected()),
    }
}

/// What a reply to `prolong.lua` says.
fn prolonged(reply: Reply, key: &Bytes) -> Result<Prolonged, Error> {
    let (word, mut parts) = named(reply, key)?;
    match (word.as_ref(), parts.next()) {
        (b"late", None) => Ok(Prolonged::Late),
        (b"doomed", None) => Ok(Prolonged::Doomed),
        (b"missing", None) => Ok(Prolonged::Missing),
        (b"prolonged", None) => Ok(Prolonged::Prolonged),
        _ => Err(unexpected()),
    }
}

/// What a reply to `doom.lua` says.
fn doomed(reply: Reply, key: &Bytes) -> Result<Doomed, Error> {
    let (word, parts) = named(reply, key)?;
    match (word.as_ref(), parts.len()) {
        (b"late", 0) => Ok(Doomed::Late),
        (b"yourself", 0) => Ok(Doomed::Yourself),
        (b"missing", 0) => Ok(Doomed::Missing),
        (b"doomed", _) => Ok(Doomed::Doomed(handles(parts)?)),
        _ => Err(unexpected()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sess:main:user:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const HANDLE: &str = "AAAAAAAAAAAAAAAAAAAAAA";

    fn session() -> SessionHandle {
        HANDLE.parse().unwrap()
    }

    fn text(text: &str) -> Reply {
        Reply::Text(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn reply(parts: &[Reply]) -> Reply {
        Reply::List([&[text(KEY)], parts].concat())
    }

    #[test]
    fn the_words_stand_in_their_order() {
        let not_after = Time::from_millis(9);
        let mut enter = Enter {
            session: session(),
            life: Duration::from_millis(5),
            cap: Some(3),
            age: Duration::from_millis(7),
            instead_of: Some(session()),
            not_after,
        };
        assert_eq!(enter_words(&enter, not_after), format!("{HANDLE} 5 3 7 {HANDLE} 9 "));
        (enter.cap, enter.instead_of) = (None, None);
        assert_eq!(enter_words(&enter, not_after), format!("{HANDLE} 5 - 7 - 9 "));
        for (add, word) in [(true, "add"), (false, "-")] {
            let prolong = Prolong { session: session(), life: Duration::from_millis(5), add, not_after };
            assert_eq!(prolong_words(&prolong, not_after), format!("{HANDLE} 5 {word} 9 "));
        }
        let dooms = [
            (Which::Only(session()), "only", HANDLE),
            (Which::AllBut(session()), "but", HANDLE),
            (Which::All, "all", "-"),
        ];
        for (which, word, named) in dooms {
            assert_eq!(doom_words(&Doom { which, not_after }, not_after), format!("{word} {named} 9 "));
        }
    }

    #[test]
    fn each_reply_says_what_its_header_says() {
        let key = Bytes::from(KEY);
        let second = Some(Duration::from_secs(1));
        let enters = [
            (vec![text("late")], Entered::Late),
            (vec![text("revoked")], Entered::Revoked),
            (vec![text("doomed")], Entered::Doomed),
            (vec![text("entered"), text("")], Entered::Entered { since_revoked: None, doomed: vec![] }),
            (
                vec![text("entered"), Reply::Number(1000), text(HANDLE)],
                Entered::Entered { since_revoked: second, doomed: vec![session()] },
            ),
        ];
        for (parts, wanted) in enters {
            assert_eq!(entered(reply(&parts), &key).unwrap(), wanted);
        }
        let prolongs = [
            ("late", Prolonged::Late),
            ("doomed", Prolonged::Doomed),
            ("missing", Prolonged::Missing),
            ("prolonged", Prolonged::Prolonged),
        ];
        for (word, wanted) in prolongs {
            assert_eq!(prolonged(reply(&[text(word)]), &key).unwrap(), wanted);
        }
        let dooms = [
            (vec![text("late")], Doomed::Late),
            (vec![text("yourself")], Doomed::Yourself),
            (vec![text("missing")], Doomed::Missing),
            (vec![text("doomed")], Doomed::Doomed(vec![])),
            (vec![text("doomed"), text(HANDLE)], Doomed::Doomed(vec![session()])),
        ];
        for (parts, wanted) in dooms {
            assert_eq!(doomed(reply(&parts), &key).unwrap(), wanted);
        }
    }

    #[test]
    fn any_other_reply_is_corrupt() {
        let key = Bytes::from(KEY);
        let replies = [
            Reply::Nothing,
            Reply::Other,
            Reply::Number(1),
            text("late"),
            Reply::List(vec![]),
            Reply::List(vec![text("another key"), text("late")]),
            reply(&[]),
            reply(&[text("yes")]),
            reply(&[text("late"), text("late")]),
            reply(&[text("entered")]),
            reply(&[text("entered"), Reply::Number(-1)]),
            reply(&[text("entered"), text("x")]),
            reply(&[text("entered"), text(""), text("no handle")]),
            reply(&[text("doomed"), Reply::Number(1)]),
        ];
        for reply in replies {
            assert!(entered(reply.clone(), &key).unwrap_err().is_corrupt(), "{reply:?}");
            assert!(prolonged(reply.clone(), &key).unwrap_err().is_corrupt(), "{reply:?}");
            assert!(doomed(reply.clone(), &key).unwrap_err().is_corrupt(), "{reply:?}");
        }
    }

    #[test]
    fn r70_a_prefix_is_matched_as_it_is() {
        assert_eq!(literally("a*b?[c]^-\\:"), "a\\*b\\?\\[c\\]\\^\\-\\\\:");
    }
}
