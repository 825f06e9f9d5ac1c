//! Their `Session` on our layer: each of its methods, our guarantees underneath, both views in one request, bad input.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use redis_session::{Error, Event, Expiry, Session as Ours, Status};
use redis_session_interop::tower_sessions::TowerSessionsLayer;
use redis_session_testkit::{Browser, Page};
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tower_sessions::Session;
use tower_sessions::session::Error as TheirError;

use crate::place::{COOKIE, Place, on_both_stores, with_a_clock};

const WEEK: time::Duration = time::Duration::WEEK;

/// Handlers by name, under their layer and ours.
fn app(place: &Place, routes: &[(&str, MethodRouter)]) -> Browser<Router> {
    app_under(place, TowerSessionsLayer::new(), routes)
}

fn app_under(place: &Place, layer: TowerSessionsLayer, routes: &[(&str, MethodRouter)]) -> Browser<Router> {
    let all = [("/add/{key}", get(add)), ("/all", get(all)), ("/id", get(id))];
    let routes = all.iter().chain(routes);
    let router = routes.fold(Router::new(), |router, (path, route)| router.route(path, route.clone()));
    Browser::new(router.layer(layer).layer(place.layer.clone()))
}

async fn add(session: Session, Path(key): Path<String>) {
    session.insert(&key, true).await.unwrap();
}

/// All fields as ours has them.
async fn all(ours: Ours) -> String {
    let names = ours.fields().unwrap().into_iter().map(|(name, text)| format!("{name}={text}"));
    names.collect::<Vec<_>>().join(" ")
}

async fn id(session: Session) -> String {
    session.get_value("a").await.unwrap();
    session.id().map(|id| id.to_string()).unwrap_or_default()
}

/// A handler of their session that must succeed.
fn run<F, Fut>(handler: F) -> MethodRouter
where
    F: Fn(Session) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<(), TheirError>> + Send,
{
    get(async move |session: Session| handler(session).await.unwrap())
}

async fn ok(browser: &Browser<Router>, path: &str) -> Page {
    let page = browser.get(path).await;
    assert_eq!(page.status, 200, "{path}");
    page
}

async fn shows(browser: &Browser<Router>, fields: &str) {
    assert_eq!(ok(browser, "/all").await.body, fields);
}

#[tokio::test]
async fn every_method_does_what_it_does_there() {
    on_both_stores(async |place| {
        let browser = app(
            &place,
            &[
                (
                    "/new",
                    run(async |session| {
                        assert!(session.is_empty().await && session.id().is_none());
                        assert_eq!(session.get::<u8>("n").await?, None);
                        session.insert("n", 1).await?;
                        assert_eq!(session.insert_value("n", json!(2)).await?, Some(json!(1)));
                        session.insert("s", "text").await?;
                        assert!(!session.is_empty().await && session.is_modified());
                        Ok(())
                    }),
                ),
                (
                    "/known",
                    run(async |session| {
                        assert!(session.id().is_some() && !session.is_empty().await && !session.is_modified());
                        assert_eq!(session.get::<u8>("n").await?, Some(2));
                        assert_eq!(session.get_value("s").await?, Some(json!("text")));
                        assert!(session.get::<u8>("s").await.is_err(), "not a number");
                        assert_eq!(session.remove::<u8>("n").await?, Some(2));
                        assert_eq!(session.remove_value("n").await?, None);
                        Ok(())
                    }),
                ),
                (
                    "/save",
                    run(async |session| {
                        session.insert("draft", 1).await?;
                        session.save().await?;
                        session.insert("draft", 2).await?;
                        session.load().await?;
                        assert_eq!(session.get::<u8>("draft").await?, Some(1), "as it was saved");
                        session.remove::<u8>("draft").await?;
                        session.save().await
                    }),
                ),
                (
                    "/clear",
                    run(async |session| {
                        session.clear().await;
                        Ok(())
                    }),
                ),
                (
                    "/flush",
                    run(async |session| {
                        session.flush().await?;
                        assert!(session.is_empty().await && session.id().is_none());
                        Ok(())
                    }),
                ),
                (
                    "/goodbye",
                    run(async |session| {
                        session.flush().await?;
                        session.insert("said", "goodbye").await
                    }),
                ),
                ("/delete", run(async |session| session.delete().await)),
                (
                    "/delete-and-edit",
                    run(async |session| {
                        session.insert("late", 1).await?;
                        session.delete().await?;
                        session.save().await
                    }),
                ),
            ],
        );
        ok(&browser, "/new").await;
        shows(&browser, "n=2 s=\"text\"").await;
        ok(&browser, "/known").await;
        shows(&browser, "s=\"text\"").await;
        ok(&browser, "/save").await;
        shows(&browser, "s=\"text\"").await;
        ok(&browser, "/clear").await;
        shows(&browser, "").await;
        assert!(browser.cookie(COOKIE).is_some(), "the session stays");

        for path in ["/flush", "/delete", "/delete-and-edit"] {
            ok(&browser, "/add/a").await;
            let copy = browser.copy();
            place.events.take();
            ok(&browser, path).await;
            assert!(place.events.take().contains(&Event::Destroyed), "{path}");
            assert_eq!(browser.cookie(COOKIE), None, "{path}");
            shows(&copy, "").await;
            shows(&browser, "").await;
        }
        ok(&browser, "/add/a").await;
        let before = browser.cookie(COOKIE);
        ok(&browser, "/goodbye").await;
        assert!(browser.cookie(COOKIE).is_some() && browser.cookie(COOKIE) != before);
        shows(&browser, "said=\"goodbye\"").await;
    })
    .await;
}

#[tokio::test]
async fn a_new_id_takes_the_session_along_in_one_step_and_ends_the_old_one() {
    on_both_stores(async |place| {
        let cycle = run(async |session| {
            session.insert("b", true).await?;
            session.cycle_id().await
        });
        let cycle_and_fail = get(async |session: Session| {
            session.cycle_id().await.unwrap();
            session.insert("lost", true).await.unwrap();
            StatusCode::INTERNAL_SERVER_ERROR
        });
        let browser = app(&place, &[("/cycle", cycle), ("/cycle-and-fail", cycle_and_fail)]);
        ok(&browser, "/cycle").await;
        shows(&browser, "b=true").await;
        ok(&browser, "/add/a").await;
        let (old, id) = (browser.copy(), ok(&browser, "/id").await.body);
        place.events.take();
        ok(&browser, "/cycle").await;
        assert!(place.events.take().contains(&Event::Rotated));
        assert_ne!(browser.cookie(COOKIE), old.cookie(COOKIE));
        assert_eq!(old.get("/all").await.body, "", "the old id is worth nothing");
        shows(&browser, "a=true b=true").await;
        assert_eq!(ok(&browser, "/id").await.body, id, "the same session");

        let old = browser.copy();
        assert_eq!(browser.get("/cycle-and-fail").await.status, 500);
        shows(&browser, "a=true b=true").await;
        assert_eq!(old.get("/all").await.body, "");
    })
    .await;
}

#[tokio::test]
async fn a_login_and_a_logout_in_one_request_leave_no_session() {
    on_both_stores(async |place| {
        let both = run(async |session| {
            session.cycle_id().await?;
            session.insert("axum-login.data", json!({"user_id": 7, "auth_hash": [1]})).await?;
            session.flush().await
        });
        let browser = app_under(&place, TowerSessionsLayer::new().axum_login(), &[("/both", both)]);
        ok(&browser, "/add/a").await;
        let copy = browser.copy();
        ok(&browser, "/both").await;
        assert_eq!(browser.cookie(COOKIE), None);
        shows(&copy, "").await;
    })
    .await;
}

#[tokio::test]
async fn an_id_is_a_name_and_no_cookie() {
    on_both_stores(async |place| {
        let browser = app(&place, &[]);
        assert_eq!(ok(&browser, "/id").await.body, "");
        ok(&browser, "/add/a").await;
        let id = ok(&browser, "/id").await.body;
        assert!(id.len() == 22 && ok(&browser, "/id").await.body == id);
        let cookie = browser.cookie(COOKIE).unwrap();
        assert!(!cookie.contains(&id));
        for forged in [id.clone(), cookie.replacen(&cookie[..22], &id, 1)] {
            let thief = browser.stranger();
            thief.set_cookie(COOKIE, &forged);
            shows(&thief, "").await;
            assert_eq!(ok(&thief, "/id").await.body, "");
        }
        if let Some(redis) = &place.redis {
            let key = redis.run(&["KEYS", "sess:*"]).texts().remove(0);
            assert!(!key.contains(&id), "nor the name of its record");
        }
        let stranger = browser.stranger();
        ok(&stranger, "/add/a").await;
        assert_ne!(ok(&stranger, "/id").await.body, id);
    })
    .await;
}

#[tokio::test]
async fn two_hundred_parallel_edits_of_different_keys_are_all_kept() {
    on_both_stores(async |place| {
        let together = Arc::new(Barrier::new(200));
        let edit = get(async move |session: Session, Path(n): Path<u32>| {
            assert_eq!(session.get_value("first").await.unwrap(), Some(json!(true)));
            together.wait().await;
            session.insert(&format!("key{n}"), n).await.unwrap();
        });
        let browser = app(&place, &[("/edit/{n}", edit)]);
        ok(&browser, "/add/first").await;
        let edits = (0..200).map(|n| {
            let browser = browser.clone();
            async move { browser.get(&format!("/edit/{n}")).await.status }
        });
        let statuses = futures_util::future::join_all(edits).await;
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 200);
        let mut kept: Vec<_> = (0..200).map(|n| format!("key{n}={n}")).chain(["first=true".to_owned()]).collect();
        kept.sort_unstable_by(|a, b| a.split('=').next().cmp(&b.split('=').next()));
        shows(&browser, &kept.join(" ")).await;
    })
    .await;
}

#[tokio::test]
async fn of_two_hundred_parallel_edits_of_one_key_the_last_save_counts_and_other_keys_stay() {
    on_both_stores(async |place| {
        let together = Arc::new(Barrier::new(200));
        let edit = get(async move |session: Session, Path(n): Path<u32>| {
            let seen: Vec<u32> = session.get("numbers").await.unwrap().unwrap_or_default();
            together.wait().await;
            session.insert("numbers", [seen, vec![n]].concat()).await.unwrap();
        });
        let browser = app(&place, &[("/edit/{n}", edit)]);
        ok(&browser, "/add/first").await;
        let edits = (0..200).map(|n| {
            let browser = browser.clone();
            async move { browser.get(&format!("/edit/{n}")).await.status }
        });
        let statuses = futures_util::future::join_all(edits).await;
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 200);
        // All had read the key before any was saved: one of them is there, whole.
        let fields = ok(&browser, "/all").await.body;
        let number: u32 =
            fields.strip_prefix("first=true numbers=[").unwrap().strip_suffix(']').unwrap().parse().unwrap();
        assert!(number < 200);
    })
    .await;
}

#[tokio::test]
async fn what_a_request_did_not_change_it_does_not_write_back() {
    on_both_stores(async |place| {
        let meanwhile = Arc::new(Barrier::new(2));
        let slow = {
            let meanwhile = meanwhile.clone();
            get(async move |session: Session| {
                session.get_value("a").await.unwrap();
                meanwhile.wait().await;
                meanwhile.wait().await;
                session.insert("b", true).await.unwrap();
            })
        };
        let remove = run(async |session| session.remove_value("a").await.map(drop));
        let browser = app(&place, &[("/slow", slow), ("/remove", remove)]);
        ok(&browser, "/add/a").await;
        let other = browser.clone();
        let (page, ()) = tokio::join!(browser.get("/slow"), async {
            meanwhile.wait().await;
            ok(&other, "/remove").await;
            ok(&other, "/add/c").await;
            meanwhile.wait().await;
        });
        assert_eq!(page.status, 200);
        shows(&browser, "b=true c=true").await;
    })
    .await;
}

#[tokio::test]
async fn nothing_comes_back_after_the_end_and_nobody_sees_an_error() {
    on_both_stores(async |place| {
        let meanwhile = Arc::new(Barrier::new(2));
        let slow = {
            let meanwhile = meanwhile.clone();
            get(async move |session: Session, Path(save): Path<bool>| {
                session.get_value("a").await.unwrap();
                meanwhile.wait().await;
                meanwhile.wait().await;
                session.insert("b", true).await.unwrap();
                if save {
                    session.save().await.unwrap();
                    session.cycle_id().await.unwrap();
                }
            })
        };
        let browser = app(&place, &[("/slow/{save}", slow), ("/flush", run(async |session| session.flush().await))]);
        for save in [false, true] {
            ok(&browser, "/add/a").await;
            let (copy, other) = (browser.copy(), browser.clone());
            let (page, ()) = tokio::join!(copy.get(if save { "/slow/true" } else { "/slow/false" }), async {
                meanwhile.wait().await;
                ok(&other, "/flush").await;
                meanwhile.wait().await;
            });
            assert_eq!((page.status.as_u16(), page.set_cookies().len()), (200, 0), "save: {save}");
            shows(&copy, "").await;
            assert!(place.events.take().iter().any(|event| matches!(event, Event::Dropped(_))), "save: {save}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_that_does_not_ask_sends_no_command_and_who_looks_varies_by_cookie() {
    let place = Place::on_redis().await;
    let look = run(async |session| session.get_value("a").await.map(drop));
    let browser = app(&place, &[("/static", get(async |_: Session| "hello")), ("/look", look)]);
    // Both scripts are known to Redis from then on.
    ok(&browser, "/add/first").await;
    ok(&browser, "/add/a").await;
    let redis = place.redis.as_ref().unwrap();
    let commands = || redis.command_count("hgetall") + redis.command_count("evalsha") + redis.command_count("eval");
    let before = commands();
    assert!(ok(&browser, "/static").await.header("vary").is_none());
    ok(&browser.stranger(), "/look").await;
    assert_eq!(commands(), before);
    for visitor in [browser.clone(), browser.stranger()] {
        let page = ok(&visitor, "/look").await;
        assert_eq!((page.header("vary").as_deref(), page.set_cookies().len()), (Some("cookie"), 0));
    }
    assert_eq!(commands(), before + 1, "one read, by who has a session");
    ok(&browser, "/add/b").await;
    assert_eq!(commands(), before + 3, "one read and one write");
}

#[tokio::test]
async fn both_views_of_one_request_see_each_other_from_where_the_docs_say() {
    on_both_stores(async |place| {
        let before = get(async |ours: Ours, theirs: Session| {
            ours.insert("ours", &1).unwrap();
            assert_eq!(theirs.get::<u8>("ours").await.unwrap(), Some(1), "before it was first asked for");
            ours.insert("ours", &2).unwrap();
            theirs.insert("theirs", 3).await.unwrap();
            assert_eq!(theirs.get::<u8>("ours").await.unwrap(), Some(1), "their record is private");
            assert_eq!(ours.get::<u8>("theirs").unwrap(), Some(1));
            theirs.save().await.unwrap();
            assert_eq!(ours.get::<u8>("theirs").unwrap(), Some(3));
            theirs.load().await.unwrap();
            assert_eq!(theirs.get::<u8>("ours").await.unwrap(), Some(2), "and was not undone");
            ours.insert("late", &true).unwrap();
            theirs.insert("theirs", 2).await.unwrap();
        });
        let new = get(async |ours: Ours, theirs: Session| {
            ours.insert("ours", &1).unwrap();
            theirs.insert("theirs", 1).await.unwrap();
            assert_eq!(theirs.get::<u8>("ours").await.unwrap(), None, "there was nothing to be read");
            theirs.save().await.unwrap();
            assert_eq!(theirs.get::<u8>("ours").await.unwrap(), Some(1));
            assert!(ours.status() == Status::Alive && theirs.id().is_some());
        });
        let browser = app(&place, &[("/before", before), ("/new", new)]);
        ok(&browser, "/new").await;
        shows(&browser, "ours=1 theirs=1").await;
        ok(&browser, "/before").await;
        shows(&browser, "late=true ours=2 theirs=2").await;
    })
    .await;
}

#[tokio::test]
async fn an_expiry_of_its_own_is_heeded_within_the_bounds_of_the_layer() {
    use tower_sessions::Expiry::{AtDateTime, OnInactivity, OnSessionEnd};

    let expire = |expiry: fn() -> tower_sessions::Expiry| {
        get(async move |session: Session| {
            session.insert("a", true).await.unwrap();
            session.set_expiry(Some(expiry()));
        })
    };
    let routes = [
        ("/short", expire(|| OnInactivity(time::Duration::minutes(5)))),
        ("/tiny", expire(|| OnInactivity(time::Duration::nanoseconds(1)))),
        ("/huge", expire(|| OnInactivity(time::Duration::MAX))),
        ("/negative", expire(|| OnInactivity(time::Duration::seconds(-1)))),
        ("/default", expire(|| OnSessionEnd)),
        ("/week", expire(|| AtDateTime(time::OffsetDateTime::now_utc() + WEEK))),
        ("/never", expire(|| AtDateTime(time::PrimitiveDateTime::MAX.assume_utc()))),
        ("/past", expire(|| AtDateTime(time::OffsetDateTime::now_utc() - WEEK))),
        ("/long-past", expire(|| AtDateTime(time::PrimitiveDateTime::MIN.assume_utc()))),
    ];
    const MINUTE: Duration = Duration::from_secs(60);
    const DAY: Duration = Duration::from_secs(24 * 3600);
    // Path, how long it lives for certain, when it is gone for certain; zero: at once.
    let table = [
        ("/short", 4 * MINUTE, 6 * MINUTE),
        ("/tiny", Duration::ZERO, Duration::from_secs(1)),
        ("/huge", 11 * 60 * MINUTE, 13 * 60 * MINUTE),
        ("/negative", Duration::ZERO, Duration::ZERO),
        ("/default", 29 * MINUTE, 32 * MINUTE),
        ("/week", 6 * DAY, 8 * DAY),
        ("/never", 29 * DAY, 31 * DAY),
        ("/past", Duration::ZERO, Duration::ZERO),
        ("/long-past", Duration::ZERO, Duration::ZERO),
    ];
    for (path, alive, gone) in table {
        for known in [false, true] {
            let (place, pass) = with_a_clock();
            let browser = app(&place, &routes);
            if known {
                ok(&browser, "/add/b").await;
            }
            ok(&browser, path).await;
            if !alive.is_zero() {
                pass(alive);
                // By a copy of the cookie, whatever the browser makes of it.
                assert!(ok(&browser.copy(), "/all").await.body.starts_with("a=true"), "{path} known: {known}");
                continue;
            }
            pass(gone);
            shows(&browser, "").await;
        }
        let (place, pass) = with_a_clock();
        let browser = app(&place, &routes);
        ok(&browser, path).await;
        pass(gone);
        shows(&browser, "").await;
    }
    let (place, _) = with_a_clock();
    let page = ok(&app(&place, &routes), "/week").await;
    assert!(page.set_cookies()[0].contains("Max-Age=60479"), "a cookie that outlives the browser: {page:?}");
}

#[tokio::test]
async fn a_shorter_remembered_timeout_of_the_layer_holds() {
    let (mut place, pass) = with_a_clock();
    place.layer = place.layer.expiry(Expiry::default().remembered(Duration::from_secs(3600)));
    let week = get(async |session: Session| {
        session.insert("a", true).await.unwrap();
        session.set_expiry(Some(tower_sessions::Expiry::AtDateTime(time::OffsetDateTime::now_utc() + WEEK)));
    });
    let browser = app(&place, &[("/week", week)]);
    ok(&browser, "/week").await;
    pass(Duration::from_secs(3601));
    shows(&browser, "").await;
}

#[tokio::test]
async fn bad_input_is_an_error_that_says_what_and_changes_nothing() {
    on_both_stores(async |mut place| {
        place.layer = place.layer.clone().size_limit(10_000);
        let text_of = |result: Result<(), TheirError>| match result {
            Ok(()) => "saved".to_owned(),
            Err(error) => error.to_string(),
        };
        let reserved = get(async move |session: Session| {
            session.insert("fine", 1).await.unwrap();
            session.insert("@user", "admin").await.unwrap();
            text_of(session.save().await)
        });
        let large = get(async move |session: Session| {
            session.insert("a", false).await.unwrap();
            session.insert("large", "x".repeat(100 << 20)).await.unwrap();
            text_of(session.save().await)
        });
        let at_the_end = get(async |session: Session| session.insert("@", 1).await.unwrap());
        let look = get(async |session: Session| match session.get_value("a").await {
            Ok(value) => format!("{value:?}").into_response(),
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
        });
        let ours = get(async |ours: Ours| ours.remove("broken").unwrap());
        let routes = [
            ("/reserved", reserved),
            ("/large", large),
            ("/at-the-end", at_the_end),
            ("/look", look),
            ("/repair", ours),
        ];
        let browser = app(&place, &routes);
        ok(&browser, "/add/a").await;
        // The handler answers 200, so what is left is saved with it: nothing of what was refused, nor beside it.
        for (path, says) in [("/reserved", "\"@user\""), ("/large", "limit of 10000 bytes")] {
            let page = browser.get(path).await;
            assert!(page.body.contains(says) || !page.status.is_success(), "{path}: {page:?}");
            shows(&browser, "a=true").await;
        }
        let page = browser.get("/at-the-end").await;
        assert_eq!((page.status.as_u16(), &*page.body), (500, ""));
        shows(&browser, "a=true").await;

        if let Some(redis) = &place.redis {
            let key = redis.run(&["KEYS", "sess:*"]).texts().remove(0);
            redis.run(&["HSET", &key, "broken", "{no json"]);
            let page = browser.get("/look").await;
            assert!(page.status == 500 && page.body.contains("field \"broken\" is not valid JSON"), "{page:?}");
            assert_eq!(redis.run(&["HGET", &key, "broken"]).text(), "{no json", "nothing that was not understood goes");
            ok(&browser, "/repair").await;
            assert!(ok(&browser, "/look").await.body.contains("true"));
        }
    })
    .await;
}

#[tokio::test]
async fn without_redis_an_error_of_ours_is_in_the_response_and_the_cookie_stays() {
    let place = Place::on_redis().await;
    let look = get(async |session: Session| match session.get_value("a").await {
        Ok(_) => StatusCode::OK,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    });
    let said = Arc::new(std::sync::Mutex::new(None));
    let ours = said.clone();
    let router = Router::new().route("/look", look).route("/add/{key}", get(add)).layer(TowerSessionsLayer::new());
    let keep = move |response: Response| {
        *ours.lock().unwrap() = response.extensions().get::<Error>().cloned();
        std::future::ready(response)
    };
    let browser = Browser::new(router.layer(place.layer.clone()).layer(axum::middleware::map_response(keep)));
    ok(&browser, "/add/a").await;
    place.redis.as_ref().unwrap().kill();
    let page = browser.get("/look").await;
    assert_eq!((page.status.as_u16(), page.set_cookies().len()), (500, 0));
    assert!(said.lock().unwrap().as_ref().is_some_and(|error| error.is_unavailable()));
    assert!(browser.cookie(COOKIE).is_some());
    // A visitor without a session needs no Redis before the response.
    let page = browser.stranger().get("/add/a").await;
    assert_eq!((page.status.as_u16(), page.header("retry-after").as_deref()), (503, Some("1")));
}

#[tokio::test]
async fn without_our_layer_their_extractor_says_so() {
    let app = Router::new().route("/", get(async |_: Session| ())).layer(TowerSessionsLayer::new());
    let page = Browser::new(app).get("/").await;
    assert!(page.status == 500 && page.body.contains("Can't extract session"), "{page:?}");
}

#[tokio::test]
async fn a_second_layer_has_sessions_of_theirs_too() {
    enum Office {}
    on_both_stores(async |place| {
        let office =
            place.layer.clone().marker::<Office>().realm("office").cookie(redis_session::Cookie::named("office"));
        let app = Router::new()
            .route("/add/{key}", get(add))
            .layer(TowerSessionsLayer::new().marker::<Office>())
            .layer(place.layer.clone())
            .layer(office);
        let browser = Browser::new(app);
        ok(&browser, "/add/a").await;
        assert!(browser.cookie("office").is_some() && browser.cookie(COOKIE).is_none());
    })
    .await;
}

#[tokio::test]
async fn a_login_that_is_refused_leaves_no_session_and_no_data() {
    on_both_stores(async |place| {
        let devices = place.layer.sessions();
        let log_in = get(async move |session: Session| {
            session.cycle_id().await.unwrap();
            session.insert("axum-login.data", json!({"user_id": "ada", "auth_hash": [1]})).await.unwrap();
            session.insert("welcome", "ada").await.unwrap();
            // Her password is changed elsewhere at this moment.
            devices.revoke_all("ada").await.unwrap();
        });
        let layer = TowerSessionsLayer::new().axum_login();
        let browser = app_under(&place, layer, &[("/log-in", log_in)]);
        ok(&browser, "/add/cart").await;
        let page = browser.get("/log-in").await;
        assert_eq!((page.status.as_u16(), &*page.body, page.set_cookies().len()), (409, "", 0));
        shows(&browser, "cart=true").await;
        assert!(place.layer.sessions().list("ada").await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn who_is_no_more_named_is_logged_out_and_the_rest_goes_on_without_him() {
    on_both_stores(async |place| {
        let log_in = run(async |session| session.insert("account", json!({"name": "ada"})).await);
        let log_out = run(async |session| session.remove::<Value>("account").await.map(drop));
        let name = |account: &Value| Some(account.get("name")?.as_str()?.to_owned());
        let layer = TowerSessionsLayer::new().user("account", name);
        let who = get(async |ours: Ours| ours.user::<String>().unwrap().unwrap_or_default());
        let browser = app_under(&place, layer, &[("/log-in", log_in), ("/log-out", log_out), ("/who", who)]);
        ok(&browser, "/add/cart").await;
        let anonymous = browser.copy();
        ok(&browser, "/log-in").await;
        assert_eq!(ok(&browser, "/who").await.body, "ada");
        assert_eq!(ok(&anonymous, "/all").await.body, "", "a new id also without `cycle_id`");
        let copy = browser.copy();
        ok(&browser, "/log-out").await;
        assert_eq!(ok(&copy, "/all").await.body, "");
        assert_eq!(ok(&browser, "/who").await.body, "");
        shows(&browser, "cart=true").await;
        assert!(place.layer.sessions().list("ada").await.unwrap().is_empty());
    })
    .await;
}
