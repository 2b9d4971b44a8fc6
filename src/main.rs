//! The binary `chapar`: reads the command line, and does what it says.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
