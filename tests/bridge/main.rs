//! `Bridge`, in the order of its API: submitting, `call`, order, callbacks, limits, closing, and loops
//! that die.
//!
//! Letters with numbers are rows of peers; `tests/PEERS.md` says whose.

#[path = "../common/child.rs"]
mod child;
#[path = "../common/mod.rs"]
mod common;

mod call;
mod callbacks;
mod calls;
mod close;
mod end_of_loop;
#[cfg(unix)]
mod fork;
mod limits;
mod order;
mod settings;
mod stalls;
mod stress;
