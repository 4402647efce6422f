//! Bridges **foreign threads** and **a tokio event loop**, both ways.
#![deny(missing_docs)]

mod sync;
