//! The dataset as a squashfs image behind squashfuse: another read-only FUSE filesystem over one local file.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A mounted image; unmounted when dropped.
pub struct Squashed {
    root: PathBuf,
}

impl Squashed {
    /// Where it shows the dataset.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Drop for Squashed {
    fn drop(&mut self) {
        let umount = ["umount", "fusermount3", "fusermount"].into_iter().any(|program| {
            let flag: &[&str] = if program == "umount" { &[] } else { &["-u"] };
            succeeds(Command::new(program).args(flag).arg(&self.root)).is_ok()
        });
        if !umount {
            eprintln!("{} could not be unmounted", self.root.display());
        }
    }
}

/// Makes the image where it is not there yet, uncompressed as the other sides are, and mounts it.
pub fn mount(work: &Path, directory: &Path) -> Result<Squashed> {
    let image = work.join("dataset.squashfs");
    let root = work.join("squashfuse.mnt");
    if !image.exists() {
        let stored = ["-noI", "-noD", "-noF", "-noX", "-no-progress", "-quiet"];
        succeeds(Command::new("mksquashfs").arg(directory).arg(&image).args(stored))
            .context("no image (apt-get install squashfs-tools)")?;
    }
    std::fs::create_dir_all(&root)?;
    succeeds(Command::new("squashfuse").arg(&image).arg(&root)).context("no mount (apt-get install squashfuse)")?;
    Ok(Squashed { root })
}

fn succeeds(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
