//! Runs the programs of `docs/COOKBOOK.md`: all of them, or those that are named.
//!
//! `cargo run -p callbridge-cookbook`, `cargo run -p callbridge-cookbook -- tls audio`

mod audio;
mod batches;
mod dead_letters;
mod dedicated;
mod fan_out;
mod gui;
#[cfg(unix)]
mod prefork;
mod rate_limit;
mod select;
#[cfg(unix)]
mod serial;
mod testing;
#[cfg(unix)]
mod tls;

use std::error::Error;

type Failure = Box<dyn Error + Send + Sync>;
type Ended = Result<(), Failure>;

/// Its name and its program.
type Recipe = (&'static str, fn() -> Ended);

const RECIPES: &[Recipe] = &[
    ("fan_out", fan_out::main),
    ("batches", batches::main),
    ("select", select::main),
    ("dead_letters", dead_letters::main),
    ("rate_limit", rate_limit::main),
    #[cfg(unix)]
    ("tls", tls::main),
    #[cfg(unix)]
    ("serial", serial::main),
    ("dedicated", dedicated::main),
    ("gui", gui::main),
    ("audio", audio::main),
    #[cfg(unix)]
    ("prefork", prefork::main),
    ("testing", testing::main),
];

fn main() -> Ended {
    let named: Vec<String> = std::env::args().skip(1).collect();
    #[cfg(unix)]
    if named.first().is_some_and(|first| first == "--worker") {
        return prefork::main();
    }
    let wanted = |name: &str| named.is_empty() || named.iter().any(|it| it == name);
    for (name, recipe) in RECIPES.iter().filter(|(name, _)| wanted(name)) {
        println!("{name}:");
        recipe()?;
    }
    Ok(())
}
