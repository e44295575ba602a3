//! `cidfs add`: the flags, which are those of `ipfs add`, and what is printed, which is what kubo prints.
//!
//! [`Arguments`] become [`ImportOptions`] by the same names that the RPC API takes ([`ImportOptions::set`]). A
//! [`Renderer`] takes the events of the import, wherever it runs: lines go to standard output, the bar that shows how far
//! it is to standard error, where that is a terminal.

mod escape;
mod render;

use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use axum::body::Body;
use bytes::Bytes;
use clap::Args;
use futures::StreamExt;

pub use self::render::Renderer;
use super::Outcome;
use super::client::read;
use super::context::Context;
use super::routing;
use crate::block::CidForm;
use crate::daemon::api::add::{Head, Line};
use crate::import::ImportOptions;

/// Add files and directories; the CID of the last root is printed last
///
/// Takes the flags of `ipfs add`, with the same meaning and the same CIDs. What they do not say follows --profile, which
/// is unixfs-v1-2025 here and not kubo's unixfs-v0-2015. What is added is pinned, unless --pin=false. A file that changes
/// while it is read, that cannot be read, or that is a socket or device ends the command, and nothing is pinned. A named
/// pipe that is given as PATH is read to its end.
///
/// Flags that are true or false take a value after `=`: --empty-dirs=false.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Examples:
  cidfs add ./imagenet                        a directory with all below it
  cidfs add -Q ./imagenet                     prints the root's CID alone
  cidfs add --profile unixfs-v0-2015 f        the CID that `ipfs add f` prints
  tar c . | cidfs add --stdin-name=a.tar -    bytes from a pipe
  cidfs add -w a.txt b.txt                    both, in one directory")]
pub struct Arguments {
    /// Files, directories, or `-` for standard input; without any, standard input
    #[arg(value_name = "PATH")]
    pub paths: Vec<PathBuf>,

    /// Accepted: a directory is added with all below it
    #[arg(short = 'r', long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub recursive: Option<bool>,
    /// The name of the file whose bytes come from standard input
    #[arg(long, value_name = "NAME")]
    pub stdin_name: Option<String>,
    /// Adds files and directories below PATH whose names begin with a dot
    #[arg(short = 'H', long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true")]
    pub hidden: Option<bool>,
    /// A rule in the style of .gitignore for what to leave out below PATH; may be given more than once
    #[arg(long, value_name = "RULE")]
    pub ignore: Vec<String>,
    /// A file with rules in the style of .gitignore
    #[arg(long, value_name = "FILE")]
    pub ignore_rules_path: Option<PathBuf>,
    /// Adds empty directories [default: true]
    #[arg(short = 'E', long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true")]
    pub empty_dirs: Option<bool>,
    /// Follows PATH where it is a symbolic link
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true")]
    pub dereference_args: Option<bool>,
    /// Follows every symbolic link
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true")]
    pub dereference_symlinks: Option<bool>,

    /// Prints CIDs alone
    #[arg(short = 'q', long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true", help_heading = "Output")]
    pub quiet: Option<bool>,
    /// Prints the CID of the last root alone
    #[arg(short = 'Q', long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true", help_heading = "Output")]
    pub quieter: Option<bool>,
    /// Prints nothing
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true", help_heading = "Output")]
    pub silent: Option<bool>,
    /// Shows how far it is [default: where standard error is a terminal]
    #[arg(short = 'p', long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true", help_heading = "Output")]
    pub progress: Option<bool>,

    /// Computes CIDs and keeps nothing
    #[arg(short = 'n', long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true")]
    pub only_hash: Option<bool>,
    /// Puts all that is added into one directory
    #[arg(short = 'w', long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true")]
    pub wrap_with_directory: Option<bool>,
    /// Pins what is added, so that it stays [default: true]
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true")]
    pub pin: Option<bool>,
    /// The name of the pin
    #[arg(long, value_name = "NAME")]
    pub pin_name: Option<String>,

    /// The defaults: unixfs-v1-2025 or unixfs-v0-2015 (kubo's own) [default: unixfs-v1-2025]
    #[arg(long, value_name = "NAME", value_parser = setting("profile"), help_heading = "Settings that make the CID")]
    pub profile: Option<String>,
    /// The version of CIDs: 0 or 1. 1 implies --raw-leaves, and another hash than sha2-256 implies 1
    #[arg(long, value_name = "N", value_parser = setting("cid-version"), allow_hyphen_values = true)]
    #[arg(help_heading = "Settings that make the CID")]
    pub cid_version: Option<String>,
    /// The hash function: sha2-256, sha2-512, sha3-256, blake2b-256, blake3, and more
    #[arg(long, value_name = "NAME", help_heading = "Settings that make the CID")]
    pub hash: Option<String>,
    /// Leaves are plain blocks, without a node around them [default: true with CIDv1]
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true", help_heading = "Settings that make the CID")]
    pub raw_leaves: Option<bool>,
    /// How files are cut: size-BYTES, rabin, rabin-AVG, rabin-MIN-AVG-MAX, or buzhash
    #[arg(short = 's', long, value_name = "CHUNKER", help_heading = "Settings that make the CID")]
    pub chunker: Option<String>,
    /// Lays files out for streaming
    #[arg(short = 't', long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true", help_heading = "Settings that make the CID")]
    pub trickle: Option<bool>,
    /// The most links in a node of a file
    #[arg(long, value_name = "N", value_parser = setting("max-file-links"), allow_hyphen_values = true)]
    #[arg(help_heading = "Settings that make the CID")]
    pub max_file_links: Option<String>,
    /// The most entries of a directory that is not sharded; 0 sets no bound. Not for the topmost directory
    #[arg(long, value_name = "N", value_parser = setting("max-directory-links"), allow_hyphen_values = true)]
    #[arg(help_heading = "Settings that make the CID")]
    pub max_directory_links: Option<String>,
    /// The slots of a shard: a power of two from 8 to 1024
    #[arg(long, value_name = "N", value_parser = setting("max-hamt-fanout"), allow_hyphen_values = true)]
    #[arg(help_heading = "Settings that make the CID")]
    pub max_hamt_fanout: Option<String>,
    /// The estimated size over which a directory is sharded; 0 shards none [default: 256KiB]
    #[arg(long, value_name = "BYTES", value_parser = setting("hamt-size-threshold"))]
    #[arg(help_heading = "Settings that make the CID")]
    pub hamt_size_threshold: Option<String>,
    /// How that size is estimated: links (names and CIDs), block (its exact size), or disabled (by size never)
    #[arg(long, value_name = "HOW", value_parser = setting("hamt-size-estimation"))]
    #[arg(help_heading = "Settings that make the CID")]
    pub hamt_size_estimation: Option<String>,
    /// Puts small blocks into their CIDs
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true", help_heading = "Settings that make the CID")]
    pub inline: Option<bool>,
    /// The largest block that --inline puts into a CID, at most 128 [default: 32]
    #[arg(long, value_name = "BYTES", value_parser = setting("inline-limit"), allow_hyphen_values = true)]
    #[arg(help_heading = "Settings that make the CID")]
    pub inline_limit: Option<String>,
    /// Keeps the permissions of files and directories; turns raw leaves off
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true", help_heading = "Settings that make the CID")]
    pub preserve_mode: Option<bool>,
    /// Keeps the times of last change; turns raw leaves off
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true", help_heading = "Settings that make the CID")]
    pub preserve_mtime: Option<bool>,
    /// Permissions for all files and directories, such as 0644; turns raw leaves off
    #[arg(long, value_name = "MODE", value_parser = setting("mode"), help_heading = "Settings that make the CID")]
    pub mode: Option<String>,
    /// A time of last change for everything, in seconds since 1970; turns raw leaves off
    #[arg(long, value_name = "SECONDS", value_parser = setting("mtime"), allow_hyphen_values = true)]
    #[arg(help_heading = "Settings that make the CID")]
    pub mtime: Option<String>,
    /// The nanoseconds of --mtime
    #[arg(long, value_name = "N", value_parser = setting("mtime-nsecs"), help_heading = "Settings that make the CID")]
    pub mtime_nsecs: Option<String>,

    /// Accepted: a daemon announces what is pinned as soon as it is, as the setting network.provide says
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true", help_heading = "Network")]
    pub fast_provide_root: Option<bool>,
    /// Announces every block that was added, beyond what network.provide says, and waits until it is done
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true", help_heading = "Network")]
    pub fast_provide_dag: Option<bool>,
    /// Waits until the roots are announced
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1)]
    #[arg(require_equals = true, default_missing_value = "true", help_heading = "Network")]
    pub fast_provide_wait: Option<bool>,
}

fn boolean(text: &str) -> Result<bool, String> {
    crate::import::parse_bool(text).ok_or_else(|| "true or false".to_owned())
}

/// A value that the setting `name` can have.
fn setting(name: &'static str) -> impl Fn(&str) -> Result<String, String> + Clone + Send + Sync + 'static {
    move |text| match ImportOptions::default().set(name, text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What a path argument names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A file, directory or symbolic link, by its absolute path.
    Path(PathBuf),
    /// Standard input, under this name, which may be empty.
    Stdin(String),
    /// What comes out of a named pipe, under its name. One in a directory is no file and is refused; one that is given by
    /// itself is meant to be read, as in kubo.
    Pipe(PathBuf),
}

impl Input {
    /// Whether its bytes travel with the request, which has place for one such.
    fn is_stream(&self) -> bool {
        !matches!(self, Input::Path(_))
    }
}

impl Arguments {
    /// What is to be added.
    pub fn inputs(&self) -> anyhow::Result<Vec<Input>> {
        let stdin = || Input::Stdin(self.stdin_name.clone().unwrap_or_default());
        if self.paths.is_empty() {
            return Ok(vec![stdin()]);
        }
        let mut inputs = Vec::with_capacity(self.paths.len());
        for path in &self.paths {
            let input = if path == Path::new("-") { stdin() } else { self.input_at(path)? };
            if input.is_stream() && inputs.iter().any(Input::is_stream) {
                anyhow::bail!("{} is a pipe or standard input, and not the first: add one at a time", path.display());
            }
            inputs.push(input);
        }
        Ok(inputs)
    }

    /// What is at a path.
    fn input_at(&self, path: &Path) -> anyhow::Result<Input> {
        let follows = self.dereference_args == Some(true) || self.dereference_symlinks == Some(true);
        let metadata = if follows { path.metadata() } else { path.symlink_metadata() };
        let path = std::path::absolute(path)?;
        // What cannot be looked at is an error of the import, which names it.
        let is_pipe = metadata.is_ok_and(|metadata| metadata.file_type().is_fifo());
        Ok(if is_pipe { Input::Pipe(path) } else { Input::Path(path) })
    }

    /// The settings of the import. Reads the file of --ignore-rules-path.
    pub fn options(&self) -> anyhow::Result<ImportOptions> {
        let mut options = ImportOptions::default();
        if let Some(path) = &self.ignore_rules_path {
            let rules = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            options.ignore.extend(String::from_utf8_lossy(&rules).split('\n').map(str::to_owned));
        }
        options.ignore.extend(self.ignore.iter().cloned());
        for (name, value) in [
            ("profile", &self.profile),
            ("cid-version", &self.cid_version),
            ("hash", &self.hash),
            ("chunker", &self.chunker),
            ("max-file-links", &self.max_file_links),
            ("max-directory-links", &self.max_directory_links),
            ("max-hamt-fanout", &self.max_hamt_fanout),
            ("hamt-size-threshold", &self.hamt_size_threshold),
            ("hamt-size-estimation", &self.hamt_size_estimation),
            ("inline-limit", &self.inline_limit),
            ("mode", &self.mode),
            ("mtime", &self.mtime),
            ("mtime-nsecs", &self.mtime_nsecs),
            ("pin-name", &self.pin_name),
        ] {
            if let Some(value) = value {
                options.set(name, value)?;
            }
        }
        for (name, value) in [
            ("hidden", self.hidden),
            ("empty-dirs", self.empty_dirs),
            ("dereference-args", self.dereference_args),
            ("dereference-symlinks", self.dereference_symlinks),
            ("only-hash", self.only_hash),
            ("wrap-with-directory", self.wrap_with_directory),
            ("pin", self.pin),
            ("raw-leaves", self.raw_leaves),
            ("trickle", self.trickle),
            ("inline", self.inline),
            ("preserve-mode", self.preserve_mode),
            ("preserve-mtime", self.preserve_mtime),
        ] {
            if let Some(value) = value {
                options.set(name, if value { "true" } else { "false" })?;
            }
        }
        Ok(options)
    }

    /// What to print. `json` and `form` are by the flags of all verbs.
    pub fn renderer(&self, json: bool, form: CidForm) -> Renderer {
        let on = |flag: Option<bool>| flag == Some(true);
        let lines = if on(self.silent) {
            render::Lines::None
        } else if json {
            render::Lines::Json
        } else if on(self.quieter) {
            render::Lines::LastCid
        } else if on(self.quiet) {
            render::Lines::Cids
        } else {
            render::Lines::Full
        };
        let unasked = !on(self.quiet) && !on(self.quieter) && !on(self.silent) && render::stderr_is_terminal();
        Renderer::new(lines, self.progress.unwrap_or(unasked), form)
    }
}

/// Adds what the arguments say, and prints it as it goes.
pub async fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let mut options = arguments.options()?;
    if arguments.profile.is_none() {
        options.set("profile", context.config().import.profile.word())?;
    }
    let only_hash = options.only_hash;
    let mut renderer = arguments.renderer(context.json(), context.cid_form());
    let mut head = Head { options, paths: Vec::new(), stdin: None, totals: renderer.wants_totals() };
    let mut pipe = None;
    for input in arguments.inputs()? {
        match input {
            Input::Path(path) => head.paths.push(path.into_os_string().into_vec()),
            Input::Stdin(name) => head.stdin = Some(name),
            Input::Pipe(path) => {
                head.stdin = Some(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
                pipe = Some(path);
            }
        }
    }
    let client = context.connect().await?;
    let json = serde_json::to_vec(&head)?;
    let call = client.call("cidfs/add").option("head-bytes", json.len().to_string());
    let stdin = if head.stdin.is_some() { read(pipe.as_deref()).await? } else { Body::empty() };
    let first = futures::stream::iter([Ok::<_, axum::Error>(Bytes::from(json))]);
    let call = call.body(Body::from_stream(first.chain(stdin.into_data_stream())));
    let reply = call.maybe("timeout", context.timeout()).send().await?;
    let mut roots = Vec::new();
    reply
        .each(|line: Line| {
            match line {
                Line::Event(event) => renderer.event(&event)?,
                Line::Roots(all) => roots = all,
            }
            Ok(())
        })
        .await?;
    anyhow::ensure!(!roots.is_empty(), "the answer broke off: nothing was pinned");
    renderer.finish()?;
    let every_block = arguments.fast_provide_dag == Some(true);
    if !only_hash && (every_block || arguments.fast_provide_wait == Some(true)) {
        // What was added stays added.
        if let Err(error) = routing::announce(&client, &roots, every_block, context).await {
            eprintln!("cidfs: not announced: {error:#}");
        }
    }
    client.close().await?;
    Ok(Outcome::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[derive(Parser, Debug)]
    struct Command {
        #[command(flatten)]
        add: Arguments,
    }

    fn parse(line: &str) -> Arguments {
        Command::try_parse_from(line.split(' ')).unwrap().add
    }

    #[test]
    fn flags_are_those_of_kubo() {
        Command::command().debug_assert();
        let arguments = parse("add -rwHQ -s size-1000 -t=false -n --pin=false -E=false --raw-leaves a -- -b");
        assert_eq!(arguments.paths, [PathBuf::from("a"), PathBuf::from("-b")]);
        assert_eq!((arguments.recursive, arguments.quieter), (Some(true), Some(true)));
        let options = arguments.options().unwrap();
        assert!(options.wrap_with_directory && options.hidden && options.only_hash);
        assert!(!options.pin && !options.empty_dirs);
        assert_eq!((options.trickle, options.raw_leaves), (Some(false), Some(true)));
        assert_eq!(options.chunker.as_deref(), Some("size-1000"));
    }

    #[test]
    fn values_that_no_setting_has_are_refused_when_they_are_read() {
        for line in
            ["add --pin=maybe", "add --mode=08", "add --cid-version=x", "add --profile=legacy", "add --mtime=soon"]
        {
            assert!(Command::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
        let options = parse("add --mode=0644 --mtime=-5 --mtime-nsecs=7 --cid-version 0").options().unwrap();
        assert_eq!((options.mode, options.mtime, options.mtime_nsecs), (0o644, -5, 7));
        assert_eq!(options.cid_version, Some(0));
    }

    #[test]
    fn every_flag_of_an_import_is_a_setting_by_the_same_name() {
        // These are read where the command runs, or say how to print.
        let others = [
            "recursive",
            "stdin-name",
            "ignore-rules-path",
            "quiet",
            "quieter",
            "silent",
            "progress",
            "help",
            "fast-provide-root",
            "fast-provide-dag",
            "fast-provide-wait",
        ];
        for argument in Command::command().get_arguments().filter(|argument| argument.get_long().is_some()) {
            let name = argument.get_long().unwrap();
            let known = !matches!(ImportOptions::default().set(name, "1"), Ok(false));
            assert_eq!(known, !others.contains(&name), "{name}");
            if let Some(short) = argument.get_short().filter(|_| known) {
                assert!(!matches!(ImportOptions::default().set(&short.to_string(), "1"), Ok(false)), "{short}");
            }
        }
    }

    #[test]
    fn no_path_is_standard_input() {
        assert_eq!(parse("add --stdin-name=x").inputs().unwrap(), [Input::Stdin("x".into())]);
        assert_eq!(parse("add - /a").inputs().unwrap(), [Input::Stdin(String::new()), Input::Path("/a".into())]);
        assert!(parse("add - -").inputs().is_err());
    }
}
