//! Empty: this package owns the examples, the integration tests, the benchmarks and the guides of the workspace.

/// The guides, so that their code is compiled and run.
#[cfg(doctest)]
mod guides {
    #[doc = include_str!("../docs/callbacks.md")]
    mod callbacks {}
    #[doc = include_str!("../docs/changing-state.md")]
    mod changing_state {}
    #[doc = include_str!("../docs/expiry.md")]
    mod expiry {}
    #[doc = include_str!("../docs/getting-started.md")]
    mod getting_started {}
    #[doc = include_str!("../docs/merging.md")]
    mod merging {}
    #[doc = include_str!("../docs/testing.md")]
    mod testing {}
}
