//! Who competes, and what they are given to work with.

pub(crate) mod callers;
pub(crate) mod channels;
pub(crate) mod event_loop;
pub(crate) mod frames;
pub(crate) mod pending;
pub(crate) mod servers;
pub(crate) mod tcp;
pub(crate) mod udp;
