//! What the scan makes of Cookie lines: a corpus after RFC 6265bis and the mistakes of other parsers, and properties.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use http::HeaderMap;
use proptest::collection::vec;
use proptest::prelude::*;
use redis_session_core::{KeyRing, Random, SessionId, Signer};

use super::*;
use Expected::{Beside, Good, Nothing, Refused};
use Refusal::{BadSignature, Malformed, SeveralIds, UnknownKey};

const NAME: &str = "__Host-id";

/// What a case leads to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Expected {
    /// The id of `{good}`.
    Good,
    /// The id of `{good}`, and a refusal of what came beside it.
    Beside(Refusal),
    /// No id, and no cookie of our name.
    Nothing,
    /// No id.
    Refused(Refusal),
}

/// Why, the Cookie lines, and what they lead to. `{id}` is our cookie's name; the values in braces are in `VALUES_OF`.
type Case = (&'static str, &'static [&'static [u8]], Expected);

/// RFC 6265bis, sections 4.2.1 and 5.8.3: what browsers send, and what comes close to it.
const WELL_FORMED: &[Case] = &[
    ("alone", &[b"{id}={good}"], Good),
    ("the first", &[b"{id}={good}; a=b; c=d"], Good),
    ("in the middle", &[b"a=b; {id}={good}; c=d"], Good),
    ("the last", &[b"a=b; c=d; {id}={good}"], Good),
    ("without the space", &[b"a=b;{id}={good};c=d"], Good),
    ("with many spaces", &[b"a=b;    {id}={good}    ;c=d"], Good),
    ("with tabs", &[b"a=b;\t{id}={good}\t; c=d"], Good),
    ("with spaces and tabs", &[b"a=b; \t \t{id}={good} \t \t; c=d"], Good),
    ("with a space before all", &[b"   {id}={good}"], Good),
    ("with a space after all", &[b"{id}={good}   "], Good),
    ("with a semicolon after all", &[b"{id}={good};"], Good),
    ("with semicolons around", &[b";;;{id}={good};;;"], Good),
    ("with empty pairs", &[b"; ; ;{id}={good}; ; ;"], Good),
    ("in the second of three lines", &[b"a=b", b"{id}={good}", b"c=d"], Good),
    ("in the last of three lines", &[b"a=b", b"c=d", b"e=f; {id}={good}"], Good),
    ("in the first of two lines", &[b"{id}={good}; a=b", b"c=d"], Good),
    ("one pair a line, as HTTP/2 may send them", &[b"a=b", b"c=d", b"{id}={good}", b"e=f"], Good),
    ("after an empty line", &[b"", b"{id}={good}"], Good),
    ("after a line of semicolons", &[b";;;;", b"{id}={good}"], Good),
    ("twice the same", &[b"{id}={good}; {id}={good}"], Good),
    ("twice the same, in two lines", &[b"{id}={good}", b"{id}={good}"], Good),
    ("four times the same", &[b"{id}={good}; {id}={good}; {id}={good}; {id}={good}"], Good),
    ("six times the same", &[b"{id}={good};{id}={good};{id}={good};{id}={good};{id}={good};{id}={good}"], Good),
    ("no line at all", &[], Nothing),
    ("an empty line", &[b""], Nothing),
    ("three empty lines", &[b"", b"", b""], Nothing),
    ("a space", &[b" "], Nothing),
    ("a semicolon", &[b";"], Nothing),
    ("an equals sign", &[b"="], Nothing),
    ("other cookies", &[b"a=b; c=d"], Nothing),
];

/// Names that are not ours, however much they look like it: each byte counts, and nothing is decoded.
const NAMES: &[Case] = &[
    ("another case", &[b"__host-id={good}"], Nothing),
    ("another case of the prefix", &[b"__HOST-id={good}"], Nothing),
    ("another case of the end", &[b"__Host-ID={good}"], Nothing),
    ("another case of one letter", &[b"__Host-Id={good}"], Nothing),
    ("without its prefix", &[b"id={good}"], Nothing),
    ("another prefix", &[b"__Secure-id={good}"], Nothing),
    ("a longer prefix", &[b"__Host-Http-id={good}"], Nothing),
    ("longer by one", &[b"__Host-id2={good}"], Nothing),
    ("shorter by one", &[b"__Host-i={good}"], Nothing),
    ("only the prefix", &[b"__Host-={good}"], Nothing),
    ("a letter before it", &[b"x__Host-id={good}"], Nothing),
    ("an underscore before it", &[b"___Host-id={good}"], Nothing),
    ("an underscore less", &[b"_Host-id={good}"], Nothing),
    ("a minus before it", &[b"-__Host-id={good}"], Nothing),
    ("a dot after it", &[b"__Host-id.={good}"], Nothing),
    ("an underscore for the minus", &[b"__Host_id={good}"], Nothing),
    ("two minuses", &[b"__Host--id={good}"], Nothing),
    ("our name twice", &[b"__Host-id__Host-id={good}"], Nothing),
    ("our name within a name", &[b"a__Host-idb={good}"], Nothing),
    ("CVE-2020-8184: an encoded letter", &[b"__%48ost-id={good}"], Nothing),
    ("CVE-2020-8184: an encoded underscore", &[b"%5F_Host-id={good}"], Nothing),
    ("CVE-2020-8184: two encoded underscores", &[b"%5f%5fHost-id={good}"], Nothing),
    ("CVE-2020-8184: an encoded minus", &[b"__Host%2Did={good}"], Nothing),
    ("CVE-2020-8184: an encoded end", &[b"__Host-%69%64={good}"], Nothing),
    ("CVE-2020-8184: all of it encoded", &[b"%5F%5F%48%6F%73%74%2D%69%64={good}"], Nothing),
    ("CVE-2020-8184: encoded twice", &[b"__%2548ost-id={good}"], Nothing),
    ("an encoded NUL after it", &[b"__Host-id%00={good}"], Nothing),
    ("an encoded space before it", &[b"%20__Host-id={good}"], Nothing),
    ("an encoded tab before it", &[b"%09__Host-id={good}"], Nothing),
    ("an encoded equals sign", &[b"__Host-id%3D{good}"], Nothing),
    ("a plus for a space", &[b"+__Host-id={good}"], Nothing),
    ("a backslash escape", &[b"__\\110ost-id={good}"], Nothing),
    ("a JSON escape", &[b"__\\u0048ost-id={good}"], Nothing),
    ("an HTML entity, which a semicolon ends", &[b"__&#72;ost-id={good}"], Nothing),
    ("CVE-2022-31629: dots for underscores", &[b"..Host-id={good}"], Nothing),
    ("CVE-2022-31629: one dot", &[b"_.Host-id={good}"], Nothing),
    ("CVE-2022-31629: a bracket for an underscore", &[b"_[Host-id={good}"], Nothing),
    ("CVE-2022-31629: two brackets", &[b"[[Host-id={good}"], Nothing),
    ("CVE-2022-31629: a space for an underscore", &[b"_ Host-id={good}"], Nothing),
    ("CVE-2022-31629: a space within", &[b"__Host -id={good}"], Nothing),
    ("an array's name", &[b"__Host-id[]={good}"], Nothing),
    ("an array's name with a key", &[b"__Host-id[0]={good}"], Nothing),
    ("in quotes", &[b"\"__Host-id\"={good}"], Nothing),
    ("a quote before it", &[b"\"__Host-id={good}"], Nothing),
    ("in single quotes", &[b"'__Host-id'={good}"], Nothing),
    ("in brackets", &[b"(__Host-id)={good}"], Nothing),
    ("a space before the equals sign", &[b"__Host-id ={good}"], Nothing),
    ("a tab before the equals sign", &[b"__Host-id\t={good}"], Nothing),
    ("spaces around the equals sign", &[b"__Host-id = {good}"], Nothing),
    ("a colon for the equals sign", &[b"__Host-id:{good}"], Nothing),
    ("no equals sign", &[b"__Host-id{good}"], Nothing),
    ("the name alone", &[b"__Host-id"], Nothing),
    ("the name alone beside others", &[b"a=b; __Host-id; c=d"], Nothing),
    ("the value alone", &[b"{good}"], Nothing),
    ("the value alone beside others", &[b"a=b; {good}; c=d"], Nothing),
    ("U+2000 before it, which some servers trim", &[b"\xe2\x80\x80__Host-id={good}"], Nothing),
    ("U+2000 after it", &[b"__Host-id\xe2\x80\x80={good}"], Nothing),
    ("U+00A0 before it", &[b"\xc2\xa0__Host-id={good}"], Nothing),
    ("U+00A0 in Latin-1 before it", &[b"\xa0__Host-id={good}"], Nothing),
    ("U+0085 before it", &[b"\xc2\x85__Host-id={good}"], Nothing),
    ("U+0085 in Latin-1 before it", &[b"\x85__Host-id={good}"], Nothing),
    ("U+1680 before it", &[b"\xe1\x9a\x80__Host-id={good}"], Nothing),
    ("U+2028 before it", &[b"\xe2\x80\xa8__Host-id={good}"], Nothing),
    ("U+3000 before it", &[b"\xe3\x80\x80__Host-id={good}"], Nothing),
    ("U+200B before it", &[b"\xe2\x80\x8b__Host-id={good}"], Nothing),
    ("U+FEFF before it", &[b"\xef\xbb\xbf__Host-id={good}"], Nothing),
    ("U+202E before it", &[b"\xe2\x80\xae__Host-id={good}"], Nothing),
    ("a soft hyphen within", &[b"__Host\xc2\xad-id={good}"], Nothing),
    ("a non-breaking hyphen", &[b"__Host\xe2\x80\x91id={good}"], Nothing),
    ("a Greek eta", &[b"__\xce\x97ost-id={good}"], Nothing),
    ("a Cyrillic o", &[b"__H\xd0\xbest-id={good}"], Nothing),
    ("a dotless i", &[b"__Host-\xc4\xb1d={good}"], Nothing),
    ("full-width underscores", &[b"\xef\xbc\xbf\xef\xbc\xbfHost-id={good}"], Nothing),
    ("an overlong letter", &[b"__\xc1\x88ost-id={good}"], Nothing),
    ("a byte with the high bit set", &[b"__\xc8ost-id={good}"], Nothing),
    ("an invalid byte before it", &[b"\xff__Host-id={good}"], Nothing),
    ("an invalid byte after it", &[b"__Host-id\xff={good}"], Nothing),
    ("RFC 2965: a dollar before it", &[b"$__Host-id={good}"], Nothing),
    ("RFC 2109: a comma separates nothing", &[b"a=b, __Host-id={good}"], Nothing),
    ("a comma without a space separates nothing", &[b"a=b,__Host-id={good}"], Nothing),
    ("an ampersand separates nothing", &[b"a=b&__Host-id={good}"], Nothing),
    ("a space separates nothing", &[b"a=b __Host-id={good}"], Nothing),
    ("a tab separates nothing", &[b"a=b\t__Host-id={good}"], Nothing),
    ("a vertical bar separates nothing", &[b"a=b|__Host-id={good}"], Nothing),
    ("a slash separates nothing", &[b"a=b/__Host-id={good}"], Nothing),
    ("an encoded semicolon separates nothing", &[b"a=b%3B__Host-id={good}"], Nothing),
    ("a full-width semicolon separates nothing", &[b"a=b\xef\xbc\x9b__Host-id={good}"], Nothing),
    ("a Greek question mark separates nothing", &[b"a=b\xcd\xbe__Host-id={good}"], Nothing),
    ("within another's value", &[b"a=__Host-id={good}"], Nothing),
    ("within another's value in quotes", &[b"a=\"__Host-id={good}\""], Nothing),
    ("CVE-2023-23934: a pair without a name", &[b"=__Host-id={good}"], Nothing),
    ("CVE-2023-23934: two equals signs", &[b"==__Host-id={good}"], Nothing),
    ("CVE-2023-23934: a name of one space", &[b" =__Host-id={good}"], Nothing),
    ("an attribute's name", &[b"Path=__Host-id={good}"], Nothing),
];

/// Values of our name that no session has: one form of each id, and no other.
const VALUES: &[Case] = &[
    ("empty", &[b"{id}="], Refused(Malformed)),
    ("a space", &[b"{id}= "], Refused(Malformed)),
    ("one letter", &[b"{id}=1"], Refused(Malformed)),
    ("a word", &[b"{id}=deleted"], Refused(Malformed)),
    ("null", &[b"{id}=null"], Refused(Malformed)),
    ("undefined", &[b"{id}=undefined"], Refused(Malformed)),
    ("without its last character", &[b"{id}={cut}"], Refused(Malformed)),
    ("without its first character", &[b"{id}={tail}"], Refused(Malformed)),
    ("half of it", &[b"{id}={half}"], Refused(Malformed)),
    ("a character more", &[b"{id}={good}A"], Refused(Malformed)),
    ("a character before", &[b"{id}=A{good}"], Refused(Malformed)),
    ("twice in one", &[b"{id}={good}{good}"], Refused(Malformed)),
    ("two with a comma", &[b"{id}={good},{good}"], Refused(Malformed)),
    ("two with a space", &[b"{id}={good} {good}"], Refused(Malformed)),
    ("padding", &[b"{id}={good}="], Refused(Malformed)),
    ("much padding", &[b"{id}={good}=="], Refused(Malformed)),
    ("padding for the last character", &[b"{id}={cut}="], Refused(Malformed)),
    ("two equals signs", &[b"{id}=={good}"], Refused(Malformed)),
    ("our name again", &[b"{id}={id}={good}"], Refused(Malformed)),
    ("in quotes", &[b"{id}=\"{good}\""], Refused(Malformed)),
    ("a quote before it", &[b"{id}=\"{good}"], Refused(Malformed)),
    ("a quote after it", &[b"{id}={good}\""], Refused(Malformed)),
    ("in single quotes", &[b"{id}='{good}'"], Refused(Malformed)),
    ("a quote for its last character", &[b"{id}={cut}\""], Refused(Malformed)),
    ("a space before it", &[b"{id}= {good}"], Refused(Malformed)),
    ("a tab before it", &[b"{id}=\t{good}"], Refused(Malformed)),
    ("a space for its last character", &[b"{id}={cut} ; a=b"], Refused(Malformed)),
    ("a plus before it", &[b"{id}=+{good}"], Refused(Malformed)),
    ("an encoded space before it", &[b"{id}=%20{good}"], Refused(Malformed)),
    ("an encoded first character", &[b"{id}=%31{tail}"], Refused(Malformed)),
    ("an encoded NUL after it", &[b"{id}={good}%00"], Refused(Malformed)),
    ("an encoded line break after it", &[b"{id}={good}%0D%0A"], Refused(Malformed)),
    ("an encoded semicolon after it", &[b"{id}={good}%3B"], Refused(Malformed)),
    ("a comma after it", &[b"{id}={good},"], Refused(Malformed)),
    ("a dot after it", &[b"{id}={good}."], Refused(Malformed)),
    ("a colon after it", &[b"{id}={good}:1"], Refused(Malformed)),
    ("a backslash after it", &[b"{id}={good}\\"], Refused(Malformed)),
    ("the attributes of Set-Cookie with a comma", &[b"{id}={good},Path=/"], Refused(Malformed)),
    ("an invalid byte after it", &[b"{id}={good}\xff"], Refused(Malformed)),
    ("an invalid byte for its last character", &[b"{id}={cut}\xff"], Refused(Malformed)),
    ("U+00A0 after it", &[b"{id}={good}\xc2\xa0"], Refused(Malformed)),
    ("U+2000 before it", &[b"{id}=\xe2\x80\x80{good}"], Refused(Malformed)),
    ("U+FEFF before it", &[b"{id}=\xef\xbb\xbf{good}"], Refused(Malformed)),
    ("no version", &[b"{id}=0{tail}"], Refused(Malformed)),
    ("the next version", &[b"{id}=2{tail}"], Refused(Malformed)),
    ("a letter for the version", &[b"{id}=A{tail}"], Refused(Malformed)),
    ("a space for the version", &[b"{id}= {tail}"], Refused(Malformed)),
    ("the alphabet of plain base64", &[b"{id}={plain}"], Refused(Malformed)),
    ("bits that mean nothing", &[b"{id}={bits}"], Refused(Malformed)),
    ("a character of no alphabet", &[b"{id}={cut}*"], Refused(Malformed)),
    ("a dot for its last character", &[b"{id}={cut}."], Refused(Malformed)),
    ("in capitals", &[b"{id}={upper}"], Refused(Malformed)),
    ("in hex", &[b"{id}={hex}"], Refused(Malformed)),
    (
        "71 zeros",
        &[b"{id}=00000000000000000000000000000000000000000000000000000000000000000000000"],
        Refused(Malformed),
    ),
    ("a UUID", &[b"{id}=6fa459ea-ee8a-3ca4-894e-db77e160355e"], Refused(Malformed)),
    ("Express's form", &[b"{id}=s%3A{good}.{good}"], Refused(Malformed)),
    ("a JWT", &[b"{id}=eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9."], Refused(Malformed)),
    ("a path", &[b"{id}=../../../../etc/passwd"], Refused(Malformed)),
    ("a command of Redis", &[b"{id}=*1 $8 FLUSHALL"], Refused(Malformed)),
    ("a glob", &[b"{id}=*"], Refused(Malformed)),
    ("a key in Redis", &[b"{id}=sess:main:AAAAAAAAAAAAAAAAAAAAAA"], Refused(Malformed)),
];

/// Values of the right form that are not signed for us.
const SIGNATURES: &[Case] = &[
    ("another tag", &[b"{id}={forged}"], Refused(BadSignature)),
    ("another id", &[b"{id}={swapped}"], Refused(BadSignature)),
    (
        "all zeros",
        &[b"{id}=1AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
        Refused(UnknownKey),
    ),
    (
        "all ones",
        &[b"{id}=1_____________________________________________________________________w"],
        Refused(UnknownKey),
    ),
    ("a key that is not in the ring", &[b"{id}={foreign}"], Refused(UnknownKey)),
    ("the key's id of another key", &[b"{id}={mixed}"], Refused(BadSignature)),
    ("another realm", &[b"{id}={realm}"], Refused(BadSignature)),
    ("another cookie name", &[b"{id}={name}"], Refused(BadSignature)),
    ("an old key of the ring", &[b"{id}={old}"], Good),
];

/// Several cookies of our name: the outcome is the same in any order (see the test, which also turns them around).
const SEVERAL: &[Case] = &[
    ("good and forged", &[b"{id}={good}; {id}={forged}"], Beside(BadSignature)),
    ("forged and good, in two lines", &[b"{id}={forged}", b"{id}={good}"], Beside(BadSignature)),
    ("good and malformed", &[b"{id}={good}; {id}=x"], Beside(Malformed)),
    ("good and empty", &[b"{id}={good}; {id}="], Beside(Malformed)),
    ("good and of a foreign key", &[b"{id}={good}; {id}={foreign}"], Beside(UnknownKey)),
    ("good, good and forged", &[b"{id}={good}; {id}={good}; {id}={forged}"], Beside(BadSignature)),
    ("good between two forged", &[b"{id}={forged}; {id}={good}; {id}={realm}"], Beside(BadSignature)),
    ("malformed and forged beside good", &[b"{id}=x; {id}={forged}; {id}={good}"], Beside(BadSignature)),
    ("malformed and foreign beside good", &[b"{id}=x; {id}={foreign}; {id}={good}"], Beside(UnknownKey)),
    ("foreign and forged beside good", &[b"{id}={foreign}; {id}={forged}; {id}={good}"], Beside(BadSignature)),
    ("twenty malformed beside good", &[MANY_MALFORMED, b"{id}={good}"], Beside(Malformed)),
    ("three forged beside good", &[b"{id}={forged}; {id}={realm}; {id}={name}; {id}={good}"], Beside(BadSignature)),
    ("two good ones", &[b"{id}={good}; {id}={other}"], Refused(SeveralIds)),
    ("two good ones in two lines", &[b"{id}={good}", b"{id}={other}"], Refused(SeveralIds)),
    ("two good ones, one twice", &[b"{id}={good}; {id}={other}; {id}={good}"], Refused(SeveralIds)),
    ("two good ones beside a forged one", &[b"{id}={good}; {id}={forged}; {id}={other}"], Refused(SeveralIds)),
    ("one id under two keys", &[b"{id}={good}; {id}={old}"], Refused(SeveralIds)),
    (
        "five of our form",
        &[b"{id}={good}; {id}={forged}; {id}={realm}; {id}={name}; {id}={foreign}"],
        Refused(SeveralIds),
    ),
    ("two malformed", &[b"{id}=x; {id}=y"], Refused(Malformed)),
    ("malformed and forged", &[b"{id}=x; {id}={forged}"], Refused(BadSignature)),
    ("malformed and foreign", &[b"{id}=x; {id}={foreign}"], Refused(UnknownKey)),
    ("forged and foreign", &[b"{id}={forged}; {id}={foreign}"], Refused(BadSignature)),
];

const MANY_MALFORMED: &[u8] = b"{id}=1;{id}=2;{id}=3;{id}=4;{id}=5;{id}=6;{id}=7;{id}=8;{id}=9;{id}=a;\
    {id}=b;{id}=c;{id}=d;{id}=e;{id}=f;{id}=g;{id}=h;{id}=i;{id}=j;{id}=k";

/// What stands beside our cookie hides it never, and becomes it never.
const SIBLINGS: &[Case] = &[
    ("invalid UTF-8", &[b"a=\xff\xfe\xfd; {id}={good}"], Good),
    ("a cut UTF-8 sequence", &[b"a=\xe2\x82; {id}={good}"], Good),
    ("an overlong NUL", &[b"a=\xc0\x80; {id}={good}"], Good),
    ("a surrogate", &[b"a=\xed\xa0\x80; {id}={good}"], Good),
    ("Latin-1", &[b"name=J\xf6rg; {id}={good}"], Good),
    ("UTF-8", &[b"name=J\xc3\xb6rg; {id}={good}"], Good),
    ("CVE-2023-26049: a quote that does not end", &[b"a=\"b; {id}={good}"], Good),
    ("CVE-2023-26049: a quote that ends behind ours", &[b"a=\"b; {id}={good}; c=d\""], Good),
    ("CVE-2023-26049: an escaped quote", &[b"a=\"b\\\"; {id}={good}; c=\\\"d\""], Good),
    ("a quote before and behind", &[b"a=\"; {id}={good}; b=\""], Good),
    ("a single quote", &[b"a='b; {id}={good}; c=d'"], Good),
    ("a backslash before the semicolon", &[b"a=b\\; {id}={good}"], Good),
    ("octal escapes", &[b"a=\"\\073\\054\"; {id}={good}"], Good),
    ("CVE-2024-7592: many backslashes", &[b"a=\"\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\\"; {id}={good}"], Good),
    ("JSON", &[b"a={\"b\":[1,2],\"c\":\"d=e\"}; {id}={good}"], Good),
    ("RFC 2965: a version", &[b"$Version=1; {id}={good}; $Path=/; $Domain=x"], Good),
    ("a cookie sandwich", &[b"$Version=1; a=\"b; {id}={good}; c=d\""], Good),
    ("a cookie sandwich around a forged one", &[b"$Version=1; a=\"b; {id}={forged}; c=\""], Refused(BadSignature)),
    ("a version in quotes", &[b"$Version=\"1\"; {id}={good}"], Good),
    ("a broken percent sign", &[b"a=%; b=%zz; %=c; {id}={good}"], Good),
    ("an encoded NUL", &[b"a=%00; {id}={good}"], Good),
    ("a name that does not decode", &[b"%ff%fe=a; {id}={good}"], Good),
    ("CVE-2020-8184: our encoded name", &[b"__%48ost-id={forged}; {id}={good}"], Good),
    ("CVE-2020-8184: our encoded name behind it", &[b"{id}={good}; __%48ost-id={other}"], Good),
    ("CVE-2022-31629: our name with dots", &[b"..Host-id={other}; {id}={good}"], Good),
    ("our name with a bracket", &[b"_[Host-id={other}; {id}={good}"], Good),
    ("our name in another case", &[b"__host-id={other}; {id}={good}"], Good),
    ("our name after U+2000", &[b"\xe2\x80\x80__Host-id={other}; {id}={good}"], Good),
    ("our name with a space", &[b"__Host-id ={other}; {id}={good}"], Good),
    ("CVE-2023-23934: a pair without a name", &[b"=__Host-id={other}; {id}={good}"], Good),
    ("CVE-2023-23934: a pair without a name behind it", &[b"{id}={good}; =__Host-id={other}"], Good),
    ("a nameless value", &[b"nonsense; {id}={good}"], Good),
    ("a nameless value in quotes", &[b"\"nonsense\"; {id}={good}"], Good),
    ("an empty name", &[b"=nonsense; {id}={good}"], Good),
    ("only equals signs", &[b"====; {id}={good}"], Good),
    ("the name alone", &[b"__Host-id; {id}={good}"], Good),
    ("attributes of Set-Cookie", &[b"{id}={good}; Path=/; Secure; HttpOnly; SameSite=Lax"], Good),
    ("a Max-Age", &[b"{id}={good}; Max-Age=0"], Good),
    ("an Expires", &[b"{id}={good}; Expires=Thu, 01 Jan 1970 00:00:00 GMT"], Good),
    ("brackets", &[b"a[b]=c; d[]=e; {id}={good}"], Good),
    ("a name with __proto__", &[b"__proto__=a; constructor=b; {id}={good}"], Good),
    ("line breaks that are encoded", &[b"a=b%0d%0aCookie: {id}={forged}; {id}={good}"], Good),
    ("commas", &[b"a=b,c=d,{id}={other}; {id}={good}"], Good),
    ("tabs within a value", &[b"a=b\tc\td; {id}={good}"], Good),
    ("a control beyond ASCII", &[b"a=\x80\x81\x9f; {id}={good}"], Good),
    ("a right-to-left mark", &[b"a=\xe2\x80\xaeb; {id}={good}"], Good),
    ("a name that ours begins", &[b"__Host-id2={other}; __Host-id-old={other}; {id}={good}"], Good),
    ("a value that ends like a pair of ours", &[b"a={id}={other}; {id}={good}"], Good),
];

fn cases() -> impl Iterator<Item = &'static Case> {
    [WELL_FORMED, NAMES, VALUES, SIGNATURES, SEVERAL, SIBLINGS].into_iter().flatten()
}

fn key(seed: u8) -> Vec<u8> {
    (0..32u8).map(|i| i.wrapping_mul(37).wrapping_add(seed.wrapping_mul(91)) ^ seed).collect()
}

/// A ring whose second key once signed.
fn keys() -> KeyRing {
    KeyRing::new(key(1)).unwrap().previous(key(2)).unwrap()
}

static SIGNER: LazyLock<Signer> = LazyLock::new(|| keys().signer("main", NAME));

/// An id whose text has characters of the alphabet for URLs.
fn id(seed: u8) -> SessionId {
    SessionId::random(&Random::scripted(move |bytes| {
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = 0xfb ^ seed.wrapping_mul(at as u8);
        }
        Ok(())
    }))
    .unwrap()
}

/// The values that the cases name.
static VALUES_OF: LazyLock<Vec<(&str, String)>> = LazyLock::new(|| {
    let good = SIGNER.sign(&id(0));
    let other = SIGNER.sign(&id(7));
    assert!(good.contains('-') && good.contains('_'), "{good}");
    let foreign = KeyRing::new(key(3)).unwrap().signer("main", NAME).sign(&id(0));
    let old = KeyRing::new(key(2)).unwrap().signer("main", NAME).sign(&id(0));
    let flipped = if good.as_bytes()[60] == b'A' { "B" } else { "A" };
    let last = char::from(good.as_bytes()[70] + 1);
    vec![
        ("id", NAME.to_owned()),
        ("forged", format!("{}{flipped}{}", &good[..60], &good[61..])),
        // Another id under the tag of the first.
        ("swapped", format!("{}{}", &other[..49], &good[49..])),
        ("upper", good.to_uppercase()),
        ("mixed", format!("{}{}", &old[..6], &good[6..])),
        ("realm", keys().signer("office", NAME).sign(&id(0))),
        ("name", keys().signer("main", "id").sign(&id(0))),
        ("plain", good.replace('-', "+").replace('_', "/")),
        ("bits", format!("{}{last}", &good[..70])),
        ("hex", good.bytes().map(|byte| format!("{byte:02x}")).collect()),
        ("cut", good[..70].to_owned()),
        ("tail", good[1..].to_owned()),
        ("half", good[..36].to_owned()),
        ("good", good),
        ("other", other),
        ("foreign", foreign),
        ("old", old),
    ]
});

fn value(name: &str) -> &'static str {
    &VALUES_OF.iter().find(|(known, _)| *known == name).unwrap().1
}

/// Puts the values in the places that name them.
fn fill(line: &[u8]) -> Vec<u8> {
    VALUES_OF.iter().fold(line.to_vec(), |line, (name, value)| {
        let place = format!("{{{name}}}").into_bytes();
        let mut filled = Vec::new();
        let mut rest = line.as_slice();
        while let Some(at) = rest.windows(place.len()).position(|part| part == place) {
            filled.extend_from_slice(&rest[..at]);
            filled.extend_from_slice(value.as_bytes());
            rest = &rest[at + place.len()..];
        }
        filled.extend_from_slice(rest);
        filled
    })
}

fn lines_of<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> CookieLines {
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(COOKIE, HeaderValue::from_bytes(line).unwrap());
    }
    CookieLines::of(&headers)
}

fn outcome<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Expected {
    let scanned = scan(&lines_of(lines), NAME, &SIGNER);
    if let Some(found) = &scanned.id {
        assert!(*found == id(0), "another id than the good one");
        assert!(scanned.presented);
    }
    match (scanned.id, scanned.presented, scanned.refusal) {
        (Some(_), _, None) => Good,
        (Some(_), _, Some(refusal)) => Beside(refusal),
        (None, false, None) => Nothing,
        (None, true, Some(refusal)) => Refused(refusal),
        odd => panic!("{odd:?}"),
    }
}

/// Every pair of every line, the last one first.
fn turned_around(lines: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let turn = |line: &Vec<u8>| {
        let mut pairs: Vec<_> = line.split(|byte| *byte == b';').collect();
        pairs.reverse();
        pairs.join(&b';')
    };
    lines.iter().rev().map(turn).collect()
}

#[test]
fn r24_r25_r26_the_corpus_of_cookie_lines_leads_where_it_should() {
    let mut wrong = Vec::new();
    for (why, lines, expected) in cases() {
        let lines: Vec<_> = lines.iter().map(|line| fill(line)).collect();
        for (order, lines) in [("as it is", lines.clone()), ("turned around", turned_around(&lines))] {
            let found = outcome(lines.iter().map(Vec::as_slice));
            if found != *expected {
                wrong.push(format!("{why}, {order}: {found:?}, not {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases().count() >= 200, "{}", cases().count());
}

#[test]
fn r25_every_order_of_the_same_cookies_leads_to_the_same() {
    for (names, expected) in [
        (vec!["good", "forged"], Beside(BadSignature)),
        (vec!["good", "good", "forged"], Beside(BadSignature)),
        (vec!["good", "other"], Refused(SeveralIds)),
        (vec!["good", "forged", "realm", "cut"], Beside(BadSignature)),
        (vec!["good", "forged", "realm", "name", "foreign"], Refused(SeveralIds)),
    ] {
        for order in orders(&names) {
            let pairs: Vec<_> = order.iter().map(|name| format!("{NAME}={}", value(name))).collect();
            let one = pairs.join("; ");
            assert_eq!(outcome([one.as_bytes()]), expected, "{order:?} in one line");
            assert_eq!(outcome(pairs.iter().map(String::as_bytes)), expected, "{order:?}, a line each");
        }
    }
}

fn orders<T: Clone>(list: &[T]) -> Vec<Vec<T>> {
    if list.is_empty() {
        return vec![Vec::new()];
    }
    let with = |at: usize| {
        let mut rest = list.to_vec();
        let first = rest.remove(at);
        orders(&rest).into_iter().map(move |order| [vec![first.clone()], order].concat())
    };
    (0..list.len()).flat_map(with).collect()
}

/// The shortest of several runs, since other processes share this machine.
fn shortest(mut work: impl FnMut()) -> Duration {
    let mut once = || {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    (0..20).map(|_| once()).min().unwrap_or_default()
}

#[test]
fn r27_the_largest_headers_are_scanned_within_two_milliseconds() {
    let line = |pair: &str, count: usize| fill(vec![pair; count].join(";").as_bytes());
    let ours = fill(b";{id}={good}");
    let table = [
        ("20,000 other cookies", [line("a=b", 20_000), ours.clone()].concat(), Good),
        ("1,000 forged ones", [line("{id}={forged}", 1000), ours.clone()].concat(), Beside(BadSignature)),
        ("1,000 times the same", line("{id}={good}", 1000), Good),
        ("malformed ones", [line("{id}=x", 10_000), ours.clone()].concat(), Beside(Malformed)),
        ("semicolons", [vec![b';'; 130_000], ours.clone()].concat(), Good),
        ("one long value", [b"a=".to_vec(), vec![b'x'; 130_000], ours.clone()].concat(), Good),
        ("spaces", [vec![b' '; 130_000], ours.clone()].concat(), Good),
        ("almost our name", [line("__Host-i=", 13_000), ours.clone()].concat(), Good),
    ];
    for (what, line, expected) in table {
        assert!(line.len() <= LONGEST, "{what}: {}", line.len());
        let lines = lines_of([line.as_slice()]);
        let took = shortest(|| drop(scan(&lines, NAME, &SIGNER)));
        eprintln!("{what}: {} bytes in {took:?}", line.len());
        assert!(took < Duration::from_millis(2), "{what} took {took:?}");
        assert_eq!(outcome([line.as_slice()]), expected, "{what}");
    }
}

#[test]
fn r27_other_cookies_cost_no_allocation() {
    let ours = format!("{NAME}={}", SIGNER.sign(&id(0)));
    let count = |others: usize| {
        let lines = lines_of([format!("{}{ours}", "a=b; ".repeat(others)).as_bytes()]);
        let mut found = Scanned::default();
        let info = allocation_counter::measure(|| found = scan(&lines, NAME, &SIGNER));
        assert!(found.id.is_some());
        info.count_total
    };
    assert_eq!([count(0), count(1), count(20_000)], [0, 0, 0]);
}

#[test]
fn r27_over_128_kib_nothing_is_looked_at() {
    let ours = format!("{NAME}={}", SIGNER.sign(&id(0)));
    let padded = |length: usize| format!("{ours}; a={}", "x".repeat(length - ours.len() - 4));
    let fits = padded(128 * 1024);
    assert_eq!(outcome([fits.as_bytes()]), Good);
    let too_long = padded(128 * 1024 + 1);
    assert_eq!(outcome([too_long.as_bytes()]), Refused(Refusal::HeaderTooLarge));
    // All lines count together.
    let half = padded(64 * 1024);
    assert_eq!(outcome([half.as_bytes(), half.as_bytes()]), Good);
    assert_eq!(outcome([half.as_bytes(), half.as_bytes(), b";"]), Refused(Refusal::HeaderTooLarge));
}

#[test]
fn r30_lines_that_are_kept_are_marked_as_sensitive() {
    let lines = lines_of([b"a=canary".as_slice(), b"b=canary"]);
    assert!(lines.first.iter().chain(&lines.more).all(HeaderValue::is_sensitive));
    assert!(!format!("{:?}{:?}", lines.first, lines.more).contains("canary"));
}

/// `PROPTEST_CASES` sets how many.
fn properties() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// Any byte that a header may have, and those that matter here more often.
fn header_byte() -> impl Strategy<Value = u8> {
    prop_oneof![
        3 => proptest::sample::select(b"; \t=\",$%\\_-H1A\xff".as_slice()),
        2 => b' '..=b'~',
        1 => 0x80..=0xff_u8,
    ]
}

/// Pieces that make lines close to ours.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let near: Vec<&'static [u8]> = cases().flat_map(|(_, lines, _)| lines.iter().copied()).collect();
    const OURS: &[&str] = &["{id}=", "{good}", "{other}", "{forged}", "; ", ";", "{id}={good}", "{id}={other};"];
    prop_oneof![
        2 => vec(header_byte(), 0..20),
        1 => proptest::sample::select(near).prop_map(<[u8]>::to_vec),
        2 => proptest::sample::select(OURS).prop_map(|piece| piece.as_bytes().to_vec()),
    ]
    .prop_map(|piece| fill(&piece))
}

proptest! {
    #![proptest_config(properties())]

    #[test]
    fn r90_no_cookie_header_makes_it_panic_and_its_order_does_not_matter(
        lines in vec(vec(piece(), 0..12).prop_map(|pieces| pieces.concat()), 0..4),
    ) {
            let found = look(&lines);
        prop_assert_eq!(&found, &look(&turned_around(&lines)));
        // One line a pair says the same.
        let pairs: Vec<_> = lines.iter().flat_map(|line| line.split(|byte| *byte == b';')).map(<[u8]>::to_vec).collect();
        prop_assert_eq!(&found, &look(&pairs));
    }

    #[test]
    fn r90_what_stands_beside_our_cookie_does_not_matter(
        before in vec(header_byte(), 0..60), after in vec(header_byte(), 0..60), nth in 0..cases().count(),
    ) {
        let (_, lines, expected) = cases().nth(nth).unwrap();
            // What makes up our very name is another case, and cannot come about here.
        let before = [before.as_slice(), b"; "].concat();
        let after = [b" ;", after.as_slice()].concat();
        let lines: Vec<_> =
            lines.iter().map(|line| [before.clone(), fill(line), after.clone()].concat()).collect();
        prop_assert_eq!(outcome(lines.iter().map(Vec::as_slice)), *expected);
    }

    #[test]
    fn r90_a_value_verifies_only_as_it_was_signed(
        at in 0_usize..71, byte in any::<u8>(), insert in any::<bool>(), cut in 0_usize..80, more in vec(any::<u8>(), 0..90),
    ) {
        let good = value("good").as_bytes().to_vec();
        let mut changed = good.clone();
        if insert { changed.insert(at, byte) } else { changed[at] = byte }
        changed.truncate(cut.max(at + 1));
        prop_assert_eq!(SIGNER.verify(&changed).is_ok(), changed == good);
        prop_assert!(SIGNER.verify(&more).is_err());
        prop_assert!(SIGNER.verify(&[b"1".as_slice(), &more].concat()).is_err());
    }
}

/// All that a scan says. Ids are told apart by what they sign to.
fn look(lines: &[Vec<u8>]) -> (Option<String>, bool, Option<Refusal>) {
    let scanned = scan(&lines_of(lines.iter().map(Vec::as_slice)), NAME, &SIGNER);
    (scanned.id.map(|id| SIGNER.sign(&id)), scanned.presented, scanned.refusal)
}
