//! Compiles the one peer that is written in C.

fn main() {
    println!("cargo:rerun-if-changed=src/echo_epoll.c");
    cc::Build::new()
        .file("src/echo_epoll.c")
        .opt_level(2)
        .warnings_into_errors(true)
        .extra_warnings(true)
        .compile("echo_epoll");
}
