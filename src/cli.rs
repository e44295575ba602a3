//! The command line: one file a verb.
//!
//! A verb turns its flags into a request to the control API and the answer into lines (or JSON). It holds nothing that a
//! user of the library would want: that is in the floors below. Where a daemon runs, the request goes over its socket; where
//! none does, the verb opens the repository and answers itself: see [`client`].
//!
//! Help, man pages, completions and `docs/cli.md` come from the one definition here, [`Verb`] and the arguments of each verb.
//!
//! What a command prints on standard output is its result, and with `--json` is JSON whatever the verb; everything else
//! goes to standard error. It ends with 0 when it did what was asked, 1 when it did not, 2 when it was not understood;
//! `cidfs status` ends with 3 where no daemon runs. A reader that has seen enough (`| head`) ends it quietly.

// The doc comments of arguments are the help that users read, where backticks are noise; and flags are truth values.
#![allow(clippy::doc_markdown, clippy::struct_excessive_bools, rustdoc::invalid_html_tags, rustdoc::bare_urls)]

mod add;
mod bitswap;
mod block;
mod car;
mod cat;
mod client;
mod config;
mod context;
mod daemon;
mod dag;
mod documents;
mod fetch;
mod get;
mod id;
mod init;
mod logs;
mod ls;
mod mount;
mod mount_helper;
mod name;
mod output;
mod pin;
mod ping;
mod plan;
mod progress;
mod refs;
mod repo;
mod routing;
mod shutdown;
mod spawn;
mod stat;
mod status;
mod swarm;
mod umount;
mod version;
mod warmup;
mod why;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use self::context::{Context, Global};

/// Reads IPFS data as if it were on the local disk.
#[derive(Parser, Debug)]
#[command(name = "cidfs", version, about, max_term_width = 100, propagate_version = false)]
#[command(after_help = "\
Examples:
  cidfs add ./imagenet             add a directory; its CID is printed last
  cidfs mount /mnt/ipfs            read everything below /mnt/ipfs/<cid>
  cidfs status                     what is mounted, what is cached, whether all is well
  cidfs umount /mnt/ipfs

Exit status: 0 done, 1 failed, 2 not understood; `cidfs status`: 3 where no daemon runs.
Settings: `cidfs config show`. Documentation of a verb: `cidfs VERB --help`.")]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// What can be done.
#[derive(Subcommand, Debug)]
enum Verb {
    // Its flags are many.
    Add(Box<add::Arguments>),
    Mount(mount::Arguments),
    #[command(visible_alias = "unmount")]
    Umount(umount::Arguments),
    Status(status::Arguments),
    Ls(ls::Arguments),
    Cat(cat::Arguments),
    Get(get::Arguments),
    Fetch(fetch::Arguments),
    Why(why::Arguments),
    Stat(stat::Arguments),
    Pin(pin::Arguments),
    Plan(Box<plan::Arguments>),
    Warmup(warmup::Arguments),
    Name(name::Arguments),
    Gc(repo::GcArguments),
    Verify(repo::VerifyArguments),
    Repo(repo::RepoArguments),
    Car(car::Arguments),
    Block(block::Arguments),
    Dag(dag::Arguments),
    Refs(refs::Arguments),
    Swarm(swarm::Arguments),
    Routing(routing::Arguments),
    Provide(routing::Provide),
    Bitswap(bitswap::Arguments),
    Ping(ping::Arguments),
    Config(config::Arguments),
    Daemon(daemon::Arguments),
    Shutdown(shutdown::Arguments),
    Init(init::Arguments),
    Id(id::Arguments),
    Version(version::Arguments),
    Completions(documents::Completions),
    Man(documents::Man),
    #[command(hide = true)]
    Generate(documents::Generate),
}

/// How a verb ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It did what was asked.
    Done,
    /// It did it, and the answer is bad news that was printed already: exit status 1.
    BadNews,
    /// There is no daemon to ask: exit status 3.
    NoDaemon,
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.first().is_some_and(|name| mount_helper::is_called(name)) {
        return mount_helper::run(&arguments[1..]);
    }
    let matches = match Cli::command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => {
            // Help and the version are no errors, and go to standard output.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let purpose = purpose(&matches);
    let result = Cli::from_arg_matches(&matches).map_err(anyhow::Error::from).and_then(|cli| run(cli, purpose));
    // What is printed is flushed here, so that a full disk is noticed.
    let result = result.and_then(|outcome| std::io::stdout().flush().map(|()| outcome).map_err(Into::into));
    match result {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::BadNews) => ExitCode::FAILURE,
        Ok(Outcome::NoDaemon) => ExitCode::from(3),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody can be told where standard error is closed.
            let _ = writeln!(std::io::stderr(), "cidfs: {}", one_line(&error));
            ExitCode::FAILURE
        }
    }
}

/// The verb as it was typed, `cidfs pin add`, for other processes that find the repository locked.
fn purpose(matches: &clap::ArgMatches) -> String {
    let mut purpose = "cidfs".to_owned();
    let mut matches = matches;
    while let Some((name, below)) = matches.subcommand() {
        purpose.push(' ');
        purpose.push_str(name);
        matches = below;
    }
    purpose
}

fn run(cli: Cli, purpose: String) -> anyhow::Result<Outcome> {
    let Cli { global, verb } = cli;
    match &verb {
        // These need no repository.
        Verb::Completions(arguments) => return documents::completions(arguments),
        Verb::Man(arguments) => return documents::man(arguments),
        Verb::Generate(arguments) => return documents::generate(arguments),
        _ => {}
    }
    let context = Context::new(global, purpose, Vec::new())?;
    match &verb {
        // These have a runtime of their own, of more than one thread.
        Verb::Daemon(arguments) => return daemon::run(arguments, &context),
        Verb::Mount(arguments) if arguments.foreground => return mount::foreground(arguments, &context),
        _ => {}
    }
    for warning in context.settings.warnings() {
        eprintln!("cidfs: {warning}");
    }
    logs::for_verbs(&context)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        match verb {
            // They were answered above.
            Verb::Daemon(_) | Verb::Completions(_) | Verb::Man(_) | Verb::Generate(_) => Ok(Outcome::Done),
            Verb::Add(arguments) => add::run(&arguments, &context).await,
            Verb::Mount(arguments) => mount::run(&arguments, &context).await,
            Verb::Umount(arguments) => umount::run(&arguments, &context).await,
            Verb::Status(arguments) => status::run(&arguments, &context).await,
            Verb::Ls(arguments) => ls::run(&arguments, &context).await,
            Verb::Cat(arguments) => cat::run(&arguments, &context).await,
            Verb::Get(arguments) => get::run(&arguments, &context).await,
            Verb::Fetch(arguments) => fetch::run(&arguments, &context).await,
            Verb::Why(arguments) => why::run(&arguments, &context).await,
            Verb::Stat(arguments) => stat::run(&arguments, &context).await,
            Verb::Pin(arguments) => pin::run(&arguments, &context).await,
            Verb::Plan(arguments) => plan::run(&arguments, &context).await,
            Verb::Warmup(arguments) => warmup::run(&arguments, &context).await,
            Verb::Gc(arguments) => repo::gc(&arguments, &context).await,
            Verb::Verify(arguments) => repo::verify(&arguments, &context).await,
            Verb::Repo(arguments) => repo::run(&arguments, &context).await,
            Verb::Car(arguments) => car::run(&arguments, &context).await,
            Verb::Name(arguments) => name::run(&arguments, &context).await,
            Verb::Block(arguments) => block::run(&arguments, &context).await,
            Verb::Dag(arguments) => dag::run(&arguments, &context).await,
            Verb::Refs(arguments) => refs::run(&arguments, &context).await,
            Verb::Swarm(arguments) => swarm::run(&arguments, &context).await,
            Verb::Routing(arguments) => routing::run(&arguments, &context).await,
            Verb::Provide(arguments) => routing::provide(&arguments, &context).await,
            Verb::Bitswap(arguments) => bitswap::run(&arguments, &context).await,
            Verb::Ping(arguments) => ping::run(&arguments, &context).await,
            Verb::Config(arguments) => config::run(&arguments, &context).await,
            Verb::Shutdown(arguments) => shutdown::run(&arguments, &context).await,
            Verb::Init(arguments) => init::run(&arguments, &context),
            Verb::Id(arguments) => id::run(&arguments, &context).await,
            Verb::Version(arguments) => version::run(&arguments, &context),
        }
    });
    // A verb that failed does not wait for threads that are still at it.
    runtime.shutdown_background();
    outcome
}

/// The error and its causes on one line, each said once.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string().replace('\n', " ");
        if line.ends_with(&text) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&text);
    }
    line
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        let json = cause.downcast_ref::<serde_json::Error>().and_then(serde_json::Error::io_error_kind);
        io.or(json) == Some(std::io::ErrorKind::BrokenPipe)
    })
}
