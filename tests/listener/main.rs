//! `Listener`: sources, the servers' connections, `serve`; who holds whom up, what ends what, and what is
//! left of it.
//!
//! Letters with numbers are rows of peers; `tests/PEERS.md` says whose.

#[path = "../common/child.rs"]
mod child;
#[path = "../common/mod.rs"]
mod common;
#[cfg(target_os = "linux")]
#[path = "../common/limits.rs"]
mod limited;
mod reopening;
mod support;

mod connections;
mod datagrams;
mod devices;
mod drain;
#[cfg(feature = "testing")]
mod errors;
#[cfg(feature = "testing")]
mod faulty_source;
#[cfg(unix)]
mod fork;
mod framing;
mod full_channels;
#[cfg(target_os = "linux")]
mod icmp;
mod legacy;
#[cfg(target_os = "linux")]
mod limits;
mod linger;
mod listening_sockets;
mod names_and_counters;
mod overflow;
mod places;
mod serve;
mod serve_batches;
mod serve_ends;
mod serve_gaps;
mod serve_missing;
mod serve_slow;
#[cfg(unix)]
mod serve_stress;
#[cfg(unix)]
mod serve_waits;
mod settings;
#[cfg(target_os = "linux")]
mod shared_sockets;
mod sinks;
mod sources;
mod stop;
mod stop_times;
mod streams;
mod streams_stress;
#[cfg(unix)]
mod trickles;
#[cfg(unix)]
mod unix_sockets;
mod waits;
mod writer;
