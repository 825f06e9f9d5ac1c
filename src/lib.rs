//! Empty: this package owns the examples, the integration tests and the benchmarks of the workspace. Its doc tests are the
//! code of the README and the guides.

#[cfg(doctest)]
mod guides {
    macro_rules! compiled {
        ($($name:ident: $path:literal,)*) => { $(#[doc = include_str!($path)] mod $name {})* };
    }

    compiled! {
        readme: "../README.md",
        getting_started: "../docs/getting-started.md",
        merging: "../docs/merging.md",
        expiry: "../docs/expiry.md",
        logins: "../docs/logins.md",
        devices: "../docs/devices.md",
        real_time: "../docs/real-time.md",
        changing_state: "../docs/changing-state.md",
        callbacks: "../docs/callbacks.md",
        csrf: "../docs/csrf.md",
        tenants: "../docs/tenants.md",
        durability: "../docs/durability.md",
        replica_reads: "../docs/replica-reads.md",
        testing: "../docs/testing.md",
        start_and_stop: "../docs/start-and-stop.md",
        from_axum_session_and_actix_session: "../docs/from-axum-session-and-actix-session.md",
    }
}
