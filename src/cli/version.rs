//! `cidfs version`.

use clap::Args;

use super::Outcome;
use super::context::Context;
use crate::daemon::api::node::Version;

/// Show the version
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs version\n  cidfs version -n")]
pub struct Arguments {
    /// The number alone
    #[arg(short = 'n', long)]
    number: bool,
    /// The version of the repository's layout alone
    #[arg(long)]
    repo_version: bool,
    /// Everything there is to say
    #[arg(long)]
    all: bool,
}

pub fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let version = Version::current();
    context.print(&version, |out| {
        if arguments.all {
            writeln!(
                out,
                "cidfs version: {}\nRepo version: {}\nSystem version: {}",
                version.version, version.repo, version.system
            )
        } else if arguments.repo_version {
            writeln!(out, "{}", version.repo)
        } else if arguments.number {
            writeln!(out, "{}", version.version)
        } else {
            writeln!(out, "cidfs version {}", version.version)
        }
    })?;
    Ok(Outcome::Done)
}
