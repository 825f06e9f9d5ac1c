//! A session's record as stores keep it: a hash of the application's fields, and one packed field `@` of our own.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

use crate::error::{Error, Kind};
use crate::expiry::Wishes;
use crate::fields::Fields;
use crate::id::{Proof, SessionKey};
use crate::random::Random;
use crate::time::{Time, millis};
use crate::user::User;

/// The packed field: `1 <tag> <proof> <tokens> <created> <seen> <proved> <idle> <remembered> <previous>`, times in
/// milliseconds, `seen` and `proved` counted from `created`, `-` for what is not there. `<previous>` is
/// `<kind><proof><time>`: a letter, 22 characters, and a time counted from `created`.
const META: &[u8] = b"@";
/// Of a session with a user: `<logged in> <arrived> <level> <user>`, times in milliseconds, the user as it is to the end.
const USER: &[u8] = b"@user";
/// What the application calls the device.
const LABEL: &[u8] = b"@label";
/// The only field of a tombstone: `<reason> <time>`.
const ENDED: &[u8] = b"@ended";

/// A session's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The versions of the last writes, newest first.
    pub tokens: Tokens,
    /// The hash of the half of the id that proves the right to this record.
    pub proof: Proof,
    /// When a login, a rotation or the beginning put that proof here; a timed renewal does not count.
    pub proved: Time,
    /// The proof before this one, where it is still good for something.
    pub previous: Option<Previous>,
    /// When the session began.
    pub created: Time,
    /// When its idle timeout was last renewed.
    pub seen: Time,
    /// What the session itself asks for.
    pub wishes: Wishes,
    /// Who is logged in. `None`: nobody.
    pub login: Option<Box<Login>>,
    /// The application's fields.
    pub fields: Fields,
}

/// A login, as its session keeps it.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// Whose session it is.
    pub user: User,
    /// When the login was written.
    pub at: Time,
    /// When the request arrived that logged him in: the user has proved who he is then, or since.
    pub arrived: Time,
    /// How well he proved it.
    pub level: Level,
    /// What the application calls the device. `None`: nothing.
    pub label: Option<String>,
}

/// How well a user has proved who he is: nothing but an order, whose meaning is the application's.
///
/// [`PARTIAL`](Self::PARTIAL) is for a login that is not done, say with the second factor still open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(pub u8);

impl Level {
    /// The login is not done: nobody counts as logged in.
    pub const PARTIAL: Self = Self(0);
    /// Logged in. What a login has unless it asks for another level.
    pub const FULL: Self = Self(1);
}

/// A proof that was replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Previous {
    /// The proof.
    pub proof: Proof,
    /// What took its place.
    pub by: ReplacedBy,
    /// When it was replaced; of one whose successor was seen, when that was.
    pub at: Time,
}

/// What took the place of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplacedBy {
    /// A timed renewal whose new proof no request has come with yet.
    Renewal,
    /// A timed renewal whose new proof a request has come with.
    SeenRenewal,
    /// The first login in this session: a second click on the same button may still come with the old proof.
    Login,
}

impl ReplacedBy {
    fn letter(self) -> char {
        match self {
            Self::Renewal => 'r',
            Self::SeenRenewal => 's',
            Self::Login => 'l',
        }
    }

    fn from_letter(letter: char) -> Option<Self> {
        [Self::Renewal, Self::SeenRenewal, Self::Login].into_iter().find(|by| by.letter() == letter)
    }
}

/// What stays of an ended session for a minute: why and when, no data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tombstone {
    /// Why it ended.
    pub reason: Reason,
    /// When it ended.
    pub at: Time,
}

impl Tombstone {
    /// How long a tombstone stays: longer than any write may be late.
    pub const STAYS: Duration = Duration::from_secs(60);
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The application destroyed it.
    Destroyed,
    /// It was found past its deadline.
    Expired,
    /// Its user logged out.
    LoggedOut,
    /// It was ended from elsewhere: another device, a changed password, an administrator.
    Revoked,
    /// Its user had more sessions than are allowed, and this one was the one to go.
    Cap,
    /// Its login was refused, since the user's sessions were ended meanwhile.
    Refused,
    /// Another user logged in from the same browser.
    OtherUser,
    /// Somebody came with a copy of an old cookie of it.
    Reused,
    /// A reason that a newer version of this library wrote.
    Other,
}

impl Reason {
    /// The word in the tombstone.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Destroyed => "destroyed",
            Self::Expired => "expired",
            Self::LoggedOut => "logged-out",
            Self::Revoked => "revoked",
            Self::Cap => "cap",
            Self::Refused => "refused",
            Self::OtherUser => "other-user",
            Self::Reused => "reused",
            Self::Other => "other",
        }
    }

    fn from_word(word: &str) -> Self {
        use Reason::*;
        let known = [Destroyed, Expired, LoggedOut, Revoked, Cap, Refused, OtherUser, Reused];
        known.into_iter().find(|reason| reason.as_str() == word).unwrap_or(Other)
    }

    /// Whether an end for this reason leaves a tombstone also where there is nothing: a login may be about to write there.
    pub fn also_ends_what_is_to_come(self) -> bool {
        matches!(self, Self::Revoked | Self::Cap)
    }
}

/// What is at a session's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// A record, alive as far as the store knows.
    Record(Record),
    /// A session that ended less than a minute ago.
    Ended(Tombstone),
}

impl Stored {
    /// Reads a hash. `None`: there is nothing at the key.
    ///
    /// # Errors
    /// [`is_corrupt`](Error::is_corrupt): not a record that this library wrote for this key.
    pub fn parse(mut hash: Vec<(Bytes, Bytes)>, key: &SessionKey) -> Result<Option<Self>, Error> {
        if hash.is_empty() {
            return Ok(None);
        }
        let (mut meta, mut ended, mut user, mut label) = (None, None, None, None);
        hash.retain_mut(|(name, value)| {
            match name.as_ref() {
                META => meta = Some(std::mem::take(value)),
                ENDED => ended = Some(std::mem::take(value)),
                USER => user = Some(std::mem::take(value)),
                LABEL => label = Some(std::mem::take(value)),
                _ => {}
            }
            // Also what is reserved for newer versions: never the application's.
            name.first() != Some(&b'@')
        });
        if let Some(ended) = ended {
            return parse_tombstone(&ended)
                .map(|tombstone| Some(Self::Ended(tombstone)))
                .ok_or_else(|| corrupt("a tombstone that does not parse"));
        }
        let meta = meta.ok_or_else(|| corrupt("a hash without the field \"@\", so not a session"))?;
        let mut record = Record::parse(&meta, Fields::from_pairs(hash), key)?;
        if let Some(user) = user {
            let login = Login::parse(&user, label.as_deref());
            record.login = Some(Box::new(login.ok_or_else(|| corrupt("one whose field \"@user\" does not parse"))?));
        }
        Ok(Some(Self::Record(record)))
    }
}

fn parse_tombstone(text: &[u8]) -> Option<Tombstone> {
    let (reason, at) = std::str::from_utf8(text).ok()?.split_once(' ')?;
    Some(Tombstone { reason: Reason::from_word(reason), at: Time::from_millis(at.parse().ok()?) })
}

fn corrupt(what: &'static str) -> Error {
    Error::new(Kind::Corrupt, format!("the stored record is {what}"))
}

impl Record {
    fn parse(meta: &[u8], fields: Fields, key: &SessionKey) -> Result<Self, Error> {
        let text = std::str::from_utf8(meta).map_err(|_| corrupt("not text in its field \"@\""))?;
        let mut words = text.split(' ');
        if words.next() != Some("1") {
            return Err(corrupt("of a version that this library does not know"));
        }
        if words.next().map(str::as_bytes) != Some(&key.tag()) {
            return Err(corrupt("one that belongs to another key"));
        }
        Self::parse_rest(words, fields).ok_or_else(|| corrupt("one whose field \"@\" does not parse"))
    }

    fn parse_rest<'a>(mut words: impl Iterator<Item = &'a str>, fields: Fields) -> Option<Self> {
        let proof = Proof::from_text(words.next()?.as_bytes())?;
        let tokens = Tokens::from_text(words.next()?.as_bytes())?;
        let created = Time::from_millis(number(words.next()?)?);
        let seen = created + Duration::from_millis(number(words.next()?)?);
        let proved = created + Duration::from_millis(number(words.next()?)?);
        let wishes =
            Wishes { idle: optional(words.next()?)?, remembered: optional(words.next()?)?.map(Time::from_millis) };
        let previous = match words.next()? {
            "-" => None,
            text => Some(Previous::parse(text, created)?),
        };
        let record = Self { tokens, proof, proved, previous, created, seen, wishes, login: None, fields };
        words.next().is_none().then_some(record)
    }

    /// The packed field's value, for stores that write records themselves.
    pub fn meta(&self, key: &SessionKey) -> String {
        let or_dash = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
        format!(
            "1 {} {} {} {} {} {} {} {} {}",
            String::from_utf8_lossy(&key.tag()),
            self.proof.to_text(),
            self.tokens.to_text(),
            self.created.as_millis(),
            millis(self.seen.since(self.created)),
            millis(self.proved.since(self.created)),
            or_dash(self.wishes.idle),
            or_dash(self.wishes.remembered.map(Time::as_millis)),
            self.previous.map_or_else(|| "-".to_owned(), |previous| previous.to_text(self.created)),
        )
    }

    /// When the session's proof was last replaced, in whatever way.
    pub fn replaced(&self) -> Time {
        self.previous.map_or(self.proved, |previous| previous.at.max(self.proved))
    }

    /// Whose session it is. `None`: nobody's.
    pub fn user(&self) -> Option<&User> {
        self.login.as_ref().map(|login| &login.user)
    }
}

impl Previous {
    fn to_text(self, created: Time) -> String {
        format!("{}{}{}", self.by.letter(), self.proof.to_text(), millis(self.at.since(created)))
    }

    fn parse(text: &str, created: Time) -> Option<Self> {
        let by = ReplacedBy::from_letter(text.chars().next()?)?;
        let proof = Proof::from_text(text.get(1..23)?.as_bytes())?;
        Some(Self { proof, by, at: created + Duration::from_millis(number(text.get(23..)?)?) })
    }
}

/// Without the label, which tells something about its user.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("at", &self.at).field("level", &self.level).finish_non_exhaustive()
    }
}

impl Login {
    fn parse(text: &[u8], label: Option<&[u8]>) -> Option<Self> {
        let mut words = std::str::from_utf8(text).ok()?.splitn(4, ' ');
        let at = Time::from_millis(number(words.next()?)?);
        let arrived = Time::from_millis(number(words.next()?)?);
        let level = Level(u8::try_from(number(words.next()?)?).ok()?);
        let user = User::new(words.next()?).ok()?;
        let label = label.map(|label| String::from_utf8_lossy(label).into_owned());
        Some(Self { user, at, arrived, level, label })
    }

    /// The value of the field `@user`, for stores that write records themselves.
    pub fn to_text(&self) -> String {
        let Level(level) = self.level;
        format!("{} {} {level} {}", self.at.as_millis(), self.arrived.as_millis(), self.user.as_str())
    }
}

/// Digits only: no sign, no leading zero, nothing that another reader could read otherwise.
fn number(word: &str) -> Option<u64> {
    let number = u64::from_str(word).ok()?;
    let is_plain = match word.as_bytes() {
        [b'0'] => true,
        [first, ..] => first.is_ascii_digit() && *first != b'0',
        [] => false,
    };
    (is_plain && number <= Time::MAX.as_millis()).then_some(number)
}

fn optional(word: &str) -> Option<Option<u64>> {
    if word == "-" { Some(None) } else { number(word).map(Some) }
}

/// The version that a write gives its record: 48 random bits, chosen by the writer.
///
/// Random, because a counter would repeat after a failover that lost writes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token([u8; 8]);

impl Token {
    /// A new token.
    pub fn random(random: &Random) -> Result<Self, Error> {
        let mut text = [0; 8];
        let written = URL_SAFE_NO_PAD.encode_slice(random.stocked::<6>()?, &mut text);
        debug_assert_eq!(written, Ok(8));
        Ok(Self(text))
    }

    /// Eight characters of base64url.
    pub fn as_text(&self) -> &[u8] {
        &self.0
    }

    /// From [`as_text`](Self::as_text)'s form.
    pub fn from_text(text: &[u8]) -> Option<Self> {
        let text: [u8; 8] = text.try_into().ok()?;
        text.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_')).then_some(Self(text))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// The last four tokens of a record, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens(Vec<Token>);

impl Tokens {
    /// How many a record keeps.
    pub const KEPT: usize = 4;

    /// Of a new record.
    pub fn first(token: Token) -> Self {
        Self(vec![token])
    }

    /// The version of the record.
    pub fn newest(&self) -> Token {
        self.0[0]
    }

    /// Whether a token is among the last four.
    pub fn contains(&self, token: Token) -> bool {
        self.0.contains(&token)
    }

    /// The token that was the newest before this one. `None`: not here, or nothing older is kept.
    pub fn before(&self, token: Token) -> Option<Token> {
        let at = self.0.iter().position(|t| *t == token)?;
        self.0.get(at + 1).copied()
    }

    /// Puts a new version on top.
    pub fn push(&mut self, token: Token) {
        self.0.insert(0, token);
        self.0.truncate(Self::KEPT);
    }

    /// All of them, one after the other.
    pub fn to_text(&self) -> String {
        self.0.iter().map(|token| String::from_utf8_lossy(&token.0).into_owned()).collect()
    }

    fn from_text(text: &[u8]) -> Option<Self> {
        let tokens: Vec<Token> = text.chunks(8).map(Token::from_text).collect::<Option<_>>()?;
        (1..=Self::KEPT).contains(&tokens.len()).then_some(Self(tokens))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SessionId;

    fn key() -> SessionKey {
        SessionId::random(&Random::system()).unwrap().key(&"main".into())
    }

    fn record() -> Record {
        let random = Random::system();
        let created = Time::from_millis(1_800_000_000_000);
        Record {
            tokens: Tokens::first(Token::random(&random).unwrap()),
            proof: SessionId::random(&random).unwrap().proof(),
            proved: created + Duration::from_secs(3),
            previous: None,
            created,
            seen: created + Duration::from_secs(60),
            wishes: Wishes { idle: Some(5000), remembered: None },
            login: None,
            fields: Fields::from_pairs(vec![("a".into(), "1".into())]),
        }
    }

    fn hash(record: &Record, key: &SessionKey) -> Vec<(Bytes, Bytes)> {
        let fields = record.fields.iter().map(|(n, v)| (n.clone(), v.clone()));
        fields.chain([(Bytes::from_static(META), record.meta(key).into())]).collect()
    }

    #[test]
    fn r106_a_record_begins_with_its_version_and_reads_back_as_it_was_written() {
        let key = key();
        let mut record = record();
        // The version comes first, so that later ones can be told apart.
        assert!(record.meta(&key).starts_with("1 "));
        for _ in 0..6 {
            assert_eq!(Stored::parse(hash(&record, &key), &key).unwrap(), Some(Stored::Record(record.clone())));
            record.tokens.push(Token::random(&Random::system()).unwrap());
            record.wishes.remembered = Some(record.seen);
        }
    }

    #[test]
    fn our_own_field_takes_at_most_120_bytes() {
        let mut record = record();
        for _ in 0..4 {
            record.tokens.push(Token::random(&Random::system()).unwrap());
        }
        record.wishes.idle = None;
        record.seen = record.created + Duration::from_secs(12 * 3600);
        record.proved = record.seen;
        let meta = record.meta(&key());
        assert!(META.len() + meta.len() <= 120, "{}", meta.len());
    }

    #[test]
    fn r72_what_is_not_a_record_of_this_key_is_refused_and_named() {
        let (key, other, record) = (key(), key(), record());
        let meta = record.meta(&key);
        let with = |meta: &str| vec![(Bytes::from_static(META), Bytes::from(meta.to_owned()))];
        let cases = [
            (vec![("a".into(), "1".into())], "without the field"),
            (with(&meta.replacen('1', "2", 1)), "version"),
            (with(&format!("{meta} x")), "does not parse"),
            (with(&meta[..meta.len() - 2]), "does not parse"),
            (with(&meta.replace("1800000000000", "+180000000000")), "does not parse"),
            (with(&meta.replace("1800000000000", "99999999999999999999")), "does not parse"),
            (with(""), "version"),
            (hash(&record, &other), "another key"),
            (vec![(Bytes::from_static(ENDED), "nonsense".into())], "tombstone"),
            (vec![(Bytes::from_static(META), Bytes::from_static(b"\xff\xfe"))], "not text"),
        ];
        for (hash, message) in cases {
            let error = Stored::parse(hash, &key).unwrap_err();
            assert!(error.is_corrupt() && error.to_string().contains(message), "{error}");
        }
    }

    #[test]
    fn tokens_keep_the_last_four() {
        let tokens: Vec<Token> = (0..6).map(|_| Token::random(&Random::system()).unwrap()).collect();
        let mut kept = Tokens::first(tokens[0]);
        for token in &tokens[1..] {
            kept.push(*token);
        }
        assert_eq!(kept.newest(), tokens[5]);
        assert_eq!(kept.before(tokens[5]), Some(tokens[4]));
        assert_eq!(kept.before(tokens[2]), None);
        assert!(kept.contains(tokens[2]) && !kept.contains(tokens[1]));
    }
}
