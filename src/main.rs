//! Chapar's command line.
fn main() {}
