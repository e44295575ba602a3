//! `cidfs init`: makes the repository, which any other command does too.

use clap::Args;
use serde_json::json;

use super::Outcome;
use super::context::Context;
use crate::daemon::repository;

/// Make the repository
///
/// It is made at the first use of any other command: `init` is here for those who expect it, and does no harm to a
/// repository that is there already.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs init\n  CIDFS_PATH=/data/cidfs cidfs init")]
pub struct Arguments {}

pub fn run(_arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    repository::create(&context.repository)?;
    let path = context.repository.display();
    context.print(&json!({ "Repository": path.to_string() }), |out| writeln!(out, "repository {path}"))?;
    Ok(Outcome::Done)
}
