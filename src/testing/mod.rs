//! Parts for tests of what is built on this crate (feature `testing`): foreign threads and sources that
//! do what a test tells them, step by step.
//!
//! | a test wants | it uses |
//! |---|---|
//! | a thread of a library that does this, and then that | [`ForeignThread`] |
//! | a source that has nothing, hangs, fails, panics or tears frames | [`script()`] |
//! | a callback's answer that comes when the test says so | [`promise`](crate::future::promise) |
//!
//! # Time
//!
//! tokio's clock is tokio's to turn: `tokio::time::pause` and `advance`, of its feature `test-util`, reach
//! what async code waits for with `tokio::time`. Everything else is real time: the timeout of a blocking
//! method, a poll timeout, a `reply_timeout`, an `idle_timeout`. Foreign threads wait on the system's clock,
//! which no test can turn, so give such a test a short timeout that is meant to pass, or a long one that
//! isn't, and wait for events: [`Script::wait_taken`], a step's result.
//!
//! A paused clock runs ahead whenever the runtime has nothing to do, and can't see that a thread is about to
//! send: see [`channel`](mod@crate::channel#tests-with-tokios-clock-paused).

mod foreign_thread;
mod script;

pub use foreign_thread::ForeignThread;
pub use script::{Script, ScriptedSource, script};
