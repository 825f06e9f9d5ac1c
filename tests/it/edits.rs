//! What the edits of a request come to, alone and beside those of other requests, on both stores.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use redis_session::{Error, Event, Kind, Session, Status, Why};
use redis_session_testkit::Browser;
use serde::{Deserialize, Serialize, Serializer};

use crate::visitor::{Place, Visitor, on_both_stores};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Shopper {
    visits: u64,
    cart: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Settings {
    theme: Option<String>,
    pages: u32,
}

fn texts(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A visitor who has a session with these fields.
async fn visitor_with(place: &Place, fields: &[(&str, i64)]) -> Visitor {
    let visitor = place.visitor();
    visitor
        .visit(async |session| {
            session.save().await?;
            fields.iter().try_for_each(|(name, value)| session.insert(name, value))
        })
        .await;
    place.events.take();
    visitor
}

/// Another request of the same visitor, from begin to end.
async fn meanwhile(visitor: &Visitor, edits: impl FnOnce(&Session) -> Result<(), Error>) {
    visitor.visit(async |session| edits(&session)).await;
}

fn saves(events: &[Event]) -> Vec<u32> {
    let tries = |event: &Event| if let Event::Saved { tries } = event { Some(*tries) } else { None };
    events.iter().filter_map(tries).collect()
}

#[tokio::test]
async fn all_edits_of_a_request_are_one_ordered_list_over_one_working_copy() {
    on_both_stores(async |place| {
        let visitor = visitor_with(&place, &[("visits", 1)]).await;
        visitor
            .visit(async |session| {
                let mut shopper = session.view::<Shopper>()?;
                session.increment("visits", 1)?;
                shopper.update(|shopper| shopper.visits *= 10)?;
                session.increment("visits", 5)?;
                assert_eq!(session.get("visits")?, Some(25));
                // In the same order on what is there: neither sum nor product alone could tell.
                meanwhile(&visitor, |session| session.insert("visits", &3)).await;
                Ok(())
            })
            .await;
        assert_eq!(visitor.fields().await, texts(&[("visits", "45")]));
    })
    .await;
}

#[tokio::test]
async fn two_views_and_a_middleware_edit_one_session_in_one_request_with_one_write() {
    async fn count(request: Request, next: Next) -> Response {
        let session: Session = match Session::from_extensions(request.extensions()).await {
            Ok(session) => session,
            Err(error) => return error.into_response(),
        };
        session.increment("pages", 1).unwrap();
        let response = next.run(request).await;
        session.increment("pages", 1).unwrap();
        response
    }
    async fn handler(mut shopper: Session<Shopper>, mut settings: Session<Settings>) -> Result<String, Error> {
        shopper.update(|shopper| shopper.cart.push("tea".into()))?;
        settings.update(|settings| settings.theme = Some("dark".into()))?;
        shopper.update(|shopper| shopper.visits += 1)?;
        Ok(format!("{} {}", settings.pages, shopper.cart.len()))
    }
    on_both_stores(async |place| {
        let app = Router::new().route("/", get(handler)).layer(from_fn(count)).layer(place.layer.clone());
        let browser = Browser::new(app);
        assert_eq!(browser.get("/").await.body, "1 1");
        assert_eq!(place.events.take(), [Event::Created]);
        assert_eq!(browser.get("/").await.body, "3 2");
        assert_eq!(place.events.take(), [Event::Saved { tries: 1 }]);
        let visitor = place.visitor();
        visitor.browser.jar().clone_from(&browser.jar());
        let expected = [("cart", r#"["tea","tea"]"#), ("pages", "4"), ("theme", r#""dark""#), ("visits", "2")];
        assert_eq!(visitor.fields().await, texts(&expected));
    })
    .await;
}

#[tokio::test]
async fn a_view_shows_what_it_read_and_reads_again_before_its_update() {
    on_both_stores(async |place| {
        let visitor = visitor_with(&place, &[("visits", 1)]).await;
        visitor
            .visit(async |session| {
                let (mut one, mut other) = (session.view::<Shopper>()?, session.view::<Shopper>()?);
                one.update(|shopper| shopper.visits += 1)?;
                assert_eq!((one.visits, other.visits), (2, 1));
                other.update(|shopper| shopper.visits += 1)?;
                assert_eq!((one.visits, other.visits), (2, 3));
                Ok(())
            })
            .await;
        assert_eq!(visitor.fields().await, texts(&[("visits", "3")]));
    })
    .await;
}

#[tokio::test]
async fn an_update_runs_at_once_and_again_on_what_another_request_left() {
    on_both_stores(async |place| {
        let visitor = visitor_with(&place, &[("visits", 1)]).await;
        let runs = Arc::new(AtomicUsize::new(0));
        visitor
            .visit(async |session| {
                let (mut shopper, runs) = (session.view::<Shopper>()?, runs.clone());
                shopper.update_with("tea".to_owned(), move |shopper, item| {
                    runs.fetch_add(1, Ordering::SeqCst);
                    shopper.cart.push(item);
                })?;
                assert_eq!(shopper.cart, ["tea"]);
                meanwhile(&visitor, |session| session.view::<Shopper>()?.update(|s| s.cart.push("milk".into()))).await;
                Ok(())
            })
            .await;
        assert_eq!(runs.load(Ordering::SeqCst), 2);
        assert_eq!(saves(&place.events.take()), [1, 2]);
        assert_eq!(visitor.fields().await, texts(&[("cart", r#"["milk","tea"]"#), ("visits", "1")]));
    })
    .await;
}

#[tokio::test]
async fn an_update_that_changes_nothing_writes_nothing() {
    on_both_stores(async |place| {
        let visitor = visitor_with(&place, &[("visits", 1)]).await;
        visitor
            .visit(async |session| {
                let mut shopper = session.view::<Shopper>()?;
                shopper.update(|_| {})?;
                shopper.update(|shopper| shopper.visits += 1)?;
                shopper.update(|shopper| shopper.visits -= 1)?;
                session.insert("visits", &1)
            })
            .await;
        assert_eq!(place.events.take(), []);
        let stranger = place.visitor();
        stranger.visit(async |session| session.view::<Shopper>()?.update(|shopper| shopper.visits = 0)).await;
        assert_eq!((place.events.take(), stranger.cookie()), (vec![], None));
    })
    .await;
}

#[tokio::test]
async fn a_transaction_answers_the_value_of_the_run_that_counted() {
    on_both_stores(async |place| {
        let visitor = visitor_with(&place, &[("visits", 1)]).await;
        let runs = Arc::new(AtomicUsize::new(0));
        visitor
            .visit(async |session| {
                let (mut shopper, runs) = (session.view::<Shopper>()?, runs.clone());
                meanwhile(&visitor, |session| session.insert("visits", &10)).await;
                let value = shopper
                    .transaction(move |shopper| {
                        runs.fetch_add(1, Ordering::SeqCst);
                        shopper.visits += 1;
                        Ok::<_, Error>(shopper.visits)
                    })
                    .await?;
                assert_eq!((value, shopper.visits), (11, 11));
                // It is there now, while the response is still to come.
                assert_eq!(visitor.fields().await, texts(&[("visits", "11")]));
                shopper.update(|shopper| shopper.visits += 1)
            })
            .await;
        assert_eq!(runs.load(Ordering::SeqCst), 2);
        assert_eq!(visitor.fields().await, texts(&[("visits", "12")]));
    })
    .await;
}

#[tokio::test]
async fn a_transaction_that_fails_aborts_and_keeps_the_edits_made_before() {
    #[derive(Debug, PartialEq)]
    enum Refused {
        SoldOut,
        Session,
    }
    impl From<Error> for Refused {
        fn from(_: Error) -> Self {
            Self::Session
        }
    }
    on_both_stores(async |place| {
        for known in [true, false] {
            let visitor = if known { visitor_with(&place, &[("visits", 1)]).await } else { place.visitor() };
            visitor
                .visit(async |session| {
                    let mut shopper = session.view::<Shopper>()?;
                    shopper.update(|shopper| shopper.cart.push("tea".into()))?;
                    let refused = shopper
                        .transaction(|shopper| {
                            shopper.visits = 100;
                            if shopper.cart.len() == 1 { Err(Refused::SoldOut) } else { Ok(()) }
                        })
                        .await;
                    assert_eq!(refused, Err(Refused::SoldOut));
                    assert_eq!(place.events.take(), []);
                    assert_eq!((shopper.visits, shopper.cart.len()), (u64::from(known), 1));
                    Ok(())
                })
                .await;
            let visits = visitor.visit(async |session| session.get::<u64>("visits")).await;
            assert_eq!(visits, known.then_some(1));
            assert_eq!(visitor.visit(async |session| session.get("cart")).await, Some(vec!["tea".to_owned()]));
            place.events.take();
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_awaited_stands_and_the_edits_after_it_fall_with_an_error() {
    on_both_stores(async |place| {
        let visitor = place.visitor();
        let answer = visitor
            .request(async |request| {
                let session: Session = Session::from_extensions(request.extensions()).await?;
                session.insert("a", &1)?;
                let mut shopper = session.view::<Shopper>()?;
                let count = |shopper: &mut Shopper| {
                    shopper.visits += 1;
                    Ok::<_, Error>(())
                };
                shopper.transaction(count).await?;
                session.insert("b", &2)?;
                Ok::<_, Error>(StatusCode::INTERNAL_SERVER_ERROR)
            })
            .await;
        assert_eq!(answer.page.status, 500);
        assert!(visitor.cookie().is_some());
        assert_eq!(place.events.take(), [Event::Created, Event::Dropped(Why::Failed)]);
        assert_eq!(visitor.fields().await, texts(&[("a", "1"), ("visits", "1")]));
    })
    .await;
}

#[tokio::test]
async fn a_refresh_shows_what_others_saved_and_makes_the_own_edits_again() {
    on_both_stores(async |place| {
        let visitor = visitor_with(&place, &[("visits", 1)]).await;
        visitor
            .visit(async |session| {
                let mut shopper = session.view::<Shopper>()?;
                shopper.update(|shopper| shopper.cart.push("tea".into()))?;
                session.increment("visits", 1)?;
                meanwhile(&visitor, |session| session.insert("visits", &10)).await;
                assert_eq!(session.get("visits")?, Some(2));
                shopper.refresh().await?;
                assert_eq!((shopper.visits, shopper.cart.len()), (11, 1));
                meanwhile(&visitor, |session| session.insert("visits", &20)).await;
                session.refresh().await?;
                assert_eq!(session.get("visits")?, Some(21));
                Ok(())
            })
            .await;
        assert_eq!(visitor.fields().await, texts(&[("cart", r#"["tea"]"#), ("visits", "21")]));
        // What was read last is what was saved on: one try each.
        assert_eq!(saves(&place.events.take()), [1, 1, 1]);
    })
    .await;
}

#[tokio::test]
async fn a_refresh_of_a_session_that_ended_meanwhile_says_so_and_drops_its_edits() {
    on_both_stores(async |place| {
        let visitor = visitor_with(&place, &[("visits", 1)]).await;
        let elsewhere = visitor.copy();
        visitor
            .visit(async |session| {
                session.increment("visits", 1)?;
                elsewhere.visit(async |session| session.destroy().await).await;
                place.events.take();
                session.refresh().await?;
                assert!(matches!(session.status(), Status::Ended(_)), "{:?}", session.status());
                assert_eq!(session.get::<u64>("visits")?, None);
                assert!(place.events.take().contains(&Event::Dropped(Why::Dead)));
                Ok(())
            })
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_refresh_keeps_the_edits_of_a_session_that_is_yet_to_be() {
    on_both_stores(async |place| {
        let mut stores = vec![place.visitor()];
        let gone = visitor_with(&place, &[("visits", 1)]).await;
        place.pass(Duration::from_secs(3600));
        stores.push(gone);
        for visitor in stores {
            visitor
                .visit(async |session| {
                    session.insert("theme", "dark")?;
                    session.refresh().await?;
                    assert_eq!(session.get("theme")?, Some("dark".to_owned()));
                    Ok(())
                })
                .await;
            assert_eq!(visitor.fields().await, texts(&[("theme", r#""dark""#)]));
        }
    })
    .await;
}

#[tokio::test]
async fn edits_that_merge_go_onto_a_moved_session_in_one_step() {
    on_both_stores(async |place| {
        let visitor = visitor_with(&place, &[("a", 1), ("b", 2), ("c", 3)]).await;
        visitor
            .visit(async |session| {
                session.increment("a", 10)?;
                session.insert("b", "mine")?;
                session.remove("c")?;
                session.increment("new", 1)?;
                for _ in 0..3 {
                    meanwhile(&visitor, |session| {
                        session.increment("a", 100)?;
                        session.insert("b", "theirs")?;
                        session.insert("other", &0)?;
                        session.increment("c", 1)
                    })
                    .await;
                }
                place.events.take();
                Ok(())
            })
            .await;
        assert_eq!(place.events.take(), [Event::Saved { tries: 1 }]);
        let expected = [("a", "311"), ("b", r#""mine""#), ("new", "1"), ("other", "0")];
        assert_eq!(visitor.fields().await, texts(&expected));
    })
    .await;
}

#[tokio::test]
async fn one_closure_in_the_list_makes_all_of_it_run_again_on_what_is_there() {
    on_both_stores(async |place| {
        let visitor = visitor_with(&place, &[("a", 1)]).await;
        visitor
            .visit(async |session| {
                session.increment("a", 10)?;
                session.view::<Shopper>()?.update(|shopper| shopper.visits += 1)?;
                meanwhile(&visitor, |session| session.increment("a", 100)).await;
                place.events.take();
                Ok(())
            })
            .await;
        assert_eq!(place.events.take(), [Event::Saved { tries: 2 }]);
        assert_eq!(visitor.fields().await, texts(&[("a", "111"), ("visits", "1")]));
    })
    .await;
}

#[tokio::test]
async fn edits_that_merge_are_made_again_on_a_session_that_moved_far() {
    on_both_stores(async |place| {
        let visitor = visitor_with(&place, &[("a", 1)]).await;
        visitor
            .visit(async |session| {
                session.increment("a", 10)?;
                for _ in 0..5 {
                    meanwhile(&visitor, |session| session.increment("a", 100)).await;
                }
                place.events.take();
                Ok(())
            })
            .await;
        assert_eq!(place.events.take(), [Event::Saved { tries: 2 }]);
        assert_eq!(visitor.fields().await, texts(&[("a", "511")]));
    })
    .await;
}

#[tokio::test]
async fn a_save_is_seen_at_once_and_edits_after_it_follow() {
    on_both_stores(async |place| {
        let visitor = place.visitor();
        visitor
            .visit(async |session| {
                session.insert("a", &1)?;
                session.save().await?;
                assert_eq!(session.status(), Status::Alive);
                session.increment("a", 1)?;
                session.save().await?;
                session.insert("b", &2)
            })
            .await;
        assert_eq!(place.events.take(), [Event::Created, Event::Saved { tries: 1 }, Event::Saved { tries: 1 }]);
        assert_eq!(visitor.fields().await, texts(&[("a", "2"), ("b", "2")]));
        visitor
            .visit(async |session| {
                session.increment("a", 1)?;
                session.save().await?;
                assert_eq!(visitor.fields().await, texts(&[("a", "3"), ("b", "2")]));
                Ok(())
            })
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_clear_takes_all_fields_also_those_that_came_meanwhile_and_the_session_stays() {
    on_both_stores(async |place| {
        let visitor = visitor_with(&place, &[("a", 1), ("b", 2)]).await;
        let cookie = visitor.cookie();
        visitor
            .visit(async |session| {
                let mut shopper = session.view::<Shopper>()?;
                shopper.update(|shopper| shopper.visits = 7)?;
                session.clear()?;
                shopper.refresh().await?;
                assert_eq!((shopper.visits, session.fields()?), (0, vec![]));
                session.insert("c", &3)?;
                meanwhile(&visitor, |session| session.insert("d", &4)).await;
                Ok(())
            })
            .await;
        assert_eq!(visitor.fields().await, texts(&[("c", "3")]));
        visitor
            .visit(async |session| {
                session.clear()?;
                meanwhile(&visitor, |session| session.insert("d", &4)).await;
                Ok(())
            })
            .await;
        assert_eq!(visitor.fields().await, texts(&[]));
        assert_eq!(
            (visitor.visit(async |session| Ok(session.status())).await, visitor.cookie()),
            (Status::Alive, cookie)
        );
    })
    .await;
}

#[tokio::test]
async fn a_rotation_takes_the_edits_along_and_ends_the_old_cookie() {
    on_both_stores(async |place| {
        let visitor = visitor_with(&place, &[("a", 1)]).await;
        let thief = visitor.copy();
        visitor
            .visit(async |session| {
                session.increment("a", 1)?;
                session.rotate().await?;
                session.increment("a", 1)
            })
            .await;
        assert_ne!(visitor.cookie(), thief.cookie());
        assert_eq!(visitor.fields().await, texts(&[("a", "3")]));
        assert_eq!(thief.visit(async |session| Ok(session.status())).await, Status::Replaced);
        assert_eq!(thief.fields().await, texts(&[]));
        let stranger = place.visitor();
        stranger.visit(async |session| session.rotate().await).await;
        assert_eq!(stranger.cookie(), None);
    })
    .await;
}

#[tokio::test]
async fn an_update_after_destroy_begins_a_new_session_from_the_default() {
    on_both_stores(async |place| {
        let visitor = visitor_with(&place, &[("visits", 41)]).await;
        let before = visitor.cookie();
        let ghost = visitor.copy();
        visitor
            .visit(async |session| {
                let mut shopper = session.view::<Shopper>()?;
                shopper.update(|shopper| shopper.visits += 1)?;
                session.destroy().await?;
                shopper.update(|shopper| shopper.cart.push("goodbye".into()))?;
                assert_eq!((shopper.visits, shopper.cart.len()), (0, 1));
                Ok(())
            })
            .await;
        let after = visitor.cookie();
        assert!(after.is_some() && after != before);
        assert_eq!(place.events.take(), [Event::Destroyed, Event::Created]);
        assert_eq!(visitor.fields().await, texts(&[("cart", r#"["goodbye"]"#)]));
        assert_eq!(ghost.fields().await, texts(&[]));
    })
    .await;
}

#[tokio::test]
async fn a_destroy_drops_the_edits_made_before_it_and_takes_the_cookie_away() {
    on_both_stores(async |place| {
        let visitor = visitor_with(&place, &[("a", 1)]).await;
        visitor
            .visit(async |session| {
                session.increment("a", 1)?;
                session.destroy().await
            })
            .await;
        assert_eq!((visitor.cookie(), place.events.take()), (None, vec![Event::Destroyed]));
    })
    .await;
}

#[tokio::test]
async fn a_closure_that_panics_when_run_again_is_an_error_and_nothing_is_saved() {
    on_both_stores(async |place| {
        let visitor = visitor_with(&place, &[("visits", 1)]).await;
        let answer = visitor
            .try_visit(async |session| {
                session.insert("beside", &1)?;
                session.view::<Shopper>()?.update(|shopper| {
                    assert!(shopper.visits < 5, "an invariant of the application's");
                    shopper.visits += 1;
                })?;
                meanwhile(&visitor, |session| session.insert("visits", &9)).await;
                Ok(())
            })
            .await;
        assert_eq!((answer.page.status, answer.page.body.as_str()), (StatusCode::INTERNAL_SERVER_ERROR, ""));
        assert_eq!(answer.error.unwrap().kind(), Kind::Panicked);
        assert_eq!(visitor.fields().await, texts(&[("visits", "9")]));
        meanwhile(&visitor, |session| session.increment("visits", 1)).await;
        assert_eq!(visitor.fields().await, texts(&[("visits", "10")]));
    })
    .await;
}

#[tokio::test]
async fn an_explicit_save_tells_of_a_closure_that_panicked_when_run_again() {
    on_both_stores(async |place| {
        let visitor = visitor_with(&place, &[("visits", 1)]).await;
        let answer = visitor
            .try_visit(async |session| {
                let mut shopper = session.view::<Shopper>()?;
                shopper.update(|shopper| shopper.visits = 20 / (10 - shopper.visits))?;
                meanwhile(&visitor, |session| session.insert("visits", &10)).await;
                let error = session.save().await.unwrap_err();
                assert_eq!(error.kind(), Kind::Panicked);
                Err::<(), _>(error)
            })
            .await;
        assert_eq!(answer.page.status, 500);
        assert_eq!(visitor.fields().await, texts(&[("visits", "10")]));
    })
    .await;
}

#[tokio::test]
async fn an_increment_of_what_is_no_integer_is_an_error_that_names_the_field() {
    on_both_stores(async |place| {
        let visitor = place.visitor();
        visitor
            .visit(async |session| {
                session.insert("price", &1.5)?;
                session.insert("name", "7")?;
                session.insert("most", &i64::MAX)
            })
            .await;
        let before = visitor.fields().await;
        visitor
            .visit(async |session| {
                for name in ["price", "name", "most"] {
                    let error = session.increment(name, 1).unwrap_err();
                    assert!(error.is_field() && error.to_string().contains(&format!("{name:?}")), "{error}");
                }
                Ok(())
            })
            .await;
        assert_eq!(visitor.fields().await, before);
    })
    .await;
}

#[tokio::test]
async fn an_increment_that_became_impossible_meanwhile_fails_the_request_and_writes_nothing() {
    on_both_stores(async |place| {
        for with_closure in [false, true] {
            let visitor = visitor_with(&place, &[("n", 1)]).await;
            let answer = visitor
                .try_visit(async |session| {
                    session.insert("beside", &1)?;
                    session.increment("n", 1)?;
                    if with_closure {
                        session.view::<Shopper>()?.update(|shopper| shopper.visits += 1)?;
                    }
                    meanwhile(&visitor, |session| session.insert("n", &1.5)).await;
                    Ok(())
                })
                .await;
            assert_eq!(answer.page.status, 500);
            let error = answer.error.unwrap();
            assert!(error.is_field() && error.to_string().contains("\"n\""), "{error}");
            assert_eq!(visitor.fields().await, texts(&[("n", "1.5")]));
        }
    })
    .await;
}

thread_local! {
    static WRITTEN: AtomicUsize = const { AtomicUsize::new(0) };
}

/// A list that counts how often it is serialised.
#[derive(Default, Deserialize)]
#[serde(transparent)]
struct Counted(Vec<u32>);

impl Serialize for Counted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        WRITTEN.with(|written| written.fetch_add(1, Ordering::SeqCst));
        self.0.serialize(serializer)
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Tally {
    list: Counted,
    sum: u64,
}

#[tokio::test]
async fn a_thousand_updates_in_a_loop_cost_one_serialisation_each_and_one_write() {
    on_both_stores(async |place| {
        let visitor = visitor_with(&place, &[("sum", 1)]).await;
        let runs = Arc::new(AtomicUsize::new(0));
        visitor
            .visit(async |session| {
                let mut tally = session.view::<Tally>()?;
                let mut of_hundreds = Vec::new();
                for _ in 0..10 {
                    WRITTEN.with(|written| written.store(0, Ordering::SeqCst));
                    for _ in 0..100 {
                        let runs = runs.clone();
                        tally.update(move |tally| {
                            runs.fetch_add(1, Ordering::SeqCst);
                            tally.sum += 1;
                        })?;
                    }
                    of_hundreds.push(WRITTEN.with(|written| written.load(Ordering::SeqCst)));
                }
                // Once more in the first hundred: the value as it was read.
                assert_eq!(of_hundreds, [101, 100, 100, 100, 100, 100, 100, 100, 100, 100]);
                assert_eq!((tally.sum, runs.load(Ordering::SeqCst)), (1001, 1000));
                meanwhile(&visitor, |session| session.insert("sum", &50)).await;
                place.events.take();
                WRITTEN.with(|written| written.store(0, Ordering::SeqCst));
                Ok(())
            })
            .await;
        assert_eq!(place.events.take(), [Event::Saved { tries: 2 }]);
        // Run again one after the other on one value: serialised before the first and after the last, and the default,
        // since a field is not stored.
        assert_eq!((runs.load(Ordering::SeqCst), WRITTEN.with(|w| w.load(Ordering::SeqCst))), (2000, 3));
        assert_eq!(visitor.fields().await, texts(&[("sum", "1050")]));
    })
    .await;
}

#[tokio::test]
async fn a_closure_that_uses_a_session_is_told_so_and_waits_for_nobody() {
    on_both_stores(async |place| {
        let visitor = visitor_with(&place, &[("visits", 1)]).await;
        visitor
            .visit(async |session| {
                let mut shopper = session.view::<Shopper>()?;
                let inside = session.clone();
                shopper.update(move |shopper| {
                    let errors = [
                        inside.get::<u64>("visits").unwrap_err(),
                        inside.fields().unwrap_err(),
                        inside.insert("a", &1).unwrap_err(),
                        inside.increment("a", 1).unwrap_err(),
                        inside.view::<Shopper>().map(drop).unwrap_err(),
                    ];
                    for error in errors {
                        assert!(error.is_field() && error.to_string().contains("its argument only"), "{error}");
                    }
                    assert_eq!(inside.status(), Status::Alive);
                    assert!(inside.expires_at().is_some());
                    shopper.visits += 1;
                })?;
                // Also when it is run again.
                meanwhile(&visitor, |session| session.increment("visits", 10)).await;
                Ok(())
            })
            .await;
        assert_eq!(visitor.fields().await, texts(&[("visits", "12")]));
    })
    .await;
}

#[tokio::test]
async fn a_closure_that_uses_another_session_is_told_so_too() {
    // Two closures that use each other's sessions would wait for each other, and one within the other for itself.
    let (shop, office) = (Session::detached(Shopper::default()).await, Session::detached(Settings::default()).await);
    let (shop, office) = (shop.unwrap(), office.unwrap());
    let mut shopper = shop.view::<Shopper>().unwrap();
    let closure = move |shopper: &mut Shopper| {
        let shop = shop.clone();
        let nested = office.view::<Settings>().and_then(|mut settings| {
            settings.update(move |settings| settings.pages = shop.get("visits").unwrap().unwrap_or_default())
        });
        let error = nested.unwrap_err();
        assert!(error.is_field() && error.to_string().contains("its argument only"), "{error}");
        shopper.visits += 1;
    };
    shopper.update(closure).unwrap();
    assert_eq!(shopper.visits, 1);
}

#[tokio::test]
async fn after_the_response_edits_are_errors_and_what_is_awaited_works_without_a_cookie() {
    on_both_stores(async |place| {
        let visitor = visitor_with(&place, &[("visits", 1)]).await;
        let kept = visitor.visit(async |session| Ok(session)).await;
        let mut shopper = kept.view::<Shopper>().unwrap();
        let refused = [
            kept.insert("a", &1).unwrap_err(),
            kept.remove("a").unwrap_err(),
            kept.increment("a", 1).unwrap_err(),
            kept.clear().unwrap_err(),
            kept.expire_after(Duration::from_secs(60)).unwrap_err(),
            kept.rotate().await.unwrap_err(),
            kept.remember(None).await.unwrap_err(),
            shopper.update(|shopper| shopper.visits += 1).unwrap_err(),
        ];
        for error in refused {
            assert!(error.is_committed(), "{error}");
        }
        meanwhile(&visitor, |session| session.insert("visits", &5)).await;
        assert_eq!(kept.get("visits").unwrap(), Some(1));
        kept.refresh().await.unwrap();
        assert_eq!(kept.get("visits").unwrap(), Some(5));
        let count = |shopper: &mut Shopper| {
            shopper.visits += 1;
            Ok::<_, Error>(())
        };
        shopper.transaction(count).await.unwrap();
        kept.save().await.unwrap();
        assert_eq!(visitor.fields().await, texts(&[("visits", "6")]));
        kept.destroy().await.unwrap();
        assert_eq!(visitor.fields().await, texts(&[]));
    })
    .await;
}

#[tokio::test]
async fn after_the_response_no_session_can_begin() {
    on_both_stores(async |place| {
        let kept = place.visitor().visit(async |session| Ok(session)).await;
        assert!(kept.save().await.unwrap_err().is_committed());
        let mut map = kept.view::<BTreeMap<String, u64>>().unwrap();
        let begun = map.transaction(|map| Ok::<_, Error>(map.insert("a".into(), 1))).await;
        assert!(begun.unwrap_err().is_committed());
        assert_eq!(place.events.take(), []);
    })
    .await;
}
