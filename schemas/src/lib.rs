//! Recount's vocabulary, pure and without I/O.

pub mod host;
