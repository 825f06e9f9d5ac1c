//! The Redis protocol: where a request or a reply ends, and what it says.

use std::collections::BTreeMap;

/// A reply of Redis, in RESP2.
///
/// ```
/// # let redis = redis_session_testkit::RedisServer::start();
/// redis.run(&["HSET", "basket", "apples", "3"]);
/// assert_eq!(redis.run(&["HGETALL", "basket"]).map()["apples"], "3");
/// assert_eq!(redis.run(&["HLEN", "basket"]).int(), 1);
/// assert!(redis.run(&["GET", "nothing"]).is_nil());
/// assert!(redis.command(&["GET", "basket"]).error().unwrap().starts_with("WRONGTYPE"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// No value.
    Nil,
    /// A number.
    Int(i64),
    /// A string or a status such as `OK`.
    Text(Vec<u8>),
    /// A list; maps and sets come as lists too.
    List(Vec<Reply>),
    /// An error, with its code: `WRONGTYPE Operation against a key …`.
    Error(String),
}

impl Reply {
    /// Whether there is no value.
    #[must_use]
    pub fn is_nil(&self) -> bool {
        *self == Self::Nil
    }

    /// The number, also of a text that is one; panics on anything else.
    #[must_use]
    pub fn int(&self) -> i64 {
        match self {
            Self::Int(number) => *number,
            Self::Text(text) => match String::from_utf8_lossy(text).parse() {
                Ok(number) => number,
                Err(_) => panic!("the reply is not a number: {self:?}"),
            },
            other => panic!("the reply is not a number: {other:?}"),
        }
    }

    /// The text, with what is not UTF-8 replaced; panics if it is none.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    /// The bytes of a text; panics if it is none.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Text(bytes) => bytes,
            other => panic!("the reply is not a text: {other:?}"),
        }
    }

    /// The elements; panics if it is not a list.
    #[must_use]
    pub fn list(&self) -> &[Reply] {
        match self {
            Self::List(elements) => elements,
            other => panic!("the reply is not a list: {other:?}"),
        }
    }

    /// The elements as texts; panics if one is none.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        self.list().iter().map(Self::text).collect()
    }

    /// A list of names and values as a map (what HGETALL answers); numbers become text.
    #[must_use]
    pub fn map(&self) -> BTreeMap<String, String> {
        let value = |reply: &Self| match reply {
            Self::Int(number) => number.to_string(),
            other => other.text(),
        };
        let (pairs, rest) = self.list().as_chunks::<2>();
        assert!(rest.is_empty(), "the reply is not a map: {self:?}");
        pairs.iter().map(|[name, of]| (name.text(), value(of))).collect()
    }

    /// The error, with its code; `None` if the reply is none.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Error(error) => Some(error),
            _ => None,
        }
    }
}

/// Bytes that are not the Redis protocol.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// A command as Redis reads it.
pub(crate) fn encode<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        let arg = arg.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// A request: its words (none if it is an empty one, which Redis does not answer) and its length in bytes.
pub(crate) struct Request {
    pub(crate) words: Vec<Vec<u8>>,
    pub(crate) length: usize,
}

/// The first request in `bytes`; `None` while it is not all there.
pub(crate) fn request(bytes: &[u8]) -> Result<Option<Request>, Malformed> {
    let Some((line, mut at)) = line(bytes, 0) else { return Ok(None) };
    let Some(count) = line.strip_prefix(b"*") else {
        let words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).map(<[u8]>::to_vec).collect();
        return Ok(Some(Request { words, length: at }));
    };
    let mut words = Vec::new();
    for _ in 0..number(count)? {
        let Some((header, after)) = self::line(bytes, at) else { return Ok(None) };
        let length = number(header.strip_prefix(b"$").ok_or(Malformed)?)?;
        let length = usize::try_from(length).map_err(|_| Malformed)?;
        let Some(word) = bytes.get(after..after + length) else { return Ok(None) };
        words.push(word.to_vec());
        at = after + length + 2;
    }
    Ok((at <= bytes.len()).then_some(Request { words, length: at }))
}

/// The length of the first reply in `bytes`, in RESP2 or RESP3; `None` while it is not all there.
pub(crate) fn reply_length(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let mut at = 0;
    let mut missing = 1;
    while missing > 0 {
        let Some((line, after)) = line(bytes, at) else { return Ok(None) };
        let (&kind, rest) = line.split_first().ok_or(Malformed)?;
        at = after;
        missing -= 1;
        match kind {
            b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {}
            b'$' | b'=' | b'!' => at += usize::try_from(number(rest)?).map_or(0, |length| length + 2),
            b'*' | b'~' | b'>' => missing += number(rest)?.max(0),
            b'%' => missing += 2 * number(rest)?,
            // Attributes come before the reply that they are about.
            b'|' => missing += 2 * number(rest)? + 1,
            _ => return Err(Malformed),
        }
    }
    Ok((at <= bytes.len()).then_some(at))
}

/// Whether a reply is one that no command asked for (RESP3).
pub(crate) fn is_push(reply: &[u8]) -> bool {
    reply.first() == Some(&b'>')
}

/// The first reply in `bytes`, in RESP2, and its length; `None` while it is not all there.
pub(crate) fn reply(bytes: &[u8]) -> Result<Option<(Reply, usize)>, Malformed> {
    if reply_length(bytes)?.is_none() {
        return Ok(None);
    }
    let mut at = 0;
    let reply = element(bytes, &mut at)?;
    Ok(Some((reply, at)))
}

fn element(bytes: &[u8], at: &mut usize) -> Result<Reply, Malformed> {
    let (line, after) = line(bytes, *at).ok_or(Malformed)?;
    let (&kind, rest) = line.split_first().ok_or(Malformed)?;
    *at = after;
    match kind {
        b'+' => Ok(Reply::Text(rest.to_vec())),
        b'-' => Ok(Reply::Error(String::from_utf8_lossy(rest).into_owned())),
        b':' => Ok(Reply::Int(number(rest)?)),
        b'$' | b'*' if number(rest)? < 0 => Ok(Reply::Nil),
        b'$' => {
            let end = after + usize::try_from(number(rest)?).map_err(|_| Malformed)?;
            *at = end + 2;
            Ok(Reply::Text(bytes.get(after..end).ok_or(Malformed)?.to_vec()))
        }
        b'*' => Ok(Reply::List((0..number(rest)?).map(|_| element(bytes, at)).collect::<Result<_, _>>()?)),
        _ => Err(Malformed),
    }
}

/// The line that begins at `at`, without its end, and where the next one begins.
fn line(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = bytes.get(at..)?;
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
    Some((line, at + end + 1))
}

fn number(digits: &[u8]) -> Result<i64, Malformed> {
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_ends_where_its_last_part_ends() {
        let whole: [&[u8]; 16] = [
            b"+OK\r\n",
            b"-ERR no\r\n",
            b":12\r\n",
            b"$-1\r\n",
            b"*-1\r\n",
            b"$0\r\n\r\n",
            b"$6\r\na\r\n+b\n\r\n",
            b"*0\r\n",
            b"*2\r\n$1\r\na\r\n*2\r\n:1\r\n$-1\r\n",
            b"_\r\n",
            b"#t\r\n",
            b"%2\r\n+a\r\n:1\r\n+b\r\n~2\r\n:1\r\n:2\r\n",
            b"=7\r\ntxt:abc\r\n",
            b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n",
            b"|1\r\n+ttl\r\n:3\r\n*1\r\n:5\r\n",
            b"!3\r\nERR\r\n",
        ];
        for bytes in whole {
            let shown = String::from_utf8_lossy(bytes);
            for end in 0..bytes.len() {
                assert_eq!(reply_length(&bytes[..end]), Ok(None), "{shown:?} cut at {end}");
            }
            let followed = [bytes, b"+NEXT\r\n"].concat();
            assert_eq!(reply_length(&followed), Ok(Some(bytes.len())), "{shown:?}");
        }
        assert_eq!(reply_length(b"what\r\n"), Err(Malformed));
    }

    #[test]
    fn a_request_is_an_array_or_a_line() {
        let check = |bytes: &[u8], wanted: &[&str]| {
            for end in 0..bytes.len() {
                assert!(request(&bytes[..end]).unwrap().is_none(), "{end}");
            }
            let found = request(&[bytes, b"*1\r\n"].concat()).unwrap().unwrap();
            assert_eq!(found.length, bytes.len());
            assert_eq!(found.words, wanted.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>());
        };
        check(&encode(&["SET", "a\r\nb", ""]), &["SET", "a\r\nb", ""]);
        check(b"PING  there\r\n", &["PING", "there"]);
        check(b"\r\n", &[]);
        check(b"*0\r\n", &[]);
        assert!(request(b"*1\r\n:1\r\n").is_err());
    }

    #[test]
    fn a_reply_says_what_redis_said() {
        let bytes = b"*4\r\n:-7\r\n$2\r\nhi\r\n$-1\r\n-ERR no\r\n";
        let wanted =
            Reply::List(vec![Reply::Int(-7), Reply::Text(b"hi".into()), Reply::Nil, Reply::Error("ERR no".into())]);
        assert_eq!(reply(bytes), Ok(Some((wanted, bytes.len()))));
    }
}
