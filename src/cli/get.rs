//! `cidfs get`: a file or a directory with all below it, to the local disk or as an archive.

use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, anyhow};
use bytes::{Buf, Bytes};
use clap::Args;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use tokio::sync::mpsc;

use super::Outcome;
use super::context::{Context, shows_progress};
use super::progress::Bar;

/// Copy a file or a directory out of IPFS
///
/// Writes to a file or directory of the same name, or to the one that -o says; into it, where that is a directory already.
/// With -a an archive is written, with -C a compressed one; `-o -` writes to standard output.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cidfs get bafy.../train -o ./train
  cidfs get -a -o - bafy... | tar t
  cidfs get -C bafy.../labels.csv")]
pub struct Arguments {
    /// What to copy: a CID or a name of `cidfs name`, and names below it
    path: String,
    /// Where to
    #[arg(short = 'o', long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Writes a tar file
    #[arg(short = 'a', long)]
    archive: bool,
    /// Compresses with gzip; a directory becomes a compressed tar file
    #[arg(short = 'C', long)]
    compress: bool,
    /// How hard to compress, from 1 to 9; implies -C
    #[arg(short = 'l', long, value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(1..=9))]
    compression_level: Option<u8>,
    /// Draws progress; on a terminal it is drawn anyway
    #[arg(short = 'p', long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    progress: Option<bool>,
}

pub async fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let client = context.connect().await?;
    let packed = arguments.compress || arguments.compression_level.is_some();
    let call = client.call("get").arg(&arguments.path).flag("archive", arguments.archive).flag("compress", packed);
    let call = call.maybe("compression-level", arguments.compression_level).maybe("timeout", context.timeout());
    let reply = call.send().await?;
    let length = reply.headers().get("x-content-length").and_then(|value| value.to_str().ok()?.parse().ok());
    let is_tar = reply.headers().get("content-type").is_some_and(|kind| kind == "application/x-tar");
    let name = arguments.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
    let bar = Bar::bytes(arguments.progress.unwrap_or_else(|| shows_progress(context)), length);

    let to_stdout = arguments.output.as_deref() == Some(Path::new("-"));
    if to_stdout || arguments.archive || packed {
        let mut target: Box<dyn Write + Send> = if to_stdout {
            Box::new(std::io::stdout())
        } else {
            let path = archive_path(arguments, &name, is_tar, packed);
            let opened = OpenOptions::new().write(true).create(true).truncate(true).open(&path);
            Box::new(opened.with_context(|| format!("cannot write {}", path.display()))?)
        };
        reply
            .pieces(|piece| {
                bar.advance(piece.len());
                Ok(target.write_all(&piece)?)
            })
            .await?;
        target.flush()?;
    } else {
        let target = arguments.output.clone().unwrap_or_else(|| PathBuf::from(&name));
        let (sender, receiver) = mpsc::channel(16);
        let unpacking =
            tokio::task::spawn_blocking(move || unpack(Archive { receiver, current: Bytes::new() }, &target));
        let mut reply = reply;
        let fed = loop {
            match reply.next().await {
                Ok(Some(piece)) => {
                    bar.advance(piece.len());
                    if sender.send(Ok(piece)).await.is_err() {
                        break Ok(());
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => {
                    let _ = sender.send(Err(std::io::Error::other("the answer broke off"))).await;
                    break Err(error);
                }
            }
        };
        drop(sender);
        let unpacked = unpacking.await?;
        // What broke off upstream explains a broken archive.
        fed?;
        unpacked?;
    }
    bar.finish();
    client.close().await?;
    Ok(Outcome::Done)
}

fn archive_path(arguments: &Arguments, name: &str, is_tar: bool, packed: bool) -> PathBuf {
    let base = match &arguments.output {
        Some(path) if path.is_dir() => path.join(name),
        Some(path) => return path.clone(),
        None => PathBuf::from(name),
    };
    let extension = match (is_tar || arguments.archive, packed) {
        (true, true) => ".tar.gz",
        (true, false) => ".tar",
        (false, true) => ".gz",
        (false, false) => "",
    };
    let mut path = base.into_os_string();
    path.push(extension);
    path.into()
}

/// Unpacks the archive to `target`: what is in it has one root, which gets that name, or goes into it where it is a
/// directory. Nothing is written outside: an entry's directory must be one that this archive made, or filled, before.
fn unpack(archive: Archive, target: &Path) -> anyhow::Result<()> {
    let mut archive = tar::Archive::new(archive);
    let into = target.is_dir();
    let mut directories: Vec<(PathBuf, u32, u64)> = Vec::new();
    let mut known = HashSet::new();
    for entry in archive.entries()? {
        let mut entry = entry.context("the archive cannot be read")?;
        let path = entry.path()?.into_owned();
        if path.components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err(anyhow!("the archive has an entry that leads elsewhere: {}", path.display()));
        }
        let mut names = path.components();
        let root = names.next().context("the archive has an entry without a name")?;
        let rest = names.as_path();
        let base = if into { target.join(root) } else { target.to_owned() };
        let to = if rest.as_os_str().is_empty() { base } else { base.join(rest) };
        let inside = path.parent().is_some_and(|parent| parent.as_os_str().is_empty() || known.contains(parent));
        if !inside {
            return Err(anyhow!("the archive has {} before its directory", path.display()));
        }
        let context = || format!("cannot write {}", to.display());
        if entry.header().entry_type().is_dir() {
            match std::fs::symlink_metadata(&to) {
                Ok(there) if there.is_dir() => {}
                _ => std::fs::create_dir(&to).with_context(context)?,
            }
            directories.push((to.clone(), entry.header().mode()?, entry.header().mtime()?));
            known.insert(path);
        } else {
            entry.unpack(&to).with_context(context)?;
        }
    }
    // Directories get their modes last, as one that may not be written to must be filled first.
    for (path, mode, mtime) in directories.into_iter().rev() {
        let time = TimeSpec::new(mtime as i64, 0);
        utimensat(AT_FDCWD, &path, &time, &time, UtimensatFlags::NoFollowSymlink)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

/// The archive as it arrives.
struct Archive {
    receiver: mpsc::Receiver<std::io::Result<Bytes>>,
    current: Bytes,
}

impl Read for Archive {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.current = piece?,
                None => return Ok(0),
            }
        }
        let length = out.len().min(self.current.len());
        self.current.copy_to_slice(&mut out[..length]);
        Ok(length)
    }
}
