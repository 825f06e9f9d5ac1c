//! Empty: this package owns the examples, the integration tests and the benchmarks of the workspace.
