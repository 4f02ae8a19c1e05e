//! The `keybed` command.
fn main() {}
