//! The three scripts of sessions: their texts and hashes, their arguments, and what their replies say.

use bytes::Bytes;
use redis_session_core::{
    Change, Changes, Create, Created, End, Ended, Error, Kind, Life, LogIn, Proof, Save, Saved, SessionHandle,
    SessionKey, Step, Stored, Time, Token, Tombstone, Whose,
};

use crate::server::Reply;

/// A script, and the SHA-1 by which Redis knows it.
pub(crate) struct Script {
    pub(crate) lua: &'static str,
    pub(crate) sha: &'static str,
}

pub(crate) static SAVE: Script = Script {
    lua: concat!(
        include_str!("lua/script.lua"),
        include_str!("lua/record.lua"),
        include_str!("lua/keep.lua"),
        include_str!("lua/fields.lua"),
        include_str!("lua/save.lua")
    ),
    sha: "1d88025d3c282743ccd6bf80d4a9c6e785d7fc4f",
};
pub(crate) static CREATE: Script = Script {
    lua: concat!(
        include_str!("lua/script.lua"),
        include_str!("lua/record.lua"),
        include_str!("lua/keep.lua"),
        include_str!("lua/create.lua")
    ),
    sha: "a9218dc472ac6829c6ab37327060685cae87b355",
};
pub(crate) static END: Script = Script {
    lua: concat!(
        include_str!("lua/script.lua"),
        include_str!("lua/record.lua"),
        include_str!("lua/keep.lua"),
        include_str!("lua/end.lua")
    ),
    sha: "78bdd8bb6cc8e8e1de3571dd65808b01a784731e",
};

/// The arguments of `create.lua`.
pub(crate) fn create_args(create: &Create, until: Time) -> Result<Vec<Bytes>, Error> {
    let words = Words::new()
        .word(create.token.as_text())
        .number(until.as_millis())
        .proof(Some(create.proof))
        .optional(create.wish.idle.flatten())
        .optional(create.wish.remember.flatten())
        .life(&create.life)
        .login(create.login.as_ref());
    let mut args = Vec::with_capacity(3 + 2 * create.fields.len());
    args.push(words.finish());
    args.extend(create.login.iter().flat_map(user_and_label));
    for (name, value) in create.fields.iter() {
        args.extend([not_reserved(name)?.clone(), value.clone()]);
    }
    Ok(args)
}

/// The arguments of `save.lua`.
pub(crate) fn save_args(save: &Save, until: Time) -> Result<Vec<Bytes>, Error> {
    let Changes { clear, fields } = &save.changes;
    let login = match &save.step {
        Step::LogIn(_, login) => Some(login),
        _ => None,
    };
    let mut args = Vec::with_capacity(3 + 2 * fields.len());
    args.push(Bytes::new());
    args.extend(login.into_iter().flat_map(user_and_label));
    let first = args.len();
    for (name, change) in fields {
        not_reserved(name)?;
        if *change == Change::Remove {
            args.push(name.clone());
        }
    }
    let removed = args.len() - first;
    for (name, change) in fields {
        // After a clear every count begins at nothing.
        if let (Change::Increment(by), false) = (change, clear) {
            args.extend([name.clone(), by.to_string().into()]);
        }
    }
    let counted = (args.len() - first - removed) / 2;
    for (name, change) in fields {
        match change {
            Change::Set(value) => args.extend([name.clone(), value.clone()]),
            Change::Increment(by) if *clear => args.extend([name.clone(), by.to_string().into()]),
            Change::Increment(_) | Change::Remove => {}
        }
    }
    args[0] = Words::new()
        .word(save.token.as_ref().map_or(NONE, Token::as_text))
        .join(save.earlier.iter().map(Token::as_text))
        .number(until.as_millis())
        .proof(Some(save.proof))
        .word(save.base.as_text())
        .word(if save.merges { b"merge" } else { b"edit" })
        .word(step(&save.step))
        .proof(save.step.new_proof())
        .flag(save.renews, "renews")
        .wish(save.wish.idle)
        .wish(save.wish.remember)
        .life(&save.life)
        .number(save.limit as u64)
        .flag(*clear, "clear")
        .number(removed as u64)
        .number(counted as u64)
        .login(login)
        .finish();
    Ok(args)
}

/// The arguments of `end.lua`. `local` puts a time into the clock of the server that it goes to.
pub(crate) fn end_args(end: &End, local: impl Fn(Time) -> Time, channel: &Bytes) -> Vec<Bytes> {
    let words = Words::new()
        .number(local(end.not_after).as_millis())
        .word(end.reason.as_str().as_bytes())
        .flag(end.reason.also_ends_what_is_to_come(), "mark");
    let words = match &end.whose {
        Whose::Nobodys(proof) => words.word(b"nobody").proof(Some(*proof)),
        Whose::Users(_) => words.word(b"user").word(NONE),
        Whose::ArrivedBefore(time) => words.word(b"arrived").number(local(*time).as_millis()),
        Whose::Expired(_) => words.word(b"expired").word(NONE),
    };
    let words = match &end.whose {
        Whose::Expired(life) => words.life(life),
        _ => words.word(NONE).word(NONE).word(NONE),
    };
    let mut args = vec![words.finish(), channel.clone()];
    if let Whose::Users(user) = &end.whose {
        args.push(Bytes::copy_from_slice(user.as_str().as_bytes()));
    }
    args
}

fn step(step: &Step) -> &'static [u8] {
    match step {
        Step::Keep => b"keep",
        Step::Seen => b"seen",
        Step::Rotate(_) => b"rotate",
        Step::Renew(_) => b"renew",
        Step::LogIn(..) => b"login",
    }
}

/// Both may hold anything, so they are arguments of their own.
fn user_and_label(login: &LogIn) -> [Bytes; 2] {
    let label = login.label.as_deref().unwrap_or_default();
    [login.user.as_str(), label].map(|text| Bytes::copy_from_slice(text.as_bytes()))
}

/// The first argument of a script: words in the order of its Lua file's header, each with a space after it.
///
/// One text, because the client makes a part of a message of every argument: sixteen cost more than what they say.
pub(crate) struct Words(Vec<u8>);

/// The word for what is not there.
const NONE: &[u8] = b"-";

impl Words {
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(192))
    }

    pub(crate) fn word(self, word: &[u8]) -> Self {
        self.join([word].into_iter())
    }

    /// One word of these.
    fn join<'a>(mut self, parts: impl Iterator<Item = &'a [u8]>) -> Self {
        let begin = self.0.len();
        parts.for_each(|part| self.0.extend_from_slice(part));
        if self.0.len() == begin {
            self.0.extend_from_slice(NONE);
        }
        self.0.push(b' ');
        self
    }

    fn proof(self, proof: Option<Proof>) -> Self {
        match proof {
            Some(proof) => self.word(&proof.to_ascii()),
            None => self.word(NONE),
        }
    }

    /// Lua's numbers are exact up to [`Time::MAX`]; more means the same.
    pub(crate) fn number(self, number: u64) -> Self {
        let (mut digits, mut begin, mut rest) = ([0; 20], 20, number.min(Time::MAX.as_millis()));
        // By hand, since a save has seven: a formatter's work shows in a profile.
        loop {
            begin -= 1;
            digits[begin] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                return self.word(&digits[begin..]);
            }
        }
    }

    pub(crate) fn optional(self, number: Option<u64>) -> Self {
        match number {
            Some(number) => self.number(number),
            None => self.word(NONE),
        }
    }

    fn wish(self, change: Option<Option<u64>>) -> Self {
        match change {
            Some(wish) => self.optional(wish),
            None => self.word(b"="),
        }
    }

    pub(crate) fn handle(self, session: Option<SessionHandle>) -> Self {
        match session {
            Some(session) => self.word(session.to_text().as_bytes()),
            None => self.word(NONE),
        }
    }

    pub(crate) fn flag(self, is_set: bool, word: &'static str) -> Self {
        self.word(if is_set { word.as_bytes() } else { NONE })
    }

    fn login(self, login: Option<&LogIn>) -> Self {
        match login {
            Some(login) => {
                let waited = u64::try_from(login.waited.as_millis()).unwrap_or(u64::MAX);
                self.number(u64::from(login.level.0)).number(waited)
            }
            None => self.word(NONE).word(NONE),
        }
    }

    fn life(self, life: &Life) -> Self {
        self.number(life.idle).number(life.absolute).number(life.touch)
    }

    pub(crate) fn finish(self) -> Bytes {
        self.0.into()
    }
}

/// Such a name would write into our own fields.
fn not_reserved(name: &Bytes) -> Result<&Bytes, Error> {
    match name.first() {
        Some(b'@') => Err(Error::field(name, "begins with \"@\", which is reserved")),
        _ => Ok(name),
    }
}

/// What a reply to `create.lua` says.
pub(crate) fn created(reply: Reply, key: &Bytes) -> Result<Created, Error> {
    match open(reply, key)? {
        (word, [Reply::Number(at), ..], 1) if word == "created" => time(at).map(|at| Created::Created { at }),
        (word, _, 0) if word == "exists" => Some(Created::Exists),
        (word, [Reply::Number(_), ..], 1) if word == "late" => Some(Created::Late),
        _ => None,
    }
    .ok_or_else(unexpected)
}

/// What a reply to `save.lua` says.
pub(crate) fn saved(reply: Reply, key: &Bytes, session: &SessionKey) -> Result<Saved, Error> {
    let (word, parts, count) = open(reply, key)?;
    let [first, second] = parts;
    match (word.as_ref(), first, second, count) {
        (b"gone", _, _, 0) => Some(Saved::Gone),
        (b"tombstone", Reply::Text(text), _, 1) => tombstone(text, session).map(Saved::Ended),
        (b"saved", Reply::Number(now), Reply::Text(before), 2) => match (time(now), before.is_empty()) {
            (Some(at), true) => Some(Saved::Saved { before: None, at }),
            (Some(at), false) => Token::from_text(&before).map(|before| Saved::Saved { before: Some(before), at }),
            (None, _) => None,
        },
        (b"late", Reply::Number(_), _, 1) => Some(Saved::Late),
        (b"logged in already", _, _, 0) => Some(Saved::LoggedInAlready),
        (b"replaced", _, _, 0) => Some(Saved::Replaced),
        (b"moved", Reply::List(hash), _, 1) => match Stored::parse(pairs(hash)?, session)? {
            Some(Stored::Record(record)) => Some(Saved::Moved(Box::new(record))),
            _ => None,
        },
        (b"refused", Reply::Text(name), _, 1) => Some(Saved::Refused(name)),
        (b"large", _, _, 0) => Some(Saved::TooLarge),
        _ => None,
    }
    .ok_or_else(unexpected)
}

/// What a reply to `end.lua` says.
pub(crate) fn ended(reply: Reply, key: &Bytes, session: &SessionKey) -> Result<Ended, Error> {
    let (word, [first, _], count) = open(reply, key)?;
    match (word.as_ref(), first, count) {
        (b"gone", _, 0) => Some(Ended::Gone),
        (b"tombstone", Reply::Text(text), 1) => tombstone(text, session).map(Ended::Already),
        (b"late", Reply::Number(_), 1) => Some(Ended::Late),
        (b"nobodys", _, 0) => Some(Ended::Nobodys),
        (b"others", _, 0) => Some(Ended::Others),
        (b"alive", _, 0) => Some(Ended::Alive),
        (b"ended", _, 0) => Some(Ended::Ended),
        _ => None,
    }
    .ok_or_else(unexpected)
}

/// The word of a reply that names this key, and its parts, of which there are at most two, and how many.
fn open(reply: Reply, key: &Bytes) -> Result<(Bytes, [Reply; 2], usize), Error> {
    let (word, mut parts) = named(reply, key)?;
    match parts.len() {
        count @ 0..=2 => Ok((word, [(); 2].map(|()| parts.next().unwrap_or(Reply::Nothing)), count)),
        _ => Err(unexpected()),
    }
}

/// The word of a reply that names this key, and its parts.
pub(crate) fn named(reply: Reply, key: &Bytes) -> Result<(Bytes, std::vec::IntoIter<Reply>), Error> {
    let Reply::List(parts) = reply else { return Err(unexpected()) };
    let mut parts = parts.into_iter();
    match (parts.next(), parts.next()) {
        (Some(Reply::Text(named)), _) if named != key => {
            Err(corrupt("Redis's reply is one to a script on another key"))
        }
        (Some(Reply::Text(_)), Some(Reply::Text(word))) if word == "corrupt" && parts.len() == 0 => {
            Err(corrupt("the stored record is not one that this library wrote for its key"))
        }
        (Some(Reply::Text(_)), Some(Reply::Text(word))) => Ok((word, parts)),
        _ => Err(unexpected()),
    }
}

fn time(ms: i64) -> Option<Time> {
    u64::try_from(ms).ok().filter(|ms| *ms <= Time::MAX.as_millis()).map(Time::from_millis)
}

fn tombstone(text: Bytes, session: &SessionKey) -> Option<Tombstone> {
    match Stored::parse(vec![(Bytes::from_static(b"@ended"), text)], session) {
        Ok(Some(Stored::Ended(tombstone))) => Some(tombstone),
        _ => None,
    }
}

fn pairs(hash: Vec<Reply>) -> Result<Vec<(Bytes, Bytes)>, Error> {
    let mut parts = hash.into_iter();
    let mut pairs = Vec::with_capacity(parts.len() / 2);
    while let Some(name) = parts.next() {
        match (name, parts.next()) {
            (Reply::Text(name), Some(Reply::Text(value))) => pairs.push((name, value)),
            _ => return Err(unexpected()),
        }
    }
    Ok(pairs)
}

pub(crate) fn unexpected() -> Error {
    corrupt("Redis's reply is not one of this script")
}

fn corrupt(message: &'static str) -> Error {
    Error::new(Kind::Corrupt, message)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use allocation_counter::measure;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;
    use redis_session_core::{Fields, Level, Random, Reason, SessionId, User, WishChange};
    use sha1::{Digest, Sha1};

    use super::*;
    use crate::index;

    const KEY: &str = "sess:main:AAAAAAAAAAAAAAAAAAAAAA";

    fn session() -> SessionKey {
        SessionId::random(&Random::scripted(|bytes| {
            bytes.fill(0);
            Ok(())
        }))
        .unwrap()
        .key(&"main".into())
    }

    fn texts(args: &[Bytes]) -> Vec<&str> {
        args.iter().map(|arg| std::str::from_utf8(arg).unwrap()).collect()
    }

    fn token(text: &str) -> Token {
        Token::from_text(text.as_bytes()).unwrap()
    }

    fn proof() -> Proof {
        Proof::from_text(b"BBBBBBBBBBBBBBBBBBBBBQ").unwrap()
    }

    const LIFE: Life = Life { idle: 1, absolute: u64::MAX, touch: 3 };

    fn a_save() -> Save {
        Save {
            token: Some(token("tokenAAA")),
            earlier: vec![token("tokenBBB"), token("tokenCCC")],
            not_after: Time::from_millis(7),
            proof: proof(),
            base: token("tokenDDD"),
            merges: true,
            changes: Changes::default(),
            step: Step::Keep,
            renews: true,
            wish: WishChange::default(),
            life: LIFE,
            limit: 100,
        }
    }

    #[test]
    fn the_hashes_are_those_of_the_texts() {
        for script in [&SAVE, &CREATE, &END, &index::ENTER, &index::PROLONG, &index::DOOM] {
            let sha: String = Sha1::digest(script.lua).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(script.sha, sha, "of the script that ends with {:?}", script.lua.lines().last());
        }
    }

    #[test]
    fn every_lua_file_has_fewer_than_60_lines() {
        for lua in [
            include_str!("lua/script.lua"),
            include_str!("lua/record.lua"),
            include_str!("lua/fields.lua"),
            include_str!("lua/index.lua"),
            include_str!("lua/enter.lua"),
            include_str!("lua/prolong.lua"),
            include_str!("lua/doom.lua"),
            include_str!("lua/save.lua"),
            include_str!("lua/create.lua"),
            include_str!("lua/end.lua"),
        ] {
            assert!(lua.lines().count() < 60 && lua.lines().all(|line| line.len() <= 120), "{}", &lua[..60]);
        }
    }

    #[test]
    fn the_arguments_of_a_save_stand_in_their_order() {
        let fields = [
            ("a", Change::Set("1".into())),
            ("b", Change::Remove),
            ("c", Change::Increment(-5)),
            ("d", Change::Set("4".into())),
        ];
        let fields: Vec<_> = fields.into_iter().map(|(name, change)| (Bytes::from(name), change)).collect();
        let mut save = Save { changes: Changes { clear: false, fields }, ..a_save() };
        let words = "tokenAAA tokenBBBtokenCCC 7 BBBBBBBBBBBBBBBBBBBBBQ tokenDDD merge keep - renews = = \
                     1 9007199254740991 3 100 - 1 1 - - ";
        assert_eq!(texts(&save_args(&save, save.not_after).unwrap()), [words, "b", "c", "-5", "a", "1", "d", "4"]);

        save.changes.clear = true;
        (save.token, save.merges, save.renews) = (None, false, false);
        save.step = Step::LogIn(proof(), login());
        save.earlier.clear();
        save.wish = WishChange { idle: Some(None), remember: Some(Some(9)) };
        let words = "- - 7 BBBBBBBBBBBBBBBBBBBBBQ tokenDDD edit login BBBBBBBBBBBBBBBBBBBBBQ - - 9 \
                     1 9007199254740991 3 100 clear 1 0 2 1000 ";
        let wanted = [words, "ada lovelace", "her phone", "b", "a", "1", "c", "-5", "d", "4"];
        assert_eq!(texts(&save_args(&save, save.not_after).unwrap()), wanted);
        let steps = [(Step::Seen, "seen -"), (Step::Rotate(proof()), "rotate B"), (Step::Renew(proof()), "renew B")];
        for (step, words) in steps {
            let args = save_args(&Save { step, ..a_save() }, Time::MAX).unwrap();
            assert!(texts(&args)[0].contains(&format!(" merge {words}")), "{words}");
        }
    }

    #[test]
    fn the_arguments_of_a_create_and_an_end_stand_in_their_order() {
        let create = Create {
            token: token("tokenAAA"),
            not_after: Time::MAX,
            proof: proof(),
            life: LIFE,
            wish: WishChange { idle: Some(Some(u64::MAX)), remember: None },
            login: None,
            fields: Fields::from_pairs(vec![("b".into(), "2".into()), ("a".into(), "1".into())]),
        };
        let words = "tokenAAA 9007199254740991 BBBBBBBBBBBBBBBBBBBBBQ 9007199254740991 - 1 9007199254740991 3 ";
        assert_eq!(
            texts(&create_args(&create, create.not_after).unwrap()),
            [&format!("{words}- - "), "a", "1", "b", "2"]
        );
        let create = Create { login: Some(LogIn { label: None, ..login() }), ..create };
        let wanted = [&format!("{words}2 1000 "), "ada lovelace", "", "a", "1", "b", "2"];
        assert_eq!(texts(&create_args(&create, create.not_after).unwrap()), wanted);
        let ends: [(Reason, Whose, &[&str]); 4] = [
            (
                Reason::Destroyed,
                Whose::Nobodys(proof()),
                &["5 destroyed - nobody BBBBBBBBBBBBBBBBBBBBBQ - - - ", "ended"],
            ),
            (Reason::Revoked, Whose::Users(login().user), &["5 revoked mark user - - - - ", "ended", "ada lovelace"]),
            (
                Reason::Revoked,
                Whose::ArrivedBefore(Time::from_millis(3)),
                &["5 revoked mark arrived 3 - - - ", "ended"],
            ),
            (Reason::Expired, Whose::Expired(LIFE), &["5 expired - expired - 1 9007199254740991 3 ", "ended"]),
        ];
        for (reason, whose, wanted) in ends {
            assert_eq!(
                texts(&end_args(&End { not_after: Time::from_millis(5), reason, whose }, |time| time, &"ended".into())),
                wanted
            );
        }
    }

    fn login() -> LogIn {
        let user = User::new("ada lovelace").unwrap();
        LogIn { user, level: Level(2), label: Some("her phone".to_owned()), waited: Duration::from_secs(1) }
    }

    #[test]
    fn a_name_of_our_own_is_refused() {
        for change in [Change::Set("x".into()), Change::Remove, Change::Increment(1)] {
            let changes = Changes { clear: false, fields: vec![("@".into(), change)] };
            assert!(save_args(&Save { changes, ..a_save() }, Time::MAX).unwrap_err().is_field());
        }
    }

    fn text(text: &str) -> Reply {
        Reply::Text(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn words(parts: &[Reply]) -> Reply {
        Reply::List([&[text(KEY)], parts].concat())
    }

    #[test]
    fn each_reply_says_what_its_header_says() {
        let key = Bytes::from(KEY);
        let at = Time::from_millis(5);
        let tombstone = Tombstone { reason: Reason::Destroyed, at };
        let saves = [
            (vec![text("gone")], Saved::Gone),
            (vec![text("tombstone"), text("destroyed 5")], Saved::Ended(tombstone)),
            (vec![text("saved"), Reply::Number(5), text("")], Saved::Saved { before: None, at }),
            (
                vec![text("saved"), Reply::Number(5), text("tokenAAA")],
                Saved::Saved { before: Some(token("tokenAAA")), at },
            ),
            (vec![text("late"), Reply::Number(5)], Saved::Late),
            (vec![text("logged in already")], Saved::LoggedInAlready),
            (vec![text("replaced")], Saved::Replaced),
            (vec![text("refused"), text("n")], Saved::Refused("n".into())),
            (vec![text("large")], Saved::TooLarge),
        ];
        for (parts, wanted) in saves {
            assert_eq!(saved(words(&parts), &key, &session()).unwrap(), wanted);
        }
        let hash = vec![text("a"), text("1"), text("@"), text("1 AAAAAA BBBBBBBBBBBBBBBBBBBBBQ tokenAAA 5 0 0 - - -")];
        let moved = saved(words(&[text("moved"), Reply::List(hash)]), &key, &session()).unwrap();
        assert!(matches!(moved, Saved::Moved(record) if record.fields.get(b"a") == Some(&"1".into())));
        let creates = [
            (vec![text("created"), Reply::Number(5)], Created::Created { at }),
            (vec![text("exists")], Created::Exists),
            (vec![text("late"), Reply::Number(5)], Created::Late),
        ];
        for (parts, wanted) in creates {
            assert_eq!(created(words(&parts), &key).unwrap(), wanted);
        }
        let ends = [
            (vec![text("gone")], Ended::Gone),
            (vec![text("tombstone"), text("destroyed 5")], Ended::Already(tombstone)),
            (vec![text("late"), Reply::Number(5)], Ended::Late),
            (vec![text("nobodys")], Ended::Nobodys),
            (vec![text("others")], Ended::Others),
            (vec![text("alive")], Ended::Alive),
            (vec![text("ended")], Ended::Ended),
        ];
        for (parts, wanted) in ends {
            assert_eq!(ended(words(&parts), &key, &session()).unwrap(), wanted);
        }
    }

    /// What is wrong with a reply, taken as one of each script's.
    fn errors(reply: &Reply) -> Vec<Error> {
        let (key, session) = (Bytes::from(KEY), session());
        let all = [
            saved(reply.clone(), &key, &session).err(),
            created(reply.clone(), &key).err(),
            ended(reply.clone(), &key, &session).err(),
        ];
        let errors: Vec<Error> = all.into_iter().flatten().collect();
        assert!(errors.iter().all(Error::is_corrupt), "{reply:?} {errors:?}");
        errors
    }

    /// Words of ours, and others, in lists within lists.
    fn replies() -> impl Strategy<Value = Reply> {
        const WORDS: &str = "gone tombstone saved late replaced moved refused large created exists alive ended others nobodys corrupt \
                             tokenAAA @ @ended";
        let meta = "1 AAAAAA BBBBBBBBBBBBBBBBBBBBBQ tokenAAA 5 0 0 - - -";
        let words: Vec<&str> = WORDS.split(' ').chain([KEY, "destroyed 5", meta, ""]).collect();
        let text = prop_oneof![
            3 => select(words).prop_map(Bytes::from),
            1 => vec(any::<u8>(), 0..40).prop_map(Bytes::from),
        ];
        let leaf = prop_oneof![
            4 => text.prop_map(Reply::Text),
            1 => any::<i64>().prop_map(Reply::Number),
            1 => select(vec![Reply::Other, Reply::Nothing]),
        ];
        leaf.prop_recursive(6, 64, 8, |inner| vec(inner, 0..8).prop_map(Reply::List))
    }

    fn size(reply: &Reply) -> u64 {
        match reply {
            Reply::List(parts) => 1 + parts.iter().map(size).sum::<u64>(),
            _ => 1,
        }
    }

    fn config() -> ProptestConfig {
        let cases = std::env::var("PROPERTY_CASES").map_or(2_000, |cases| cases.parse().unwrap());
        ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
    }

    proptest! {
        #![proptest_config(config())]

        #[test]
        fn r90_any_reply_is_one_of_ours_or_corrupt_and_takes_bounded_memory(reply in replies(), parts in vec(replies(), 1..5)) {
            for reply in [reply, words(&parts)] {
                let most = 4096 + 500 * size(&reply);
                let bytes = measure(|| drop(errors(&reply))).bytes_max;
                prop_assert!(bytes <= most, "{} bytes, {} allowed", bytes, most);
            }
        }
    }

    /// Every reply of up to four parts from this alphabet: what is not one of ours is corrupt, and nothing panics.
    #[test]
    fn garbage_is_corrupt() {
        let key = Bytes::from(KEY);
        let known =
            ["gone", "tombstone", "saved", "late", "replaced", "moved", "refused", "large", "created", "exists"];
        let mut alphabet: Vec<Reply> = known.into_iter().chain(["alive", "ended", "corrupt"]).map(text).collect();
        alphabet.extend([KEY, "", "sess:main:B", "destroyed 5", "destroyed", "tokenAAA"].map(text));
        alphabet.extend([0, -1, i64::MAX, 5].map(Reply::Number));
        alphabet.extend([Reply::Text(Bytes::from_static(b"\xff")), Reply::Other, Reply::List(Vec::new())]);
        alphabet.push(Reply::List(vec![text("@")]));
        alphabet.push(Reply::List(vec![text("@"), Reply::Number(1)]));
        alphabet.push(Reply::List(vec![text("@"), text("1 BBBBBB BBBBBBBBBBBBBBBBBBBBBQ tokenAAA 5 0 0 - - -")]));
        alphabet.push(Reply::List(vec![text("@ended"), text("destroyed 5")]));
        let check = |reply: &Reply| errors(reply).len();
        let mut refused = 0;
        for one in &alphabet {
            refused += check(one);
            for two in &alphabet {
                refused += check(&Reply::List(vec![one.clone(), two.clone()]));
                for three in &alphabet {
                    refused += check(&words(&[one.clone(), two.clone(), three.clone()]));
                    let list = [one, two, three].map(Clone::clone).to_vec();
                    refused += check(&Reply::List(list));
                }
            }
        }
        assert!(refused > 100_000, "{refused}");
        let other = Reply::List(vec![text("sess:main:B"), text("gone")]);
        let error = saved(other, &key, &session()).unwrap_err();
        assert!(error.is_corrupt() && error.to_string().contains("another key"), "{error}");
    }
}
