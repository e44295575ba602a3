//! Import: files become DAGs, bit for bit as kubo 0.43 makes them with the same settings.
//!
//! [`add`] takes paths and streams, cuts each file into chunks ([`chunker`]), hangs the chunks into a tree ([`layout`]),
//! makes directories of what is in them ([`directory`]), and puts all blocks into the store in the order in which they
//! will be read. Reading, hashing and writing overlap on all cores ([`pipeline`]), in bounded memory, with the same
//! result whatever order the work ends in.
//!
//! A root is pinned when everything is in the store and durable, and never before: a file that cannot be read, that
//! changes while it is read, or that is no file at all ends the import with an error that names it, and leaves no pin. So
//! does a caller that stops it.

mod buffers;
mod chunker;
mod directory;
mod error;
mod events;
mod file;
mod ignore;
mod layout;
mod node;
mod options;
mod pipeline;
mod pool;
mod query;
mod read;
mod scan;
mod sources;
mod walk;

use std::num::NonZero;
use std::sync::atomic::Ordering;

pub use self::error::ImportError;
pub use self::events::{AddedEntry, EntryPath, Event, KuboEvent, KuboLines, Progress};
pub use self::options::{ImportOptions, Profile, SizeEstimation};
pub use self::query::{parse_bool, parse_bytes, parse_int};
pub use self::sources::Source;

use self::ignore::Filter;
use self::options::Settings;
use self::pipeline::Pipeline;
use self::pool::Pool;
use self::scan::Totals;
use self::walk::{Rules, Walk};
use crate::block::Cid;
use crate::store::{PinKind, Store};

/// What an import made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Added {
    /// The roots, in the order in which they were added; the last is what a command prints last.
    pub roots: Vec<Cid>,
}

/// Adds `sources` to `store`, and pins each root unless the options say otherwise. Blocks the thread until everything is
/// durable; `progress` is told on this thread.
pub fn add(
    sources: Vec<Source>,
    options: &ImportOptions,
    store: &Store,
    progress: &mut dyn Progress,
) -> Result<Added, ImportError> {
    let settings = Settings::resolve(options)?;
    let filter = Filter::new(options.hidden, &options.ignore);
    let roots = sources::roots(sources, options.dereference_args || options.dereference_symlinks)?;
    let rules =
        Rules { filter: &filter, follow_symlinks: options.dereference_symlinks, empty_directories: options.empty_dirs };
    let paths = if progress.wants_totals() { sources::paths(&roots) } else { Vec::new() };
    let totals = Totals::default();
    let walk = Walk::new(roots, options.wrap_with_directory, rules);
    // The writer holds what it has put, so that no collection of garbage takes it before it is pinned.
    let mut writer = (!options.only_hash).then(|| store.writer());
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let pool = Pool::new();
    let roots = std::thread::scope(|scope| {
        let _closer = pool.start(scope, threads)?;
        if !paths.is_empty() {
            scope.spawn(|| scan::count(paths, &filter, options.dereference_symlinks, &totals));
        }
        let result = Pipeline::new(&settings, &pool, walk, writer.as_mut(), &totals, progress).run();
        totals.stop.store(true, Ordering::Relaxed);
        result
    })?;
    if !options.only_hash {
        if options.pin {
            for root in &roots {
                store.pin(root, PinKind::Recursive, options.pin_name.as_deref().unwrap_or_default())?;
            }
        } else {
            store.sync()?;
        }
    }
    drop(writer);
    Ok(Added { roots })
}
