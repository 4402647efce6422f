//! An event loop for a program that has none: a background thread that owns a runtime.
//!
//! | a sync program has | it uses |
//! |---|---|
//! | a future to run | [`ThreadRunner::run`] |
//! | an async client to keep open | [`ThreadRunner::enter_context`] |
//! | an async stream to iterate over | [`ThreadRunner::wrap_iter`] |
//! | async bytes to read and write | [`BlockingIo`] |
//! | a task that runs beside it | [`ThreadRunner::start_task`] |
//! | a Ctrl-C half-way | [a token, or a canceller](ThreadRunner#ctrl-c) |

// First, since the docs show what a type can do in the order of the modules.
mod thread_runner;

mod builder;
mod close;
mod context;
mod core;
mod guard;
mod io;
mod iter;
mod outcome;
mod reader;
mod registry;
mod shared;
mod start_task;
mod weak;

pub use builder::ThreadRunnerBuilder;
pub use close::RunnerCloseReport;
pub use context::{AsyncContext, EnterError};
pub use guard::{Guard, ScopeError};
pub use io::BlockingIo;
pub use iter::WrapIter;
pub use outcome::{ExitError, Outcome};
pub use shared::SharedRunner;
pub use start_task::{ReadySignal, StartTaskError};
pub use thread_runner::ThreadRunner;
pub use weak::WeakRunner;
