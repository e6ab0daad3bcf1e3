//! One test binary: a file per promise.
