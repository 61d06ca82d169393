//! The `worker-orcd` command.
fn main() {}
