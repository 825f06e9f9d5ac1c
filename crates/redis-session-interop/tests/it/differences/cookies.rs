//! What cookies look like, when they are sent, and what is made of those that come.

use super::script::Happens;
use super::script::Step::{
    Ask, Attributes, Be, Cookie as SetCookie, CopyTo, Forge, ForgeFromRedis, GoElsewhere, Redis, See, SeeAt, SeeWith,
};
use super::sides::Setting::{Cookie, Nothing};
use super::{Case, Choice, Ours, Same, case};

/// An id of theirs that nobody has given out.
const UNKNOWN: &str = "AAAAAAAAAAAAAAAAAAAAAA";

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "the cookie by default",
            [Ask("insert a=1"), Attributes],
            "`__Host-id`, HttpOnly, Path=/, SameSite=Lax, Secure",
            Choice("`__Host-` keeps other hosts of the domain from setting it; with Lax a link from another site finds its visitor logged in, which Strict does not (`Cookie::same_site`)"),
        )
        .setting(Nothing),
        case(
            "the cookie where a session ends after half an hour without use",
            [Ask("insert a=1"), Attributes],
            "`__Host-id`, HttpOnly, Path=/, SameSite=Lax, Secure",
            Ours("the server knows when a session was last used: a browser that counts from the last cookie drops a visitor who reads"),
        ),
        case(
            "the cookie with a name, a path and SameSite=Lax",
            [Ask("insert a=1"), Attributes, See("keys"), SeeAt("/elsewhere", "keys")],
            "`sid`, HttpOnly, Path=/shop, SameSite=Lax, Secure; a=1; nothing",
            Same,
        )
        .setting(Cookie),
        case(
            "its removal",
            [Ask("insert a=1"), Ask("flush"), Attributes],
            "`sid`, HttpOnly, Max-Age=0, Path=/shop, SameSite=Lax, Secure",
            Choice("the attributes of before, so that a browser or a proxy which looks at them takes it for the same cookie"),
        )
        .setting(Cookie),
        case(
            "the cookie of a session until a date",
            [Ask("insert a=1; until 7200"), Attributes],
            "`__Host-id`, HttpOnly, Max-Age of 2 hours, Path=/, SameSite=Lax, Secure",
            Choice("the name and SameSite, as above"),
        )
        .setting(Nothing),
        case(
            "a second write",
            [Ask("insert a=1"), Ask("insert b=1"), SetCookie],
            "no Set-Cookie",
            Ours("a cookie that is sent again overtakes that of a login at the same time"),
        ),
        case(
            "a session that is gone, and a page that looks for it",
            [Ask("insert a=1"), Redis(Happens::Gone), See("get a"), SetCookie],
            "none; no Set-Cookie",
            Ours("a removal would overtake the cookie of a login at the same time"),
        ),
        case(
            "a session that is gone, and an insert",
            [Ask("insert a=1"), Redis(Happens::Gone), Ask("insert b=1"), SetCookie, See("keys")],
            "a cookie is set; b=1",
            Same,
        ),
        case(
            "a cookie of nonsense",
            [Forge("../../etc/passwd%00"), See("get a; id"), SetCookie],
            "none, no id; no Set-Cookie",
            Choice("anonymous on both sides; theirs takes the cookie away"),
        ),
        case(
            "a well-formed id that nobody has given out, and an insert",
            [Forge(UNKNOWN), See("get a; insert a=1"), SetCookie, See("keys"), Be("thief"), Forge(UNKNOWN), See("keys")],
            "none; a cookie is set; a=1; nothing",
            Same,
        ),
        case(
            "the same where the handler clears first, as before a login",
            [Forge(UNKNOWN), Ask("clear; insert a=1"), SetCookie, See("keys"), Be("thief"), Forge(UNKNOWN), See("keys")],
            "a cookie is set; a=1; nothing",
            Ours("a forged cookie costs no error page: its visitor gets a session and an id of his own"),
        ),
        case(
            "an old id after a logout, and an insert",
            [Ask("insert a=1"), CopyTo("copy"), Ask("flush"), Be("copy"), Ask("insert b=1"), See("keys")],
            "nothing",
            Choice("for a minute, an id that has just ended begins no session by a mere edit: its cookie would overwrite the one that replaced it"),
        ),
        case(
            "a cookie made of what Redis shows",
            [Ask("insert a=1"), Be("thief"), ForgeFromRedis, See("keys")],
            "nothing",
            Ours("who can read Redis, a backup or `MONITOR` cannot log in as anybody: keys hold half of an id, and no proof"),
        ),
        case(
            "another application's session on the same Redis",
            [Ask("insert a=1"), GoElsewhere, See("keys")],
            "nothing",
            Ours("a cookie is good for the application that signed it"),
        ),
        case(
            "a cookie whose last letter was changed",
            [
                Ask("insert a=1"),
                SeeWith(|name, value| vec![format!("{name}={}{}", &value[..value.len() - 1], if value.ends_with('A') { 'E' } else { 'A' }).into_bytes()], "keys"),
            ],
            "nothing",
            Same,
        ),
        case(
            "another cookie beside it that is not UTF-8",
            [Ask("insert a=1"), SeeWith(|name, value| vec![[b"x=\xff; ", format!("{name}={value}").as_bytes()].concat()], "keys")],
            "a=1",
            Ours("a byte in somebody else's cookie logs nobody out"),
        ),
        case(
            "two thousand other cookies",
            [
                Ask("insert a=1"),
                SeeWith(|name, value| vec![format!("{}{name}={value}", "x=1; ".repeat(2000)).into_bytes()], "keys"),
            ],
            "a=1",
            Same,
        ),
        case(
            "cookies in two lines, as HTTP/2 has them",
            [
                Ask("insert a=1"),
                SeeWith(|name, value| vec![b"x=1".to_vec(), format!("{name}={value}").into_bytes()], "keys"),
            ],
            "a=1",
            Same,
        ),
        case(
            "a second cookie whose name is the same by percent signs, as another host of the domain may set it",
            [
                Ask("insert a=1"),
                SeeWith(
                    |name, value| {
                        let last = name.len() - 1;
                        let name_by_percent = format!("{}%{:02x}", &name[..last], name.as_bytes()[last]);
                        vec![format!("{name}={value}; {name_by_percent}={UNKNOWN}").into_bytes()]
                    },
                    "keys",
                ),
            ],
            "a=1",
            Ours("nobody can push a cookie in front of it"),
        ),
        case(
            "the cookie's value in quotes",
            [Ask("insert a=1"), SeeWith(|name, value| vec![format!("{name}=\"{value}\"").into_bytes()], "keys")],
            "nothing",
            Same,
        ),
        case(
            "two cookies of its name, the first of nonsense",
            [Ask("insert a=1"), SeeWith(|name, value| vec![format!("{name}=x; {name}={value}").into_bytes()], "keys")],
            "a=1",
            Same,
        ),
        case(
            "two cookies of its name, the second of nonsense",
            [Ask("insert a=1"), SeeWith(|name, value| vec![format!("{name}={value}; {name}=x").into_bytes()], "keys")],
            "a=1",
            Ours("a cookie that is not ours hides none that is"),
        ),
    ]
}
