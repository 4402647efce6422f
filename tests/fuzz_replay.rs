//! The inputs that fuzzing has kept, through the same code, on stable.

#[path = "../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "a crate of its own elsewhere")]
mod targets;

use std::fs;
use std::path::Path;

/// Runs every input of a target; says which one it was that failed.
fn replay(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs: Vec<_> = fs::read_dir(&corpus)
        .unwrap_or_else(|error| panic!("{}: {error}", corpus.display()))
        .map(|entry| entry.expect("the corpus can be listed").path())
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 10, "{} has lost its inputs", corpus.display());
    for input in inputs {
        let bytes = fs::read(&input).expect("an input can be read");
        if std::panic::catch_unwind(|| check(&bytes)).is_err() {
            panic!("{} fails", input.display());
        }
    }
}

#[test]
fn bytes_in_any_chunks_decode_as_in_one_piece() {
    replay("framing", targets::framing::check);
}

#[test]
fn a_channel_does_what_a_queue_on_paper_does() {
    replay("channel", targets::channel::check);
}

#[test]
fn a_bridge_does_what_a_list_of_calls_on_paper_does() {
    replay("bridge", targets::bridge::check);
}

#[test]
fn a_connection_does_at_both_ends_what_paper_does() {
    replay("connection", targets::connection::check);
}

#[test]
fn an_echo_server_withstands_any_bytes() {
    replay("echo", targets::echo::check);
}
