//! What a session's state may be, how it comes back, and what becomes of it when its type changes, on both stores.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use redis_session::{Error, Event, Reason, RedisSessionLayer, Session, State, Status};
use redis_session_testkit::Browser;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::visitor::{Place, Visitor, on_both_stores};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Shopper {
    visits: u64,
    cart: Vec<String>,
}

/// The stored text of a field.
async fn text(visitor: &Visitor, name: &str) -> Option<String> {
    visitor.fields().await.into_iter().find(|(n, _)| n == name).map(|(_, value)| value)
}

mod round_trip {
    //! What was written is what is read, whatever it is.

    use super::*;

    /// A state with a field of any type.
    #[derive(Serialize, Deserialize)]
    struct Holder<V> {
        held: Vec<V>,
    }

    impl<V> Default for Holder<V> {
        fn default() -> Self {
            Self { held: Vec::new() }
        }
    }

    trait Any: Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static {}
    impl<V: Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static> Any for V {}

    /// Writes values in one request, as a field of a view and by name, and reads them in the next.
    async fn check<V: Any>(visitor: &Visitor, values: impl Into<Vec<V>>) {
        let values: Vec<V> = values.into();
        visitor
            .visit(async |session| {
                session.clear()?;
                session.insert("plain", &values)?;
                session.view::<Holder<V>>()?.update_with(values.clone(), |holder, values| holder.held = values)
            })
            .await;
        let (held, plain) = visitor
            .visit(async |session| {
                let mut holder = session.view::<Holder<V>>()?;
                let held = holder.held.clone();
                // What is read and not changed is not written either.
                holder.update(|_| {})?;
                Ok((held, session.get::<Vec<V>>("plain")?.unwrap()))
            })
            .await;
        assert_eq!((held.len(), plain.len()), (values.len(), values.len()));
        for (value, (held, plain)) in values.iter().zip(held.iter().zip(&plain)) {
            assert_eq!((held, plain), (value, value));
            // Zeros of either sign are equal, and print differently.
            assert_eq!(format!("{held:?}"), format!("{value:?}"));
        }
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Tree {
        Leaf,
        One(Box<Tree>),
        Two(i64, String),
        Many { name: Option<String>, of: Vec<Tree>, by_name: BTreeMap<String, Tree> },
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    enum Inside {
        Empty,
        Card { last_four: String, tree: Tree },
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "t", content = "c")]
    enum Beside {
        Empty,
        Pair(u64, Inside),
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Bare {
        Number(i64),
        Text(String),
        Both { number: i64, text: Option<String> },
    }

    fn tree() -> Tree {
        let two = Tree::Two(i64::MIN, "é\u{0}".into());
        let by_name = BTreeMap::from([(String::new(), Tree::Leaf), ("@".into(), two.clone())]);
        Tree::Many { name: None, of: vec![Tree::One(Box::new(two)), Tree::Leaf], by_name }
    }

    #[tokio::test]
    async fn numbers_come_back() {
        on_both_stores(async |place| {
            let visitor = place.visitor();
            check(&visitor, [0, 1, (1 << 53) - 1, 1 << 53, (1 << 53) + 1, u64::MAX - 1, u64::MAX]).await;
            check(&visitor, [i64::MIN, i64::MIN + 1, -(1 << 53) - 1, -1, 0, i64::MAX]).await;
            check(&visitor, [i128::MIN, i128::from(i64::MIN) - 1, i128::from(u64::MAX) + 1, i128::MAX]).await;
            check(&visitor, [0, u128::from(u64::MAX) + 1, u128::MAX]).await;
            check(&visitor, [i8::MIN, -1, i8::MAX]).await;
            check(&visitor, [false, true]).await;
            check(&visitor, [0.0, -0.0, 0.1 + 0.2, 1.0 / 3.0, 1e23, 31.245270191439438, -1.5e-300, 1e300]).await;
            check(&visitor, [f64::MIN, f64::MAX, f64::MIN_POSITIVE, f64::EPSILON, 5e-324, 9007199254740993.0]).await;
            check(&visitor, [0.1_f32, 16777217.0, 1.0 / 3.0, f32::MAX, f32::MIN_POSITIVE, f32::EPSILON, 1e-45]).await;
        })
        .await;
    }

    #[tokio::test]
    async fn floats_of_any_bits_come_back() {
        on_both_stores(async |place| {
            // A fixed sequence: Knuth's multiplier.
            let bits = (1..2000_u64).map(|n| n.wrapping_mul(6_364_136_223_846_793_005).rotate_left(17) ^ n);
            let floats: Vec<f64> = bits.map(f64::from_bits).filter(|float| float.is_finite()).collect();
            assert!(floats.len() > 1900);
            let visitor = place.visitor();
            for floats in floats.chunks(500) {
                check(&visitor, floats).await;
            }
        })
        .await;
    }

    #[tokio::test]
    async fn texts_come_back() {
        on_both_stores(async |place| {
            let visitor = place.visitor();
            let texts = [
                "",
                " ",
                "\0",
                "\u{7f}",
                "\r\n\t\\\"/",
                "null",
                "{\"a\":1}",
                "é",
                "e\u{301}",
                "שלום",
                "🦀",
                "\u{2028}\u{2029}",
                "\u{feff}",
                "\u{10ffff}",
                "@",
                "'; DROP",
            ];
            check(&visitor, texts.map(str::to_owned)).await;
            check(&visitor, ["x".repeat(10_000)]).await;
            check(&visitor, ['\0', 'é', '🦀', '"']).await;
            check(&visitor, [(0..=255).collect::<Vec<u8>>(), vec![]]).await;
        })
        .await;
    }

    #[tokio::test]
    async fn enums_and_what_holds_them_come_back() {
        on_both_stores(async |place| {
            let visitor = place.visitor();
            check(&visitor, [Tree::Leaf, tree(), Tree::One(Box::new(Tree::One(Box::new(tree()))))]).await;
            let card = Inside::Card { last_four: "0042".into(), tree: tree() };
            check(&visitor, [Inside::Empty, card.clone()]).await;
            check(&visitor, [Beside::Empty, Beside::Pair(u64::MAX, card)]).await;
            let both = Bare::Both { number: 0, text: None };
            check(&visitor, [Bare::Number(i64::MIN), Bare::Text("1".into()), both]).await;
            check(&visitor, [Ok(1), Err("no".to_owned())]).await;
        })
        .await;
    }

    #[tokio::test]
    async fn what_the_standard_library_has_comes_back() {
        on_both_stores(async |place| {
            let visitor = place.visitor();
            check(&visitor, [None, Some(String::new()), Some("None".into())]).await;
            check(&visitor, [((), 1_u8, ('a', [0_i16; 3]))]).await;
            check(&visitor, [BTreeMap::from([(i64::MIN, vec![()]), (0, vec![])])]).await;
            check(&visitor, [BTreeMap::from([(String::new(), 1), ("é@".into(), 2)]), BTreeMap::new()]).await;
            check(&visitor, [BTreeMap::from([(true, 1), (false, 0)])]).await;
            check(&visitor, [HashMap::from([('é', 1)])]).await;
            check(&visitor, [BTreeSet::from(["b".to_owned(), "a".to_owned()])]).await;
            check(&visitor, [Duration::MAX, Duration::ZERO, Duration::from_nanos(1)]).await;
            check(&visitor, [SystemTime::UNIX_EPOCH + Duration::new(1 << 33, 999_999_999)]).await;
            check::<IpAddr>(&visitor, ["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()]).await;
            check(&visitor, [Value::Null, json!({"": [null, {"@": -1.5e-7}], "é": u64::MAX})]).await;
        })
        .await;
    }

    #[tokio::test]
    async fn maps_with_any_names_come_back_as_states() {
        on_both_stores(async |place| {
            let visitor = place.visitor();
            let names = ["", "é", "a b", "a\r\nb", "\0", "🦀", "1", "-", "a@"];
            let map: BTreeMap<String, u64> = names.into_iter().map(str::to_owned).zip(1..).collect();
            visitor
                .visit(async |session| {
                    session.view::<BTreeMap<String, u64>>()?.update_with(map.clone(), |held, map| *held = map)
                })
                .await;
            let read = visitor
                .visit(async |session| {
                    let mut view = session.view::<BTreeMap<String, u64>>()?;
                    let read = view.clone();
                    view.update(|map| map.retain(|name, _| name != "é"))?;
                    Ok(read)
                })
                .await;
            assert_eq!(read, map);
            assert_eq!(visitor.fields().await.len(), names.len() - 1);
            // Keys that are no texts: as serde_json has them.
            let other = place.visitor();
            other
                .visit(async |session| {
                    session.view::<BTreeMap<i64, bool>>()?.update(|map| *map = BTreeMap::from([(i64::MIN, true)]))
                })
                .await;
            let read = other.visit(async |session| Ok(session.view::<BTreeMap<i64, bool>>()?.clone())).await;
            assert_eq!(read, BTreeMap::from([(i64::MIN, true)]));
        })
        .await;
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Choices {
        theme: Option<String>,
        note: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        tag: Option<String>,
    }

    impl Default for Choices {
        fn default() -> Self {
            Self { theme: Some("dark".into()), note: None, tag: Some("new".into()) }
        }
    }

    #[tokio::test]
    async fn none_and_absent_stay_apart() {
        on_both_stores(async |place| {
            let visitor = place.visitor();
            type Step = fn(&mut Choices);
            let steps: [(Step, [Option<&str>; 3]); 5] = [
                (|choices| choices.note = Some(String::new()), [None, Some(r#""""#), None]),
                (|choices| choices.theme = None, [Some("null"), Some(r#""""#), None]),
                (|choices| choices.tag = None, [Some("null"), Some(r#""""#), Some("")]),
                (|choices| choices.note = None, [Some("null"), Some("null"), Some("")]),
                (|choices| *choices = Choices::default(), [Some(r#""dark""#), Some("null"), Some(r#""new""#)]),
            ];
            let mut expected = Choices::default();
            for (step, stored) in steps {
                visitor.visit(async |session| session.view::<Choices>()?.update(step)).await;
                step(&mut expected);
                visitor
                    .visit(async |session| {
                        assert_eq!(*session.view::<Choices>()?, expected);
                        Ok(())
                    })
                    .await;
                for (name, stored) in ["theme", "note", "tag"].into_iter().zip(stored) {
                    assert_eq!(text(&visitor, name).await.as_deref(), stored, "{name}");
                }
            }
        })
        .await;
    }
}

mod deployments {
    //! One application before and after a change of its state's type; for some minutes servers of both kinds answer.

    use super::*;

    /// The old type is written, the new one reads and updates it, and a server that still has the old one reads that.
    async fn check<Old: State, New: State>(
        write: fn(&mut Old),
        update: fn(&mut New),
        stored: &[(&str, &str)],
        read_again: fn(&Old),
    ) {
        on_both_stores(async |place| {
            let visitor = place.visitor();
            visitor.visit(async |session| session.view::<Old>()?.update(write)).await;
            visitor.visit(async |session| session.insert("unknown", &1)).await;
            visitor.visit(async |session| session.view::<New>()?.update(update)).await;
            let mut fields = visitor.fields().await;
            assert!(fields.contains(&("unknown".into(), "1".into())));
            fields.retain(|(name, _)| name != "unknown");
            let stored: Vec<_> = stored.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
            assert_eq!(fields, stored);
            visitor
                .visit(async |session| {
                    read_again(&*session.view::<Old>()?);
                    Ok(())
                })
                .await;
        })
        .await;
    }

    #[derive(Default, Serialize, Deserialize)]
    struct Visits {
        visits: u64,
    }

    #[tokio::test]
    async fn a_field_renamed_in_rust_keeps_its_stored_name() {
        #[derive(Default, Serialize, Deserialize)]
        struct New {
            #[serde(rename = "visits")]
            visit_count: u64,
        }
        check::<Visits, New>(
            |old| old.visits = 4,
            |new| new.visit_count += 1,
            &[("visits", "5")],
            |old| {
                assert_eq!(old.visits, 5);
            },
        )
        .await;
    }

    #[tokio::test]
    async fn a_renamed_field_is_read_by_its_alias_and_old_servers_keep_what_they_had() {
        #[derive(Default, Serialize, Deserialize)]
        struct New {
            #[serde(alias = "visits")]
            visit_count: u64,
        }
        let stored = [("visit_count", "5"), ("visits", "4")];
        check::<Visits, New>(
            |old| old.visits = 4,
            |new| new.visit_count += 1,
            &stored,
            |old| assert_eq!(old.visits, 4),
        )
        .await;
    }

    #[tokio::test]
    async fn an_added_field_has_its_default_until_it_is_changed() {
        #[derive(Serialize, Deserialize)]
        struct New {
            visits: u64,
            per_page: u32,
            coupon: Option<String>,
        }
        impl Default for New {
            fn default() -> Self {
                Self { visits: 0, per_page: 20, coupon: Some("welcome".into()) }
            }
        }
        let update = |new: &mut New| {
            assert_eq!((new.visits, new.per_page, new.coupon.as_deref()), (4, 20, Some("welcome")));
            new.visits += 1;
        };
        check::<Visits, New>(|old| old.visits = 4, update, &[("visits", "5")], |old| assert_eq!(old.visits, 5)).await;
        let update = |new: &mut New| new.per_page *= 2;
        let stored = [("per_page", "40"), ("visits", "4")];
        check::<Visits, New>(|old| old.visits = 4, update, &stored, |old| assert_eq!(old.visits, 4)).await;
    }

    #[tokio::test]
    async fn a_field_that_the_type_no_longer_has_stays_until_it_is_removed_by_name() {
        #[derive(Default, Serialize, Deserialize)]
        struct Old {
            visits: u64,
            nickname: String,
        }
        let write = |old: &mut Old| *old = Old { visits: 4, nickname: "é".into() };
        let stored = [("nickname", r#""é""#), ("visits", "5")];
        check::<Old, Visits>(write, |new| new.visits += 1, &stored, |old| assert_eq!(old.nickname, "é")).await;
        on_both_stores(async |place| {
            let visitor = place.visitor();
            visitor.visit(async |session| session.view::<Old>()?.update(move |old| write(old))).await;
            visitor.visit(async |session| session.remove("nickname")).await;
            assert_eq!(visitor.fields().await, [("visits".to_owned(), "4".to_owned())]);
        })
        .await;
    }

    #[tokio::test]
    async fn what_deny_unknown_fields_does_not_know_is_somebody_elses() {
        #[derive(Default, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct New {
            visits: u64,
        }
        #[derive(Default, Serialize, Deserialize)]
        struct Old {
            visits: u64,
            nickname: String,
        }
        let write = |old: &mut Old| *old = Old { visits: 4, nickname: "é".into() };
        let stored = [("nickname", r#""é""#), ("visits", "5")];
        check::<Old, New>(write, |new| new.visits += 1, &stored, |old| assert_eq!(old.visits, 5)).await;
    }

    #[tokio::test]
    async fn a_value_may_become_optional_and_its_none_is_an_error_to_old_servers() {
        #[derive(Default, Serialize, Deserialize)]
        struct Old {
            name: String,
        }
        #[derive(Default, Serialize, Deserialize)]
        struct New {
            name: Option<String>,
        }
        let stored = [("name", r#""ada!""#)];
        let update = |new: &mut New| new.name.as_mut().unwrap().push('!');
        check::<Old, New>(|old| old.name = "ada".into(), update, &stored, |old| assert_eq!(old.name, "ada!")).await;
        on_both_stores(async |place| {
            let visitor = place.visitor();
            visitor.visit(async |session| session.view::<Old>()?.update(|old| old.name = "ada".into())).await;
            visitor.visit(async |session| session.view::<New>()?.update(|new| new.name = None)).await;
            let error = visitor.visit(async |session| Ok(session.view::<Old>().map(drop).unwrap_err())).await;
            assert!(error.is_field() && error.to_string().contains("\"name\""), "{error}");
        })
        .await;
    }

    #[tokio::test]
    async fn fields_may_move_into_a_flattened_struct_and_back() {
        #[derive(Default, Serialize, Deserialize)]
        struct Flat {
            visits: u64,
            street: String,
            city: Option<String>,
        }
        #[derive(Default, Serialize, Deserialize)]
        struct Address {
            street: String,
            city: Option<String>,
        }
        #[derive(Default, Serialize, Deserialize)]
        struct Nested {
            visits: u64,
            #[serde(flatten)]
            address: Address,
        }
        let write = |old: &mut Flat| *old = Flat { visits: 4, street: "Rue A".into(), city: None };
        let update = |new: &mut Nested| new.address.city = Some("Liège".into());
        let stored = [("city", r#""Liège""#), ("street", r#""Rue A""#), ("visits", "4")];
        check::<Flat, Nested>(write, update, &stored, |old| assert_eq!(old.city.as_deref(), Some("Liège"))).await;
        let write = |old: &mut Nested| old.address.street = "Rue A".into();
        let update = |new: &mut Flat| new.visits += 1;
        let stored = [("street", r#""Rue A""#), ("visits", "1")];
        check::<Nested, Flat>(write, update, &stored, |old| assert_eq!(old.address.street, "Rue A")).await;
    }

    #[tokio::test]
    async fn a_skipped_field_lives_in_its_request_only() {
        #[derive(Default, Serialize, Deserialize)]
        struct New {
            visits: u64,
            #[serde(skip)]
            cache: Option<String>,
        }
        let update = |new: &mut New| {
            assert_eq!(new.cache, None);
            new.cache = Some("x".into());
            new.visits += 1;
        };
        check::<Visits, New>(|old| old.visits = 4, update, &[("visits", "5")], |old| assert_eq!(old.visits, 5)).await;
    }

    #[tokio::test]
    async fn a_number_may_grow_wider_and_a_struct_may_be_wrapped() {
        #[derive(Default, Serialize, Deserialize)]
        struct Wide {
            visits: i128,
        }
        #[derive(Default, Serialize, Deserialize)]
        struct Wrapped(Wide);
        let stored = [("visits", "5")];
        check::<Visits, Wide>(|old| old.visits = 4, |new| new.visits += 1, &stored, |old| assert_eq!(old.visits, 5))
            .await;
        check::<Visits, Wrapped>(
            |old| old.visits = 4,
            |new| new.0.visits += 1,
            &stored,
            |old| assert_eq!(old.visits, 5),
        )
        .await;
    }

    #[tokio::test]
    async fn a_type_that_old_values_do_not_fit_may_read_both() {
        #[derive(Default, Serialize, Deserialize)]
        struct Old {
            cart: Vec<String>,
        }
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        struct Line {
            name: String,
            count: u32,
        }
        #[derive(Default, Serialize, Deserialize)]
        struct New {
            #[serde(deserialize_with = "lines_or_names")]
            cart: Vec<Line>,
        }
        fn lines_or_names<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Line>, D::Error> {
            #[derive(Deserialize)]
            #[serde(untagged)]
            enum LineOrName {
                Line(Line),
                Name(String),
            }
            let cart = Vec::<LineOrName>::deserialize(deserializer)?;
            Ok(cart
                .into_iter()
                .map(|entry| match entry {
                    LineOrName::Line(line) => line,
                    LineOrName::Name(name) => Line { name, count: 1 },
                })
                .collect())
        }
        on_both_stores(async |place| {
            let visitor = place.visitor();
            visitor.visit(async |session| session.view::<Old>()?.update(|old| old.cart.push("tea".into()))).await;
            visitor
                .visit(async |session| {
                    let mut new = session.view::<New>()?;
                    assert_eq!(new.cart, [Line { name: "tea".into(), count: 1 }]);
                    new.update(|new| new.cart[0].count += 1)
                })
                .await;
            assert_eq!(text(&visitor, "cart").await.unwrap(), r#"[{"name":"tea","count":2}]"#);
        })
        .await;
    }
}

/// A visitor whose cart does not decode as a [`Shopper`]'s.
async fn visitor_of_another_deployment(place: &Place) -> Visitor {
    let visitor = place.visitor();
    visitor
        .visit(async |session| {
            session.insert("cart", "of another deployment")?;
            session.insert("visits", &4)
        })
        .await;
    place.events.take();
    visitor
}

#[tokio::test]
async fn a_field_that_does_not_decode_is_an_error_that_names_it_and_nothing_is_overwritten() {
    #[derive(Default, Serialize, Deserialize)]
    struct Visits {
        visits: u64,
    }
    on_both_stores(async |place| {
        let app = Router::new()
            .route("/", get(async |mut shopper: Session<Shopper>| shopper.update(|shopper| shopper.visits += 1)))
            .route("/option", get(async |shopper: Option<Session<Shopper>>| shopper.is_some().to_string()))
            .layer(place.layer.clone());
        let visitor = visitor_of_another_deployment(&place).await;
        let before = visitor.fields().await;
        let browser = Browser::new(app);
        browser.jar().clone_from(&visitor.browser.jar());
        for path in ["/", "/option"] {
            let page = browser.get(path).await;
            assert_eq!((page.status, page.body.as_str()), (StatusCode::INTERNAL_SERVER_ERROR, ""));
        }
        assert_eq!((visitor.fields().await, place.events.take()), (before, vec![]));
        visitor
            .visit(async |session| {
                let error = session.view::<Shopper>().map(drop).unwrap_err();
                assert!(error.is_field() && error.to_string().contains("field \"cart\""), "{error}");
                assert!(!format!("{error} {error:?}").contains("another deployment"), "{error:?}");
                assert_eq!(session.get("visits")?, Some(4));
                session.view::<Visits>()?.update(|other| other.visits += 1)
            })
            .await;
        assert_eq!(text(&visitor, "cart").await.unwrap(), r#""of another deployment""#);
        assert_eq!(text(&visitor, "visits").await.unwrap(), "5");
        // What the application may do about it.
        visitor
            .visit(async |session| {
                session.remove("cart")?;
                let mut shopper = session.view::<Shopper>()?;
                assert!(shopper.cart.is_empty());
                shopper.update(|shopper| shopper.cart.push("tea".into()))
            })
            .await;
        assert_eq!(text(&visitor, "cart").await.unwrap(), r#"["tea"]"#);
    })
    .await;
}

#[tokio::test]
async fn a_field_whose_type_says_so_reads_as_its_default_and_what_is_stored_stays_until_it_is_changed() {
    #[derive(Default, Serialize, Deserialize)]
    #[serde(default)]
    struct Lenient {
        #[serde(deserialize_with = "redis_session::or_default")]
        cart: Vec<String>,
        #[serde(deserialize_with = "redis_session::or_default")]
        coupon: Option<u32>,
        visits: u64,
    }
    on_both_stores(async |place| {
        let visitor = visitor_of_another_deployment(&place).await;
        visitor.visit(async |session| session.insert("coupon", "ten percent")).await;
        visitor
            .visit(async |session| {
                let mut lenient = session.view::<Lenient>()?;
                assert_eq!((lenient.cart.len(), lenient.coupon, lenient.visits), (0, None, 4));
                lenient.update(|lenient| lenient.visits += 1)?;
                // Somebody saves meanwhile, so that it is run again on a newer version.
                visitor.visit(async |session| session.insert("other", &1)).await;
                Ok(())
            })
            .await;
        assert_eq!(text(&visitor, "visits").await.unwrap(), "5");
        assert_eq!(text(&visitor, "cart").await.unwrap(), r#""of another deployment""#);
        assert_eq!(text(&visitor, "coupon").await.unwrap(), r#""ten percent""#);
        visitor
            .visit(async |session| session.view::<Lenient>()?.update(|lenient| lenient.cart.push("tea".into())))
            .await;
        assert_eq!(text(&visitor, "cart").await.unwrap(), r#"["tea"]"#);
        assert_eq!(text(&visitor, "coupon").await.unwrap(), r#""ten percent""#);
        visitor
            .visit(async |session| {
                let lenient = session.view::<Lenient>()?;
                assert_eq!((lenient.cart.as_slice(), lenient.coupon), (&["tea".to_owned()][..], None));
                Ok(())
            })
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_field_that_no_longer_decodes_when_an_update_is_run_again_fails_the_request() {
    on_both_stores(async |place| {
        let visitor = place.visitor();
        visitor.visit(async |session| session.insert("visits", &1)).await;
        let answer = visitor
            .try_visit(async |session| {
                session.view::<Shopper>()?.update(|shopper| shopper.visits += 1)?;
                visitor.visit(async |session| session.insert("cart", "of another deployment")).await;
                Ok(())
            })
            .await;
        assert_eq!(answer.page.status, 500);
        assert!(answer.error.unwrap().to_string().contains("field \"cart\""));
        assert_eq!(text(&visitor, "visits").await.unwrap(), "1");
    })
    .await;
}

#[tokio::test]
async fn a_field_that_another_program_wrote_and_that_is_no_json_is_left_alone() {
    let place = Place::on_redis().await;
    let (visitor, redis) = (place.visitor(), place.redis.as_ref().unwrap());
    visitor.visit(async |session| session.insert("visits", &1)).await;
    let key = &redis.run(&["KEYS", "sess:*"]).texts()[0];
    redis.run(&["HSET", key, "cart", r#"["tea""#]);
    redis.run(&[b"HSET".as_slice(), key.as_bytes(), b"\xff", b"\xfe"]);
    visitor
        .visit(async |session| {
            let error = session.view::<Shopper>().map(drop).unwrap_err();
            assert!(error.to_string().contains("field \"cart\" is not valid JSON"), "{error}");
            let error = session.get::<Value>("cart").unwrap_err();
            assert!(error.is_field() && error.to_string().contains("\"cart\""), "{error}");
            session.increment("visits", 1)
        })
        .await;
    assert_eq!(redis.run(&["HGET", key, "cart"]).text(), r#"["tea""#);
    assert_eq!(redis.run(&[b"HGET".as_slice(), key.as_bytes(), b"\xff"]).bytes(), b"\xfe");
    assert_eq!(redis.run(&["HGET", key, "visits"]).text(), "2");
}

#[tokio::test]
async fn what_cannot_be_a_state_is_refused_with_an_error_that_says_so() {
    #[derive(Default, Serialize, Deserialize)]
    struct CatchAll {
        visits: u64,
        #[serde(flatten)]
        rest: HashMap<String, Value>,
    }
    fn refused<T: State>(session: &Session, why: &str) {
        let error = session.view::<T>().map(drop).unwrap_err();
        assert!(error.is_field() && error.to_string().contains(why), "{error}");
    }
    on_both_stores(async |place| {
        let visitor = place.visitor();
        visitor
            .visit(async |session| {
                refused::<u64>(&session, "no struct or map");
                refused::<Vec<Shopper>>(&session, "no struct or map");
                refused::<Option<Shopper>>(&session, "no struct or map");
                Ok(())
            })
            .await;
        for catch_all_first in [true, false] {
            visitor
                .visit(async |session| {
                    if catch_all_first {
                        session.view::<CatchAll>()?.update(|all| drop(all.rest.insert("x".into(), json!([1]))))?;
                        refused::<Shopper>(&session, "takes every field");
                    } else {
                        session.view::<Shopper>()?;
                        refused::<CatchAll>(&session, "takes every field");
                        refused::<BTreeMap<String, Value>>(&session, "takes every field");
                    }
                    session.insert("@version", &1).unwrap_err();
                    session.increment("@", 1).unwrap_err();
                    session.remove("@").unwrap_err();
                    Ok(())
                })
                .await;
        }
        assert_eq!(visitor.fields().await, [("x".to_owned(), "[1]".to_owned())]);
    })
    .await;
}

mod limits {
    //! A state over the size limit is an error to who would make it so; what is stored stays.

    use super::*;

    /// Names and JSON texts of at most 40 bytes.
    fn small(place: &Place) -> RedisSessionLayer {
        place.layer.clone().size_limit(40)
    }

    fn too_large<R>(result: Result<R, Error>) {
        let error = result.map(drop).unwrap_err();
        assert!(error.is_too_large() && error.to_string().contains("40 bytes"), "{error}");
    }

    #[tokio::test]
    async fn r73_a_state_over_the_limit_is_an_error_to_the_handler_and_the_stored_one_stays() {
        on_both_stores(async |place| {
            let visitor = place.visitor().before(&small(&place));
            // `cart` and `["tea"]` are 11 bytes.
            visitor.visit(async |session| session.insert("cart", &["tea"])).await;
            visitor
                .visit(async |session| {
                    let mut shopper = session.view::<Shopper>()?;
                    // `x`, two quotes and 26 letters are just 29 bytes more, and 30 are too many.
                    session.insert("x", &"x".repeat(26))?;
                    session.remove("x")?;
                    too_large(session.insert("x", &"x".repeat(27)));
                    too_large(session.insert("cart", &["x".repeat(40)]));
                    too_large(session.increment(&"x".repeat(29), 1));
                    too_large(shopper.update(|shopper| shopper.cart.push("x".repeat(40))));
                    assert_eq!(shopper.cart, ["tea"]);
                    let too_much = |shopper: &mut Shopper| {
                        shopper.cart.push("x".repeat(40));
                        Ok::<_, Error>(())
                    };
                    too_large(shopper.transaction(too_much).await);
                    shopper.update(|shopper| shopper.visits += 1)
                })
                .await;
            let answer = visitor.try_visit(async |session| session.insert("x", &"x".repeat(40))).await;
            assert_eq!(answer.page.status, StatusCode::PAYLOAD_TOO_LARGE);
            let stored = [("cart".to_owned(), r#"["tea"]"#.to_owned()), ("visits".to_owned(), "1".to_owned())];
            assert_eq!(visitor.fields().await, stored);
            let stranger = place.visitor().before(&small(&place));
            let answer = stranger.try_visit(async |session| session.increment(&"x".repeat(40), 1)).await;
            assert_eq!((answer.page.status, stranger.cookie()), (StatusCode::PAYLOAD_TOO_LARGE, None));
        })
        .await;
    }

    #[tokio::test]
    async fn r73_two_requests_that_are_over_the_limit_together_only_are_not_both_saved() {
        on_both_stores(async |place| {
            for with_closures in [true, false] {
                let visitor = place.visitor().before(&small(&place));
                let push = async |session: Session, name: &'static str| {
                    if with_closures {
                        session.view::<Shopper>()?.update(|shopper| shopper.cart.push("x".repeat(18)))
                    } else {
                        session.insert(name, &"x".repeat(20))
                    }
                };
                visitor.visit(async |session| session.save().await).await;
                let answer = visitor
                    .try_visit(async |session| {
                        push(session, "a").await?;
                        visitor.visit(async |session| push(session, "b").await).await;
                        Ok(())
                    })
                    .await;
                assert_eq!(answer.page.status, StatusCode::PAYLOAD_TOO_LARGE);
                too_large(Err::<(), _>(answer.error.unwrap()));
                assert_eq!(visitor.fields().await.len(), 1);
                assert!(visitor.fields().await[0].1.len() < 30);
            }
        })
        .await;
    }

    #[tokio::test]
    async fn what_is_over_a_limit_that_came_later_may_be_read_and_shrink() {
        on_both_stores(async |place| {
            let visitor = place.visitor();
            visitor
                .visit(async |session| {
                    session.insert("cart", &["x".repeat(20), "y".repeat(20)])?;
                    session.insert("visits", &1)
                })
                .await;
            let visitor = visitor.before(&small(&place));
            visitor
                .visit(async |session| {
                    too_large(session.insert("more", &1));
                    too_large(session.increment("visits", 9));
                    session.increment("visits", 1)
                })
                .await;
            visitor.visit(async |session| session.view::<Shopper>()?.update(|shopper| drop(shopper.cart.pop()))).await;
            visitor.visit(async |session| session.insert("z", &1)).await;
            let stored = [("cart", r#"["xxxxxxxxxxxxxxxxxxxx"]"#), ("visits", "2"), ("z", "1")];
            let stored = stored.map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(visitor.fields().await, stored);
        })
        .await;
    }
}

mod statuses {
    //! What became of the session that a visitor came with.

    use super::*;

    /// One visitor for each of the ways, and what the next request of each is told.
    async fn all(place: &Place) -> Vec<(&'static str, Visitor, Status)> {
        let alive = async || {
            let visitor = place.visitor();
            visitor.visit(async |session| session.insert("visits", &1)).await;
            visitor
        };
        let (forged, idle) = (place.visitor(), alive().await);
        forged.browser.set_cookie("__Host-id", "forged");
        place.pass(Duration::from_secs(3600));
        let (living, ended, rotated) = (alive().await, alive().await, alive().await);
        let (late, replaced) = (ended.copy(), rotated.copy());
        ended.visit(async |session| session.destroy().await).await;
        rotated.visit(async |session| session.rotate().await).await;
        vec![
            ("came without a cookie", place.visitor(), Status::New),
            ("came with a cookie that is none of ours", forged, Status::New),
            ("has a session", living, Status::Alive),
            ("was idle for an hour", idle, Status::Ended(Reason::Expired)),
            ("logged out", ended, Status::New),
            ("logged out in another tab", late, Status::Ended(Reason::Destroyed)),
            ("was given a new id", rotated, Status::Alive),
            ("has an id that was replaced", replaced, Status::Replaced),
        ]
    }

    #[tokio::test]
    async fn a_visitor_is_told_what_became_of_the_session() {
        on_both_stores(async |place| {
            for (who, visitor, expected) in all(&place).await {
                assert_eq!(visitor.visit(async |session| Ok(session.status())).await, expected, "{who}");
            }
        })
        .await;
    }

    #[tokio::test]
    async fn an_optional_session_is_there_for_the_living_only() {
        on_both_stores(async |place| {
            let app = Router::new()
                .route("/", get(async |session: Option<Session>| session.is_some().to_string()))
                .route(
                    "/typed",
                    get(async |shopper: Option<Session<Shopper>>| shopper.map(|s| s.visits).unwrap_or(0).to_string()),
                )
                .layer(place.layer.clone());
            for (who, visitor, status) in all(&place).await {
                let browser = Browser::new(app.clone());
                browser.jar().clone_from(&visitor.browser.jar());
                let alive = status == Status::Alive;
                assert_eq!(browser.get("/").await.body, alive.to_string(), "{who}");
                assert_eq!(browser.get("/typed").await.body, u64::from(alive).to_string(), "{who}");
            }
        })
        .await;
    }

    #[tokio::test]
    async fn the_status_follows_what_the_request_itself_does() {
        on_both_stores(async |place| {
            let visitor = place.visitor();
            visitor
                .visit(async |session| {
                    assert_eq!(session.status(), Status::New);
                    session.insert("visits", &1)?;
                    assert_eq!(session.status(), Status::New);
                    session.save().await?;
                    assert_eq!(session.status(), Status::Alive);
                    session.rotate().await?;
                    assert_eq!(session.status(), Status::Alive);
                    session.destroy().await?;
                    assert_eq!(session.status(), Status::Ended(Reason::Destroyed));
                    session.insert("visits", &1)?;
                    session.save().await?;
                    assert_eq!(session.status(), Status::Alive);
                    Ok(())
                })
                .await;
            assert_eq!(visitor.visit(async |session| Ok(session.status())).await, Status::Alive);
        })
        .await;
    }

    #[tokio::test]
    async fn only_who_ended_long_ago_or_never_was_gets_a_session_by_an_edit() {
        on_both_stores(async |place| {
            for (who, visitor, status) in all(&place).await {
                let before = visitor.cookie();
                place.events.take();
                let saved = visitor
                    .visit(async |session| {
                        session.insert("visits", &2)?;
                        Ok(session.save().await)
                    })
                    .await;
                let dead = matches!(status, Status::Replaced | Status::Ended(Reason::Destroyed));
                assert_eq!(saved.is_err_and(|error| error.is_gone()), dead, "{who}");
                let created = place.events.take().contains(&Event::Created);
                assert_eq!(created, !dead && status != Status::Alive, "{who}");
                assert_eq!(visitor.cookie() != before, created, "{who}");
            }
        })
        .await;
    }
}
