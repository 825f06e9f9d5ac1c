//! Values of every kind, keys of every kind, and how much there may be of them.

use super::script::Step::{Ask, Cookie, See};
use super::{Case, Ours, Same, Theirs, case};

pub(super) fn cases() -> Vec<Case> {
    let kept = |what, insert, seen| case(what, [Ask(insert), See("get a")], seen, Same);
    vec![
        kept("null", "insert a=null", "null"),
        kept("true and false", "insert a=[true,false]", "[true,false]"),
        kept(
            "the largest and smallest whole numbers",
            "insert a=[18446744073709551615,-9223372036854775808,0,-1]",
            "[18446744073709551615,-9223372036854775808,0,-1]",
        ),
        kept(
            "fractions, to the last bit",
            "insert a=[0.1,1e+300,-5e-324,3.0,0.30000000000000004]",
            "[0.1,1e+300,-5e-324,3.0,0.30000000000000004]",
        ),
        kept("not a number, which JSON has not", "not-a-number a", "null"),
        kept("an empty text", "insert a=\"\"", "\"\""),
        kept("text of all planes, quotes, line ends and NUL", "insert a=\"ü😀\\\"\\n\\u0000\"", "\"ü😀\\\"\\n\\u0000\""),
        kept("an empty list and an empty object", "insert a=[[],{}]", "[[],{}]"),
        kept(
            "objects in lists in objects",
            "insert a={\"b\":[{\"c\":[1,\"two\",null]},3.5]}",
            "{\"b\":[{\"c\":[1,\"two\",null]},3.5]}",
        ),
        case("lists, 100 in each other", [Ask("deep a=100"), See("how-long a")], "201 bytes", Same),
        case(
            "lists, 200 in each other",
            [Ask("insert b=1"), Ask("deep a=200"), See("get b")],
            "500; 1",
            Theirs("a value deeper than 127 levels is refused with an error that says so: JSON is not read deeper"),
        )
        .may_fail(),
        case("a key without a letter", [Ask("insert =1"), See("keys")], "=1", Same),
        case("a key of two words", [Ask("insert two words, ü=1"), See("keys")], "two words, ü=1", Same),
        case(
            "a key that begins with @",
            [Ask("insert a=1"), Ask("insert a=2; insert @user=1"), See("keys; get @user")],
            "500; a=1, none",
            Theirs("such names are this library's own, and are refused with an error that says so, with all of the request's edits"),
        )
        .may_fail(),
        case("a thousand keys", [Ask("many n=1000"), See("how-many n=1000")], "1000 of 1000 keys", Same),
        case("60,000 bytes", [Ask("large a=60000"), See("how-long a")], "60002 bytes", Same),
        case(
            "a million bytes",
            [Ask("insert b=1"), Ask("large a=1000000"), Cookie, See("get b")],
            "413; no Set-Cookie; 1",
            Ours("a session holds 64 KiB unless `size_limit` says more: whoever can make it larger fills Redis, and each request reads all of it"),
        ),
    ]
}
