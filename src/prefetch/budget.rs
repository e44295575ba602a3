//! How much may be pushed into the page cache: what the machine can spare.
//!
//! The kernel says how much memory programs could have without swapping (`MemAvailable`), and for how much of the time tasks
//! wait for memory (pressure stall information, PSI). Pushes may take half of what is available beyond a reserve, or of what
//! the daemon's control group has left where that is less, and nothing at all while tasks wait. Both are read again a few
//! times a second, so a push stops within that time of the first stall.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How old what is known of the machine may be.
const FRESH: Duration = Duration::from_millis(200);
/// The share of the machine's memory that pushes leave available, and the least of it, in bytes.
const RESERVE_SHARE: u64 = 16;
const MIN_RESERVE_BYTES: u64 = 128 << 20;
/// The share of time for which tasks may wait for memory, in percent over ten seconds.
const MAX_PRESSURE_PERCENT: f64 = 2.0;
/// The share of time between two looks, as a divisor, for which tasks may wait: PSI's averages come late.
const MAX_STALLED_SHARE: u32 = 20;

/// What the machine can spare.
#[derive(Debug)]
pub(super) struct Memory {
    proc: PathBuf,
    group: Option<PathBuf>,
    looked: Mutex<Option<Look>>,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    stalled: Option<Duration>,
    room: u64,
}

impl Memory {
    /// Of the machine that the files below `proc` tell of, and of this process's control group.
    pub fn of(proc: PathBuf) -> Memory {
        let group = std::fs::read_to_string(proc.join("self/cgroup")).ok().and_then(|text| {
            let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
            Some(Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/')))
        });
        Memory::at(proc, group)
    }

    /// As the files below `proc` and in the control group's directory `group` say.
    fn at(proc: PathBuf, group: Option<PathBuf>) -> Memory {
        Memory { proc, group, looked: Mutex::new(None) }
    }

    /// The bytes that pushes may fill of the page cache now.
    pub fn room(&self) -> u64 {
        let mut looked = self.looked.lock();
        let now = Instant::now();
        if let Some(look) = *looked
            && now - look.at < FRESH
        {
            return look.room;
        }
        let (pressure, stalled) = self.pressure();
        let waited = match (*looked, stalled) {
            (Some(Look { at, stalled: Some(before), .. }), Some(stalled)) => {
                stalled.saturating_sub(before) > (now - at) / MAX_STALLED_SHARE
            }
            _ => false,
        };
        let room = if waited || pressure > MAX_PRESSURE_PERCENT { 0 } else { self.spare() };
        *looked = Some(Look { at: now, stalled, room });
        room
    }

    fn spare(&self) -> u64 {
        let text = std::fs::read_to_string(self.proc.join("meminfo")).unwrap_or_default();
        let field = |name: &str| -> Option<u64> {
            let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            rest.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib << 10)
        };
        let (Some(total), Some(available)) = (field("MemTotal"), field("MemAvailable")) else { return 0 };
        let (total, available) = match self.group_memory() {
            Some((limit, left)) => (total.min(limit), available.min(left)),
            None => (total, available),
        };
        available.saturating_sub((total / RESERVE_SHARE).max(MIN_RESERVE_BYTES)) / 2
    }

    /// What the daemon's control group may hold, and how much of it is not held or can be dropped.
    fn group_memory(&self) -> Option<(u64, u64)> {
        let group = self.group.as_ref()?;
        let read = |name: &str| std::fs::read_to_string(group.join(name)).ok();
        let limit: u64 = read("memory.max")?.trim().parse().ok()?;
        let used: u64 = read("memory.current")?.trim().parse().ok()?;
        let stat = read("memory.stat").unwrap_or_default();
        let file =
            stat.lines().filter_map(|line| line.strip_prefix("inactive_file ")?.parse::<u64>().ok()).sum::<u64>();
        Some((limit, limit.saturating_sub(used).saturating_add(file)))
    }

    /// For how much of the last ten seconds some task waited for memory, in percent, and for how long since the start. Kernels
    /// without PSI say nothing.
    fn pressure(&self) -> (f64, Option<Duration>) {
        let text = std::fs::read_to_string(self.proc.join("pressure/memory")).unwrap_or_default();
        let some = text.lines().find_map(|line| line.strip_prefix("some ")).unwrap_or_default();
        let field = |name: &str| some.split(' ').find_map(|field| field.strip_prefix(name));
        let percent = field("avg10=").and_then(|value| value.parse().ok()).unwrap_or(0.0);
        let stalled = field("total=").and_then(|value| value.parse().ok()).map(Duration::from_micros);
        (percent, stalled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(available_kib: u64, pressure: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pressure")).unwrap();
        let meminfo = format!("MemTotal:       16777216 kB\nMemFree: 1 kB\nMemAvailable:   {available_kib} kB\n");
        std::fs::write(dir.path().join("meminfo"), meminfo).unwrap();
        std::fs::write(dir.path().join("pressure/memory"), pressure).unwrap();
        dir
    }

    const CALM: &str =
        "some avg10=0.00 avg60=9.00 avg300=9.00 total=100\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";

    fn room(dir: &tempfile::TempDir) -> u64 {
        Memory::at(dir.path().to_owned(), None).room()
    }

    #[test]
    fn pushes_get_half_of_what_is_available_beyond_a_reserve() {
        assert_eq!(room(&machine(9 << 20, CALM)), 4 << 30);
        assert_eq!(room(&machine(1 << 20, CALM)), 0, "a sixteenth of the memory stays free");
        assert_eq!(Memory::at(PathBuf::from("/nowhere"), None).room(), 0);
        assert_eq!(room(&machine(9 << 20, "")), 4 << 30, "a kernel without PSI");
    }

    #[test]
    fn pushes_stop_while_tasks_wait_for_memory() {
        assert_eq!(room(&machine(9 << 20, "some avg10=5.31 avg60=0.00 avg300=0.00 total=100\n")), 0);
        let dir = machine(9 << 20, CALM);
        let memory = Memory::at(dir.path().to_owned(), None);
        assert!(memory.room() > 0);
        std::fs::write(dir.path().join("pressure/memory"), "some avg10=0.00 avg60=0 avg300=0 total=900000000\n")
            .unwrap();
        memory.looked.lock().as_mut().unwrap().at -= FRESH;
        assert_eq!(memory.room(), 0, "the average has not noticed yet");
    }

    #[test]
    fn a_control_group_with_less_is_what_counts() {
        let dir = machine(9 << 20, CALM);
        let group = tempfile::tempdir().unwrap();
        for (name, value) in [("memory.max", "1073741824\n"), ("memory.current", "805306368\n")] {
            std::fs::write(group.path().join(name), value).unwrap();
        }
        std::fs::write(group.path().join("memory.stat"), "anon 5\ninactive_file 134217728\n").unwrap();
        let memory = Memory::at(dir.path().to_owned(), Some(group.path().to_owned()));
        assert_eq!(memory.room(), ((256 + 128 - 128) << 20) / 2);
    }
}
