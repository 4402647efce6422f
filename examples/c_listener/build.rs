//! Compiles the C library.

fn main() {
    println!("cargo::rerun-if-changed=c");
    cc::Build::new()
        .files(["c/listener.c", "c/nasty.c"])
        .flag_if_supported("-pthread")
        .warnings_into_errors(true)
        .compile("c_listener");
}
