//! `BlockingFuture`: waiting, awaiting, states, cancels, callbacks, panics; `wait`, `as_completed`,
//! `promise`.
//!
//! Letters with numbers are rows of peers; `tests/PEERS.md` says whose.

#[path = "../common/mod.rs"]
mod common;

mod awaiting;
mod callbacks;
mod cancels;
mod panics;
mod promise;
mod results;
mod sets;
mod states;
