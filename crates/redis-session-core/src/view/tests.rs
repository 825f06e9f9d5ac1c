//! What a view reads, writes and leaves alone, with types as applications have them and change them.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::*;
use crate::{Change, Edit};

fn fields(json: Value) -> Fields {
    let Value::Object(map) = json else { panic!("an object") };
    let text = |value: Value| if value == json!("<absent>") { Bytes::new() } else { value.to_string().into() };
    Fields::from_pairs(map.into_iter().map(|(name, value)| (name.into(), text(value))).collect())
}

fn check<T: State>(stored: Value, update: fn(&mut T), expected: Value) {
    let mut working = Working::new(fields(stored));
    let mut view = View::<T>::open(&mut working).unwrap();
    view.update(&mut working, update).unwrap();
    assert_eq!(
        working.fields(),
        &fields(expected.clone()),
        "{working_fields:?} {expected}",
        working_fields = texts(working.fields())
    );
    // The same again from the edit that was kept, and what was written can be read.
    working.rebase(working.fields().clone()).unwrap();
    View::<T>::open(&mut working).unwrap();
}

fn texts(fields: &Fields) -> Vec<String> {
    fields.iter().map(|(n, v)| format!("{}={}", String::from_utf8_lossy(n), String::from_utf8_lossy(v))).collect()
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Visitor {
    visits: u64,
    cart: Vec<String>,
    name: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Settings {
    theme: Option<String>,
    page: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { theme: Some("dark".into()), page: 20 }
    }
}

#[derive(Serialize, Deserialize)]
struct Sparse {
    #[serde(skip_serializing_if = "Option::is_none")]
    theme: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    tags: Vec<String>,
    #[serde(skip)]
    cache: u32,
}

impl Default for Sparse {
    fn default() -> Self {
        Self { theme: Some("dark".into()), tags: vec!["new".into()], cache: 7 }
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Renamed {
    #[serde(alias = "visits", alias = "hits")]
    visit_count: u64,
    #[serde(rename = "user-name", alias = "name")]
    user_name: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
struct RenamedSparse {
    #[serde(alias = "name", skip_serializing_if = "Option::is_none")]
    user_name: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Strict {
    visits: u64,
}

#[derive(Default, Serialize, Deserialize)]
struct Address {
    street: String,
}

#[derive(Default, Serialize, Deserialize)]
struct Flattened {
    visits: u64,
    #[serde(flatten)]
    address: Address,
}

#[derive(Default, Serialize, Deserialize)]
struct CatchAll {
    visits: u64,
    #[serde(flatten)]
    rest: HashMap<String, Value>,
}

#[derive(Default, Serialize, Deserialize)]
struct Wrapper(Visitor);

#[test]
fn an_update_writes_what_it_changed_and_nothing_else() {
    check::<Visitor>(json!({}), |_| {}, json!({}));
    check::<Visitor>(json!({}), |v| v.visits = 0, json!({}));
    check::<Visitor>(json!({}), |v| v.visits += 1, json!({"visits": 1}));
    check::<Visitor>(
        json!({"visits": 1, "other": [1]}),
        |v| v.cart.push("é".into()),
        json!({"visits": 1, "other": [1], "cart": ["é"]}),
    );
    check::<Visitor>(json!({"name": "x"}), |v| v.name = None, json!({"name": null}));
    check::<Wrapper>(json!({"visits": 1}), |w| w.0.visits = 2, json!({"visits": 2}));
}

#[test]
fn a_different_formatting_is_no_change() {
    let mut stored = Fields::default();
    stored.set("cart".into(), Bytes::from_static(b"[ \"a\" , \"b\" ]"));
    let mut working = Working::new(stored.clone());
    View::<Visitor>::open(&mut working).unwrap().update(&mut working, |v| v.visits = 0).unwrap();
    assert_eq!(working.fields(), &stored);
}

#[test]
fn a_default_that_is_not_empty_is_not_stored_and_not_lost() {
    check::<Settings>(json!({}), |s| s.page += 1, json!({"page": 21}));
    check::<Settings>(json!({}), |s| s.theme = None, json!({"theme": null}));
    check::<Settings>(
        json!({"theme": null}),
        |s| {
            assert_eq!(s.theme, None);
            s.page = 1
        },
        json!({"theme": null, "page": 1}),
    );
    check::<Settings>(json!({"page": 1}), |s| assert_eq!(s.theme.as_deref(), Some("dark")), json!({"page": 1}));
}

#[test]
fn what_is_skipped_when_empty_stays_empty() {
    check::<Sparse>(json!({}), |s| s.theme = None, json!({"theme": "<absent>"}));
    check::<Sparse>(json!({}), |s| s.tags.clear(), json!({"tags": "<absent>"}));
    check::<Sparse>(json!({"theme": "<absent>"}), |s| assert_eq!(s.theme, None), json!({"theme": "<absent>"}));
    check::<Sparse>(json!({"tags": "<absent>"}), |s| assert!(s.tags.is_empty()), json!({"tags": "<absent>"}));
    check::<Sparse>(json!({"theme": "<absent>"}), |s| s.theme = Some("light".into()), json!({"theme": "light"}));
    check::<Sparse>(json!({}), |s| s.cache = 9, json!({}));
}

#[test]
fn a_renamed_field_is_read_by_its_old_name_and_written_by_its_new_one() {
    check::<Renamed>(json!({"visits": 4}), |r| r.visit_count += 1, json!({"visits": 4, "visit_count": 5}));
    check::<Renamed>(
        json!({"visits": 4, "visit_count": 5}),
        |r| r.visit_count += 1,
        json!({"visits": 4, "visit_count": 6}),
    );
    check::<Renamed>(
        json!({"hits": 3, "visits": 4, "visit_count": 5}),
        |r| r.visit_count += 1,
        json!({"hits": 3, "visits": 4, "visit_count": 6}),
    );
    check::<Renamed>(json!({"name": "x"}), |r| assert_eq!(r.user_name.as_deref(), Some("x")), json!({"name": "x"}));
    check::<Renamed>(json!({"name": "x"}), |r| r.user_name = None, json!({"name": "x", "user-name": null}));
    check::<RenamedSparse>(
        json!({"name": "x", "user_name": "y"}),
        |r| assert_eq!(r.user_name.as_deref(), Some("y")),
        json!({"name": "x", "user_name": "y"}),
    );
    check::<RenamedSparse>(json!({"name": "x"}), |r| r.user_name = None, json!({"name": "x", "user_name": "<absent>"}));
    check::<RenamedSparse>(
        json!({"name": "x", "user_name": "<absent>"}),
        |r| assert_eq!(r.user_name, None),
        json!({"name": "x", "user_name": "<absent>"}),
    );
}

#[test]
fn a_view_decodes_its_own_fields_only() {
    let mut working = Working::new(fields(json!({"visits": 1, "cart": "not a list", "x": "y"})));
    assert_eq!(View::<Strict>::open(&mut working).unwrap().visits, 1);
    let error = View::<Visitor>::open(&mut working).map(|_| ()).unwrap_err();
    assert!(error.is_field() && error.to_string().contains("\"cart\""), "{error}");
}

#[test]
fn a_flattened_struct_takes_its_own_fields() {
    check::<Flattened>(
        json!({"visits": 1, "other": 2}),
        |f| f.address.street = "A".into(),
        json!({"visits": 1, "other": 2, "street": "A"}),
    );
    assert!(!catches_all::<Flattened>().unwrap());
}

#[test]
fn maps_take_everything_and_stand_alone() {
    type Counts = BTreeMap<String, u64>;
    type ById = BTreeMap<u32, String>;
    check::<Counts>(
        json!({"a": 1, "b": 2}),
        |m| {
            m.remove("a");
            *m.entry("c".into()).or_default() += 3
        },
        json!({"b": 2, "c": 3}),
    );
    check::<ById>(
        json!({"7": "x"}),
        |m| {
            m.insert(8, "y".into());
        },
        json!({"7": "x", "8": "y"}),
    );
    check::<CatchAll>(
        json!({"visits": 1, "x": {"y": 2}}),
        |c| {
            c.rest.remove("x");
        },
        json!({"visits": 1}),
    );
    check::<serde_json::Map<String, Value>>(
        json!({"a": 1}),
        |m| {
            m.insert("b".into(), json!([null]));
        },
        json!({"a": 1, "b": [null]}),
    );
    for (first, second) in [(true, false), (false, true)] {
        let mut views = Views::default();
        let mut add = |catching| if catching { views.add::<Counts>() } else { views.add::<Visitor>() };
        add(first).unwrap();
        add(first).unwrap();
        let error = add(second).unwrap_err();
        assert!(error.to_string().contains("takes every field"), "{error}");
    }
    let mut views = Views::default();
    views.add::<Visitor>().unwrap();
    views.add::<Flattened>().unwrap();
    views.add::<Strict>().unwrap();
}

#[test]
fn what_is_no_struct_or_map_is_refused() {
    #[derive(Default, Serialize, Deserialize)]
    struct Unit;
    #[derive(Default, Serialize, Deserialize)]
    struct Pair(u8, u8);
    #[derive(Default, Serialize, Deserialize)]
    enum Choice {
        #[default]
        A,
    }
    fn refused<T: State>() {
        let error = View::<T>::open(&mut Working::default()).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("no struct or map"), "{error}");
    }
    refused::<Unit>();
    refused::<Pair>();
    refused::<Choice>();
    refused::<u64>();
    refused::<Vec<u8>>();
    refused::<Option<Visitor>>();
    refused::<()>();
}

#[test]
fn what_cannot_be_read_back_is_not_kept() {
    #[derive(Default, Serialize, Deserialize)]
    struct Scores {
        best: f64,
        by_pair: BTreeMap<(u8, u8), u8>,
    }
    let mut working = Working::new(fields(json!({"best": 1.5})));
    let mut view = View::<Scores>::open(&mut working).unwrap();
    assert!(view.update(&mut working, |s| s.best = f64::NAN).unwrap_err().is_field());
    assert_eq!(view.best, 1.5);
    assert!(
        view.update(&mut working, |s| {
            s.by_pair.insert((1, 2), 3);
        })
        .unwrap_err()
        .is_field()
    );
    assert!(view.by_pair.is_empty() && !working.is_edited());
    view.update(&mut working, |s| s.best = 2.0).unwrap();
    assert_eq!(working.fields(), &fields(json!({"best": 2.0})));
}

#[test]
fn a_reserved_name_is_refused() {
    #[derive(Default, Serialize, Deserialize)]
    struct Sly {
        #[serde(rename = "@")]
        meta: u8,
    }
    let mut working = Working::default();
    let error = View::<Sly>::open(&mut working).unwrap().update(&mut working, |s| s.meta = 1).unwrap_err();
    assert!(error.to_string().contains("reserved"), "{error}");
    assert!(working.edit(Edit::Set("@ended".into(), "1".into())).is_err());
}

#[test]
fn a_value_that_is_too_deep_to_be_read_again_is_refused_and_changes_nothing() {
    #[derive(Default, Serialize, Deserialize)]
    #[serde(default)]
    struct Tree {
        tree: Value,
    }
    let deep = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    let mut working = Working::new(fields(json!({"tree": 1})));
    let mut view = View::<Tree>::open(&mut working).unwrap();
    let refused = [
        working.insert("tree", &deep(128)).unwrap_err(),
        view.update(&mut working, move |tree| tree.tree = deep(128)).unwrap_err(),
    ];
    for error in refused {
        assert!(error.is_field() && error.to_string().contains("field \"tree\" is nested deeper"), "{error}");
    }
    assert!(!working.is_edited() && view.tree == json!(1));
    view.update(&mut working, move |tree| tree.tree = deep(127)).unwrap();
    assert_eq!(working.get::<Value>("tree").unwrap(), Some(deep(127)));
}

#[test]
fn two_views_and_plain_edits_share_one_working_copy() {
    let mut working = Working::new(fields(json!({"visits": 1})));
    let mut visitor = View::<Visitor>::open(&mut working).unwrap();
    let mut renamed = View::<Renamed>::open(&mut working).unwrap();
    visitor.update(&mut working, |v| v.visits += 1).unwrap();
    renamed.update(&mut working, |r| r.visit_count += 10).unwrap();
    assert_eq!(renamed.visit_count, 12);
    working.edit(Edit::Increment("visits".into(), 5)).unwrap();
    visitor.update(&mut working, |v| v.cart.push("x".into())).unwrap();
    assert_eq!((visitor.visits, visitor.cart.len()), (7, 1));
    // All of it again on what another request left.
    working.rebase(fields(json!({"visits": 100, "cart": ["y"]}))).unwrap();
    assert_eq!(working.fields(), &fields(json!({"visits": 106, "visit_count": 111, "cart": ["y", "x"]})));
}

#[test]
fn edits_that_merge_come_to_one_change_a_field() {
    let mut working = Working::new(fields(json!({"a": 1, "b": 2, "c": 3})));
    for edit in [
        Edit::Increment("a".into(), 2),
        Edit::Increment("a".into(), 3),
        Edit::Set("b".into(), "10".into()),
        Edit::Increment("b".into(), 1),
        Edit::Remove("c".into()),
        Edit::Increment("c".into(), 7),
    ] {
        working.edit(edit).unwrap();
    }
    let staged = working.stage();
    assert!(staged.merges);
    assert_eq!(
        staged.changes.fields,
        [
            ("a".into(), Change::Increment(5)),
            ("b".into(), Change::Set("11".into())),
            ("c".into(), Change::Set("7".into())),
        ]
    );
    working.edit(Edit::Clear).unwrap();
    working.edit(Edit::Increment("d".into(), 1)).unwrap();
    let staged = working.stage();
    assert!(staged.merges && staged.changes.clear);
    assert_eq!(staged.changes.fields, [("d".into(), Change::Set("1".into()))]);
}

#[test]
fn an_increment_of_what_is_no_integer_is_refused() {
    for stored in ["1.5", "\"1\"", "01", "+1", "null", "[]", "9223372036854775808"] {
        let mut start = Fields::default();
        start.set("n".into(), Bytes::copy_from_slice(stored.as_bytes()));
        let mut working = Working::new(start.clone());
        let error = working.edit(Edit::Increment("n".into(), 1)).unwrap_err();
        assert!(error.is_field() && error.to_string().contains("\"n\""), "{stored}: {error}");
        assert_eq!(working.fields(), &start);
    }
    let mut working = Working::new(fields(json!({"n": i64::MAX})));
    assert!(working.edit(Edit::Increment("n".into(), 1)).is_err());
}

#[test]
fn edits_that_lead_back_change_nothing() {
    let mut working = Working::new(fields(json!({"visits": 1})));
    let mut view = View::<Visitor>::open(&mut working).unwrap();
    view.update(&mut working, |v| v.visits += 1).unwrap();
    view.update(&mut working, |v| v.visits -= 1).unwrap();
    assert!(working.stage().changes.is_empty());
}

#[test]
fn a_thousand_updates_are_one_edit_and_run_again_as_a_thousand() {
    let mut working = Working::default();
    let mut view = View::<Visitor>::open(&mut working).unwrap();
    for _ in 0..1000 {
        view.update(&mut working, |v| v.visits += 1).unwrap();
    }
    working.rebase(fields(json!({"visits": 5}))).unwrap();
    assert_eq!(working.fields(), &fields(json!({"visits": 1005})));
}

#[test]
fn a_closure_that_panics_when_run_again_is_an_error_and_keeps_the_edits() {
    let mut working = Working::default();
    let mut view = View::<Visitor>::open(&mut working).unwrap();
    view.update(&mut working, |v| {
        assert!(v.visits < 5, "only then");
        v.visits += 1;
    })
    .unwrap();
    let error = working.rebase(fields(json!({"visits": 9}))).unwrap_err();
    assert_eq!(error.kind(), Kind::Panicked);
    assert!(working.is_edited());
    assert_eq!(working.fields(), &fields(json!({"visits": 1})));
}

#[test]
fn edits_made_while_others_are_on_their_way_stay() {
    let mut working = Working::default();
    let mut view = View::<Visitor>::open(&mut working).unwrap();
    view.update(&mut working, |v| v.visits += 1).unwrap();
    let staged = working.stage();
    view.update(&mut working, |v| v.visits += 1).unwrap();
    working.edit(Edit::Increment("x".into(), 1)).unwrap();
    working.saved(staged).unwrap();
    assert_eq!(working.fields(), &fields(json!({"visits": 2, "x": 1})));
    let staged = working.stage();
    assert_eq!(staged.changes.fields.len(), 2);
    working.saved(staged).unwrap();
    assert!(!working.is_edited());
}

#[test]
fn an_attempt_that_aborts_leaves_nothing() {
    let mut working = Working::new(fields(json!({"visits": 1})));
    let mut view = View::<Visitor>::open(&mut working).unwrap();
    let aborted = view.attempt(&mut working, |v| -> Result<(), Error> {
        v.visits = 9;
        Err(Error::new(Kind::Gone, "no"))
    });
    assert!(aborted.is_err() && !working.is_edited());
    view.refresh(&working).unwrap();
    assert_eq!(view.visits, 1);
    let (value, staged) = view
        .attempt(&mut working, |v| {
            v.visits += 1;
            Ok::<_, Error>(v.visits)
        })
        .unwrap();
    assert_eq!(value, 2);
    working.saved(staged).unwrap();
    assert_eq!(working.fields(), &fields(json!({"visits": 2})));
}

#[test]
fn errors_hold_no_values() {
    let mut working = Working::new(fields(json!({"visits": "canary-in-a-value"})));
    let error = View::<Visitor>::open(&mut working).map(|_| ()).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("canary"));
}

thread_local! {
    static READ: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// A number that counts how often one is read.
#[derive(Clone, Default, Serialize)]
struct Counted(u32);

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        READ.set(READ.get() + 1);
        u32::deserialize(deserializer).map(Self)
    }
}

#[test]
fn taking_many_entries_out_of_a_map_reads_the_map_a_few_times_and_not_once_for_each() {
    type Counts = BTreeMap<String, Counted>;
    const ENTRIES: usize = 1000;
    let mut working = Working::default();
    let mut view = View::<Counts>::open(&mut working).unwrap();
    view.update(&mut working, |map| *map = (0..ENTRIES).map(|n| (n.to_string(), Counted(7))).collect()).unwrap();
    READ.set(0);
    view.update(&mut working, |map| map.retain(|name, _| name.len() > 2)).unwrap();
    assert_eq!((view.len(), working.fields().len()), (ENTRIES - 100, ENTRIES - 100));
    assert!(READ.get() <= 2 * ENTRIES, "{}", READ.get());
}

#[test]
fn a_map_whose_order_differs_from_time_to_time_is_written_where_it_changed_only() {
    let stored: HashMap<String, u32> = (0..500).map(|n| (n.to_string(), n)).collect();
    let mut working = Working::new(fields(json!(stored)));
    let mut view = View::<HashMap<String, u32>>::open(&mut working).unwrap();
    view.update(&mut working, |map| {
        // As many more as make it arrange its entries anew, and away again.
        map.extend((1000..5000).map(|n| (n.to_string(), n)));
        map.retain(|_, n| *n < 1000);
        map.shrink_to_fit();
        map.insert("7".into(), 8);
    })
    .unwrap();
    assert_eq!(working.stage().changes.fields, [("7".into(), Change::Set("8".into()))]);
}
