//! The mounts of one daemon: any number of mountpoints, each with its own options.
//!
//! A mount leaves the table when it is unmounted, whoever did it: `cidfs umount`, umount(8), or the kernel. The number of
//! mounts, and of mounts in the making, can be watched; a daemon that was started for a mount ends when it comes to none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Daemon;
use crate::config::{MountConfig, MountProfile};
use crate::fuse::{self, MountOptions, Profile, RequestKind};
use crate::metrics::PrefetchFigures;
use crate::prefetch::{self, Prefetch, RootReport};

/// The mounts of a daemon.
#[derive(Clone)]
pub struct Mounts {
    table: Arc<Mutex<BTreeMap<PathBuf, Mounted>>>,
    busy: Arc<watch::Sender<usize>>,
}

struct Mounted {
    mount: fuse::Mount,
    options: MountOptions,
    since: Instant,
}

/// A mount, for people and programs.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct MountReport {
    /// Where it is.
    pub mountpoint: PathBuf,
    /// What it is tuned for.
    pub profile: String,
    /// Whether other users may read it.
    pub allow_other: bool,
    /// How long it has been there, in seconds.
    pub seconds: u64,
    /// Requests of the kernel so far, by their name in the FUSE protocol; kinds that did not occur are left out.
    pub requests: BTreeMap<String, u64>,
}

impl Default for Mounts {
    fn default() -> Mounts {
        Mounts { table: Arc::default(), busy: Arc::new(watch::Sender::new(0)) }
    }
}

/// Counts as busy from its making to its end.
struct Busy(Arc<watch::Sender<usize>>);

impl Busy {
    fn new(count: &Arc<watch::Sender<usize>>) -> Busy {
        count.send_modify(|busy| *busy += 1);
        Busy(count.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.send_modify(|busy| *busy -= 1);
    }
}

/// The options of a mount before its `-o` list: what the settings say.
pub fn options(config: &crate::config::Config) -> MountOptions {
    let MountConfig { profile, threads, read_ahead_bytes, allow_other } = config.mount.clone();
    MountOptions {
        profile: match profile {
            MountProfile::Training => Profile::Training,
            MountProfile::Serving => Profile::Serving,
        },
        threads,
        read_ahead_bytes,
        allow_other,
        timeout: config.fetch.timeout,
        prefetch: prefetch::Settings::from(&config.prefetch),
        ..MountOptions::default()
    }
}

impl Mounts {
    /// Mounts on `mountpoint`. Blocks until the mount answers. Call it within the daemon's runtime.
    pub fn mount(
        &self,
        daemon: &Daemon,
        mountpoint: &Path,
        options: MountOptions,
    ) -> Result<MountReport, fuse::MountError> {
        let busy = Busy::new(&self.busy);
        let mount = fuse::mount(mountpoint, daemon.tree().clone(), &options)?;
        let path = mount.path().to_owned();
        let over = mount.over();
        let mounted = Mounted { mount, options, since: Instant::now() };
        let report = mounted.report(&path);
        tracing::info!(mountpoint = %path.display(), profile = report.profile, "mounted");
        daemon.plans().mounted(mounted.mount.prefetch());
        self.table.lock().insert(path.clone(), mounted);
        let table = self.table.clone();
        tokio::runtime::Handle::current().spawn(async move {
            over.cancelled().await;
            // Where we unmounted it, it has left the table already; somebody may have mounted there anew since.
            let gone = {
                let mut table = table.lock();
                let is_over = table.get(&path).is_some_and(|mounted| mounted.mount.over().is_cancelled());
                is_over.then(|| table.remove(&path)).flatten()
            };
            if gone.is_some() {
                tracing::info!(mountpoint = %path.display(), "unmounted by somebody else");
            }
            drop(busy);
        });
        Ok(report)
    }

    /// Cancelled when the mount on `mountpoint` has ended; `None` where this daemon has none there.
    pub fn over(&self, mountpoint: &Path) -> Option<CancellationToken> {
        self.table.lock().get(mountpoint).map(|mounted| mounted.mount.over())
    }

    /// Unmounts `mountpoint`: reads in flight are answered first. False where this daemon has no mount there.
    pub fn unmount(&self, mountpoint: &Path) -> std::io::Result<bool> {
        self.take_down(mountpoint, fuse::Mount::unmount)
    }

    fn take_down(
        &self,
        mountpoint: &Path,
        how: impl FnOnce(fuse::Mount) -> std::io::Result<()>,
    ) -> std::io::Result<bool> {
        // Out of the table first: whoever asks again finds nothing, and a mount that is ending serves nobody.
        let Some(mounted) = self.table.lock().remove(mountpoint) else { return Ok(false) };
        how(mounted.mount)?;
        tracing::info!(mountpoint = %mountpoint.display(), "unmounted");
        Ok(true)
    }

    /// All mounts, in the order of their mountpoints.
    pub fn list(&self) -> Vec<MountReport> {
        self.table.lock().iter().map(|(path, mounted)| mounted.report(path)).collect()
    }

    /// What brings files ahead of the readers of each mount.
    pub fn prefetches(&self) -> Vec<Prefetch> {
        self.table.lock().values().map(|mounted| mounted.mount.prefetch().clone()).collect()
    }

    /// What was brought ahead for each mountpoint.
    pub fn prefetch_totals(&self) -> Vec<(String, PrefetchFigures)> {
        let table = self.table.lock();
        let total =
            |(path, mounted): (&PathBuf, &Mounted)| (path.display().to_string(), mounted.mount.prefetch().total());
        table.iter().map(total).collect()
    }

    /// What was brought ahead for each root, over all mounts.
    pub fn prefetch_report(&self) -> Vec<RootReport> {
        let mut roots: BTreeMap<String, RootReport> = BTreeMap::new();
        for report in self.prefetches().iter().flat_map(Prefetch::report) {
            match roots.get_mut(&report.root) {
                Some(sum) => sum.add(&report),
                None => drop(roots.insert(report.root.clone(), report)),
            }
        }
        roots.into_values().collect()
    }

    /// How many mounts there are, made or in the making, as it changes.
    pub fn watch(&self) -> watch::Receiver<usize> {
        self.busy.subscribe()
    }

    /// Unmounts everything, side by side, because the process ends: reads in flight are answered, for as long as `limit`,
    /// and none is begun.
    pub async fn end_all(&self, limit: Duration) {
        let paths: Vec<PathBuf> = self.table.lock().keys().cloned().collect();
        let mut ending = tokio::task::JoinSet::new();
        for path in paths {
            let mounts = self.clone();
            ending.spawn_blocking(move || {
                if let Err(error) = mounts.take_down(&path, |mount| mount.end(limit)) {
                    tracing::error!(mountpoint = %path.display(), %error, "not unmounted");
                }
            });
        }
        while ending.join_next().await.is_some() {}
    }
}

impl Mounted {
    fn report(&self, path: &Path) -> MountReport {
        let counts = self.mount.requests();
        let requests = RequestKind::ALL.iter().map(|kind| (kind.name().to_owned(), counts.get(*kind)));
        MountReport {
            mountpoint: path.to_owned(),
            profile: match self.options.profile {
                Profile::Training => "training".to_owned(),
                Profile::Serving => "serving".to_owned(),
            },
            allow_other: self.options.allow_other,
            seconds: self.since.elapsed().as_secs(),
            requests: requests.filter(|(_, count)| *count > 0).collect(),
        }
    }
}
