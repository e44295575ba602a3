//! `cidfs car`: whole DAGs to and from CAR files, streaming.

use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{ArgAction, Args, Subcommand};
use serde_json::Value;

use super::Outcome;
use super::client::{Client, read};
use super::context::{Context, shows_progress};
use super::output::size;
use super::progress::Bar;

/// Write and read CAR files
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cidfs car export bafy... -o imagenet.car
  cidfs car export bafy... | ssh other cidfs car import -
  cidfs car import imagenet.car")]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    Export(Export),
    Import(Import),
}

/// Write a DAG as a CAR (version 1), to standard output or to a file
///
/// Where a block cannot be had, the export fails, and its exit status says so: what was written is then no whole CAR.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  cidfs car export bafy... > imagenet.car\n  cidfs car export -o imagenet.car bafy..."
)]
pub struct Export {
    /// The root: a CID, or a path
    root: String,
    /// The file to write; it gets its name when it is whole
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Leaves out what is not here
    #[arg(long)]
    local_only: bool,
    /// Draws progress; on a terminal it is drawn anyway
    #[arg(short = 'p', long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    #[arg(require_equals = true)]
    progress: Option<bool>,
}

/// Take in CAR files (versions 1 and 2), and pin their roots
///
/// Every block is hashed. A root is pinned where everything below it is here, from this CAR or from before; where that is
/// not so, the command says which block is missing and ends with 1, and the blocks stay until they are collected.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cidfs car import imagenet.car
  curl -s http://localhost/x.car | cidfs car import -
  cidfs car import --pin-roots=false part1.car part2.car")]
pub struct Import {
    /// The files; `-` or none is standard input
    files: Vec<PathBuf>,
    /// Pins the roots that the files name
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pin_roots: bool,
    /// Takes in a part of a DAG, and pins nothing
    #[arg(long)]
    local_only: bool,
    /// Prints how much was read
    #[arg(long)]
    stats: bool,
    /// Prints nothing
    #[arg(long)]
    silent: bool,
}

pub async fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    match &arguments.action {
        Action::Export(arguments) => export(arguments, context).await,
        Action::Import(arguments) => import(arguments, context).await,
    }
}

/// Writes a CAR.
pub async fn export(arguments: &Export, context: &Context) -> anyhow::Result<Outcome> {
    let to_file = arguments.output.as_deref().filter(|path| *path != Path::new("-"));
    anyhow::ensure!(
        to_file.is_some() || !std::io::stdout().is_terminal(),
        "a CAR is no text: give -o FILE, or send standard output somewhere"
    );
    let client = context.connect().await?;
    let call = client.call("dag/export").arg(&arguments.root).flag("local-only", arguments.local_only);
    let reply = call.maybe("timeout", context.timeout()).send().await?;
    let bar = Bar::bytes(arguments.progress.unwrap_or_else(|| shows_progress(context)), None);
    let write = |out: &mut dyn Write, piece: &[u8]| {
        bar.advance(piece.len());
        Ok::<_, anyhow::Error>(out.write_all(piece)?)
    };
    if let Some(path) = to_file {
        // It gets its name when it is whole, so that no half of one is taken for a whole.
        let mut part = path.to_owned().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let opened = OpenOptions::new().write(true).create(true).truncate(true).open(&part);
        let mut file = opened.with_context(|| format!("cannot write {}", part.display()))?;
        let written = reply.pieces(|piece| write(&mut file, &piece)).await;
        if let Err(error) = written {
            let _ = std::fs::remove_file(&part);
            return Err(error);
        }
        std::fs::rename(&part, path).with_context(|| format!("cannot write {}", path.display()))?;
    } else {
        let mut out = std::io::stdout().lock();
        reply.pieces(|piece| write(&mut out, &piece)).await?;
        out.flush()?;
    }
    bar.finish();
    client.close().await?;
    Ok(Outcome::Done)
}

/// Takes CARs in.
pub async fn import(arguments: &Import, context: &Context) -> anyhow::Result<Outcome> {
    let client = context.connect().await?;
    let stdin = [PathBuf::from("-")];
    let mut outcome = Outcome::Done;
    for file in if arguments.files.is_empty() { &stdin } else { &arguments.files[..] } {
        let failed = import_one(&client, file, arguments, context)
            .await
            .with_context(|| format!("cannot import {}", file.display()))?;
        if failed {
            outcome = Outcome::BadNews;
        }
    }
    client.close().await?;
    Ok(outcome)
}

/// Whether a root could not be pinned.
async fn import_one(client: &Client, file: &Path, arguments: &Import, context: &Context) -> anyhow::Result<bool> {
    let pin = arguments.pin_roots && !arguments.local_only;
    let call = client.call("dag/import").flag("pin-roots", pin).flag("stats", arguments.stats);
    let reply = call.maybe("timeout", context.timeout()).file(read(Some(file)).await?).send().await?;
    let mut failed = false;
    reply
        .each(|line: Value| {
            let root = &line["Root"];
            let error = root["PinErrorMsg"].as_str().unwrap_or_default();
            let cid = context.cid(root["Cid"]["/"].as_str().unwrap_or_default());
            if !error.is_empty() {
                failed = true;
                eprintln!("cidfs: {cid} is not pinned: {error}");
            }
            if arguments.silent {
                return Ok(());
            }
            context.print(&line, |out| match line["Stats"].as_object() {
                Some(stats) => {
                    let number = |name: &str| stats.get(name).and_then(Value::as_u64).unwrap_or_default();
                    writeln!(out, "{} blocks ({})", number("BlockCount"), size(number("BlockBytesCount")))
                }
                None if error.is_empty() => writeln!(out, "pinned {cid}"),
                None => Ok(()),
            })
        })
        .await?;
    Ok(failed)
}
