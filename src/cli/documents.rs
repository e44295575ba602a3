//! `cidfs completions`, `cidfs man`, and the manual of the command line: all made from the one definition of the verbs.

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Command, CommandFactory, ValueEnum};
use clap_complete::Shell;

use super::{Cli, Outcome};
use crate::config;

/// Print completions for a shell
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cidfs completions bash > /etc/bash_completion.d/cidfs
  cidfs completions zsh > \"${fpath[1]}/_cidfs\"
  cidfs completions fish > ~/.config/fish/completions/cidfs.fish")]
pub struct Completions {
    /// The shell
    shell: Shell,
}

/// Write the man pages of all commands into a directory
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs man /usr/local/share/man/man1\n  cidfs man /tmp && man /tmp/cidfs-add.1")]
pub struct Man {
    /// The directory, which is made where it is missing
    directory: PathBuf,
}

/// Print a chapter of the documentation that is made from the program
#[derive(Args, Debug)]
pub struct Generate {
    /// Which chapter
    chapter: Chapter,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Chapter {
    /// docs/cli.md
    Cli,
    /// docs/configuration.md
    Configuration,
}

pub fn completions(arguments: &Completions) -> anyhow::Result<Outcome> {
    let mut text = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "cidfs", &mut text);
    std::io::stdout().write_all(&text)?;
    Ok(Outcome::Done)
}

pub fn man(arguments: &Man) -> anyhow::Result<Outcome> {
    let directory = &arguments.directory;
    let context = || format!("cannot write into {}", directory.display());
    std::fs::create_dir_all(directory).with_context(context)?;
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), directory).with_context(context)?;
    Ok(Outcome::Done)
}

pub fn generate(arguments: &Generate) -> anyhow::Result<Outcome> {
    let text = match arguments.chapter {
        Chapter::Cli => cli(),
        Chapter::Configuration => config::markdown(),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(Outcome::Done)
}

/// `docs/cli.md`: the help of every command.
fn cli() -> String {
    let mut text = String::from(
        "# The command line\n\n\
         <!-- Made from src/cli by `cidfs generate cli`. Change it there. -->\n\n\
         What a command prints on standard output is its result, with `--json` as JSON; everything else goes to standard\n\
         error. A command ends with 0 when it did what was asked, 1 when it did not, and 2 when it was not understood;\n\
         `cidfs status` and `cidfs config show --running` end with 3 where no daemon runs. What `mount.cidfs` ends with is\n\
         in mount(8).\n\n\
         Commands work with a daemon and without. Where one runs (`cidfs mount` starts one that ends after its last mount;\n\
         `cidfs daemon` runs until it is told to end) they ask it; where none does they open the repository themselves, one\n\
         at a time, and a command that finds it in use says by which process.\n",
    );
    let mut root = Cli::command().term_width(100).disable_help_subcommand(true);
    root.build();
    chapter(&mut text, &mut root, "cidfs");
    text
}

fn chapter(text: &mut String, command: &mut Command, path: &str) {
    let help = command.clone().render_long_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    let _ = write!(text, "\n## {path}\n\n```text\n{}\n```\n", lines.join("\n").trim_end());
    let names: Vec<String> = command
        .get_subcommands()
        .filter(|below| !below.is_hide_set() && below.get_name() != "help")
        .map(|below| below.get_name().to_owned())
        .collect();
    for name in names {
        if let Some(below) = command.find_subcommand_mut(&name) {
            chapter(text, below, &format!("{path} {name}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every(command: &Command, path: &str, check: &mut dyn FnMut(&str, &Command)) {
        check(path, command);
        for below in command.get_subcommands() {
            every(below, &format!("{path} {}", below.get_name()), check);
        }
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_every_flag_has_help_and_every_command_an_example() {
        every(&Cli::command(), "cidfs", &mut |path, command| {
            assert!(command.get_about().is_some(), "{path}");
            if !command.is_hide_set() {
                let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(after.contains("cidfs "), "{path} has no example");
            }
            for argument in command.get_arguments().filter(|argument| argument.get_id() != "help") {
                assert!(argument.get_help().is_some(), "{path} {}", argument.get_id());
            }
        });
    }

    #[test]
    fn the_chapters_of_the_manual_are_as_the_program_makes_them() {
        let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
        for (name, text) in [("cli.md", cli()), ("configuration.md", config::markdown())] {
            let kept = std::fs::read_to_string(docs.join(name)).unwrap_or_default();
            let verb = name.trim_end_matches(".md");
            assert!(kept == text, "docs/{name} is old: make it anew with `cidfs generate {verb} > docs/{name}`");
        }
    }
}
