//! The `cidfs` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    cidfs::cli::main()
}
