//! The sync program, which presses Ctrl-C itself.

#![cfg(unix)]

use std::process::Command;

fn program(arguments: &[&str]) -> (bool, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_callbridge-ctrl-c-sync")).args(arguments).output();
    let output = output.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[test]
fn the_first_press_ends_the_loop_and_what_is_open_is_put_away() {
    let (well, said) = program(&["--smoke"]);
    assert!(well, "{said}");
    assert!(said.contains("tick 1\n"), "{said}");
    assert!(said.contains("a session ends: interrupted"), "{said}");
}

#[test]
fn the_second_press_ends_it_at_once() {
    let (well, said) = program(&["--smoke", "twice"]);
    assert!(!well, "{said}");
    assert!(said.contains("putting things away"), "{said}");
    assert!(said.contains("a session ends: ok"), "{said}");
    assert!(said.contains("runner closed in"), "{said}");
}
