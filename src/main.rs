//! The `cidfs` program.

fn main() {}
