//! Model checks of the one way to wait: parker, monitor, permits.
