//! `cidfs ping`: how long a peer takes to answer.

use clap::Args;

use super::Outcome;
use super::context::Context;
use crate::daemon::api::node::Pong;

/// Show how long a peer takes to answer
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs ping -n 3 12D3Koo...")]
pub struct Arguments {
    /// The peer
    peer: String,
    /// How often it is asked, once a second
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    count: u32,
}

pub async fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let client = context.connect().await?;
    let call = client.call("ping").arg(&arguments.peer).option("count", arguments.count.to_string());
    let reply = call.maybe("timeout", context.timeout()).send().await?;
    reply
        .each(|pong: Pong| {
            context.print(&pong, |out| match (pong.success, pong.time) {
                (true, 0) => writeln!(out, "{}", pong.text),
                (true, time) => writeln!(out, "answered in {:.2} ms", time as f64 / 1e6),
                (false, _) => writeln!(out, "no answer: {}", pong.text),
            })
        })
        .await?;
    Ok(Outcome::Done)
}
