//! `cidfs ls`: the entries of directories.

use std::io::Write;

use clap::{ArgAction, Args};

use super::Outcome;
use super::context::Context;
use crate::daemon::api::files::{LsLink, LsOutput};

/// List directories: the CID, the size, and the name of each entry
///
/// A line is `CID SIZE NAME`, as `ipfs ls` prints it; a directory has `-` for its size and a `/` after its name. Entries come
/// as they are found, so that a huge directory begins to be listed at once. A file lists nothing.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  cidfs ls bafy.../train\n  cidfs ls --long --headers bafy...\n  cidfs ls --json bafy..."
)]
pub struct Arguments {
    /// The directories: a CID or a name of `cidfs name`, and names below it
    #[arg(required = true)]
    paths: Vec<String>,
    /// Prints a line with the names of the columns
    #[arg(short = 'v', long)]
    headers: bool,
    /// Prints mode and time of last change too, where they are stored
    #[arg(short = 'l', long)]
    long: bool,
    /// Looks at each entry to know what it is
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    resolve_type: bool,
    /// Looks at each entry to know its size
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    size: bool,
    /// Accepted for kubo's sake: entries come as they are found anyway
    #[arg(short = 's', long, hide = true)]
    stream: bool,
}

pub async fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let client = context.connect().await?;
    let mut out = std::io::stdout().lock();
    for (index, path) in arguments.paths.iter().enumerate() {
        let call = client.call("ls").arg(path).flag("stream", true).flag("size", arguments.size);
        let call = call.flag("resolve-type", arguments.resolve_type).maybe("timeout", context.timeout());
        let reply = call.send().await?;
        if !context.json() {
            if arguments.paths.len() > 1 {
                writeln!(out, "{}{path}:", if index > 0 { "\n" } else { "" })?;
            }
            if arguments.headers {
                let long = if arguments.long { "Mode Mtime " } else { "" };
                writeln!(out, "{long}Hash Size Name")?;
            }
        }
        reply
            .each(|output: LsOutput| {
                for link in output.objects.iter().flat_map(|object| &object.links) {
                    if context.json() {
                        serde_json::to_writer(&mut out, link)?;
                        out.write_all(b"\n")?;
                    } else {
                        print(&mut out, link, arguments)?;
                    }
                }
                Ok(())
            })
            .await?;
    }
    out.flush()?;
    client.close().await?;
    Ok(Outcome::Done)
}

fn print(out: &mut impl Write, link: &LsLink, arguments: &Arguments) -> std::io::Result<()> {
    if arguments.long {
        let mode = if link.mode == 0 { "-".to_owned() } else { format!("{:04o}", link.mode & 0o7777) };
        let time = if link.mod_time.starts_with("0001-01-01T00:00:00Z") { "-" } else { &link.mod_time };
        write!(out, "{mode} {time} ")?;
    }
    let (size, slash) = if link.kind == 1 { ("-".to_owned(), "/") } else { (link.size.to_string(), "") };
    writeln!(out, "{} {size} {}{slash}", link.hash, link.name)
}
