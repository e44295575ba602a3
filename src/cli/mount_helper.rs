//! `mount.cidfs`: what mount(8) calls for `mount -t cidfs` and for lines of fstab.
//!
//! mount(8) runs `/sbin/mount.<type> SOURCE MOUNTPOINT [-sfnv] [-N NAMESPACE] [-o LIST] [-t TYPE]`; a link of one of the
//! names [`NAMES`] to this program makes it that. SOURCE is `none`, `cidfs`, or the absolute path of a repository. The exit
//! statuses are those of mount(8): 0 done, 1 not understood, 32 not mounted.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use super::Cli;
use crate::fuse::MountOptions;

/// The names that make the program the helper.
const NAMES: [&str; 2] = ["mount.cidfs", "mount.fuse.cidfs"];
/// "Not understood", in mount(8).
const USAGE: u8 = 1;
/// "Not mounted", in mount(8).
const FAILED: u8 = 32;

/// Whether the program was called by a name that makes it the helper.
pub fn is_called(name: &OsStr) -> bool {
    let name = Path::new(name).file_name().and_then(OsStr::to_str);
    name.is_some_and(|name| NAMES.contains(&name))
}

/// What mount(8) asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Call {
    source: Option<String>,
    mountpoint: Option<PathBuf>,
    options: Vec<String>,
    /// `-s`: options that nobody knows are left out.
    sloppy: bool,
    /// `-f`: everything but the mount itself.
    fake: bool,
    verbose: bool,
}

impl Call {
    fn parse(arguments: &[OsString]) -> Result<Call, String> {
        let mut call = Call::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let text = argument.to_str();
            let letters = text.and_then(|text| text.strip_prefix('-')).filter(|letters| !letters.is_empty());
            let Some(letters) = letters else {
                if call.source.is_none() {
                    call.source = Some(argument.to_string_lossy().into_owned());
                } else if call.mountpoint.is_none() {
                    call.mountpoint = Some(argument.into());
                } else {
                    return Err(format!("one argument too many: {}", argument.display()));
                }
                continue;
            };
            for (at, letter) in letters.char_indices() {
                match letter {
                    's' => call.sloppy = true,
                    'f' => call.fake = true,
                    'v' => call.verbose = true,
                    'n' | 'w' | 'r' => {}
                    'o' | 'N' | 't' => {
                        let rest = &letters[at + 1..];
                        let value = match (rest, letter) {
                            ("", _) => arguments.next().map(|value| value.to_string_lossy().into_owned()),
                            (rest, _) => Some(rest.to_owned()),
                        };
                        let value = value.ok_or_else(|| format!("-{letter} needs a value"))?;
                        if letter == 'o' {
                            call.options.push(value);
                        }
                        break;
                    }
                    other => return Err(format!("unknown option -{other}")),
                }
            }
        }
        if call.mountpoint.is_none() {
            return Err("usage: mount.cidfs SOURCE MOUNTPOINT [-sfnv] [-o OPTIONS]".to_owned());
        }
        Ok(call)
    }

    /// The options that are for cidfs. What is not known is left out where that was asked for.
    fn options(&self) -> Result<String, String> {
        let mut known = Vec::new();
        for option in self.options.iter().flat_map(|list| list.split(',')).filter(|option| !option.is_empty()) {
            // mount(8) says `rw` where nothing was said; a cidfs mount is read-only anyway.
            if option == "rw" {
                continue;
            }
            match MountOptions::default().parse(option) {
                Ok(()) => known.push(option),
                Err(_) if self.sloppy => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(known.join(","))
    }

    /// The same as a call of `cidfs mount`.
    fn command_line(&self) -> Result<Vec<OsString>, String> {
        let mut line: Vec<OsString> = vec!["cidfs".into()];
        match self.source.as_deref() {
            None | Some("none" | "cidfs") => {}
            Some(path) if path.starts_with('/') => line.extend(["--repo".into(), path.into()]),
            Some(other) => {
                return Err(format!(
                    "the source {other:?} is neither `none`, `cidfs`, nor a repository's absolute path"
                ));
            }
        }
        line.push("mount".into());
        let options = self.options()?;
        if !options.is_empty() {
            line.extend(["-o".into(), options.into()]);
        }
        // The mount is listed under what fstab calls it, by which `mount -a` knows that it is there.
        if let Some(source) = self.source.as_deref().filter(|source| !source.contains(',')) {
            line.extend(["-o".into(), format!("fsname={source}").into()]);
        }
        line.push("--".into());
        line.extend(self.mountpoint.clone().map(PathBuf::into_os_string));
        Ok(line)
    }
}

/// Mounts as mount(8) asks.
pub fn run(arguments: &[OsString]) -> ExitCode {
    let call = match Call::parse(arguments).and_then(|call| Ok((call.command_line()?, call))) {
        Ok((line, call)) => {
            if call.verbose {
                let shown: Vec<_> = line.iter().map(|part| part.to_string_lossy()).collect();
                eprintln!("mount.cidfs: {}", shown.join(" "));
            }
            if call.fake {
                return ExitCode::SUCCESS;
            }
            line
        }
        Err(error) => {
            eprintln!("mount.cidfs: {error}");
            return ExitCode::from(USAGE);
        }
    };
    match Cli::try_parse_from(call) {
        Ok(cli) => match super::run(cli, "mount.cidfs".to_owned()) {
            Ok(_) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("mount.cidfs: {}", super::one_line(&error));
                ExitCode::from(FAILED)
            }
        },
        Err(error) => {
            let _ = error.print();
            ExitCode::from(USAGE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(arguments: &[&str]) -> Result<String, String> {
        let arguments: Vec<OsString> = arguments.iter().map(Into::into).collect();
        let line = Call::parse(&arguments)?.command_line()?;
        Ok(line.iter().map(|part| part.to_str().unwrap()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn calls_of_mount_become_calls_of_cidfs() {
        assert_eq!(line(&["none", "/m", "-o", "rw"]).unwrap(), "cidfs mount -o fsname=none -- /m");
        assert_eq!(
            line(&["/data/repo", "/m", "-n", "-v", "-o", "rw,allow_other,_netdev,profile=serving"]).unwrap(),
            "cidfs --repo /data/repo mount -o allow_other,_netdev,profile=serving -o fsname=/data/repo -- /m"
        );
        assert_eq!(line(&["cidfs", "/m", "-sno", "frob,ro"]).unwrap(), "cidfs mount -o ro -o fsname=cidfs -- /m");
        assert_eq!(
            line(&["-o", "noexec", "cidfs", "/m", "-t", "cidfs"]).unwrap(),
            "cidfs mount -o noexec -o fsname=cidfs -- /m"
        );
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (arguments, says) in [
            (&["none"][..], "usage"),
            (&["none", "/m", "x"], "too many"),
            (&["none", "/m", "-q"], "unknown option -q"),
            (&["none", "/m", "-o"], "needs a value"),
            (&["none", "/m", "-o", "frob"], "frob"),
            (&["relative", "/m"], "absolute"),
        ] {
            let error = line(arguments).unwrap_err();
            assert!(error.contains(says), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn the_name_of_the_program_makes_it_the_helper() {
        assert!(is_called(OsStr::new("/sbin/mount.cidfs")) && is_called(OsStr::new("mount.fuse.cidfs")));
        assert!(!is_called(OsStr::new("/usr/bin/cidfs")));
    }
}
