//! Readers of one file, told apart by where they read, and what each will read next.
//!
//! A reader whose requests follow each other, forward or backward, is read ahead of by a window that grows from
//! [`FIRST_WINDOW_BYTES`] while it goes on; one whose requests lie equally far apart gets the next few of them. A reader that jumps is
//! left alone. Requests of one reader may come a little out of order, for the kernel asks ahead on several threads, and a
//! file that is mapped asks like any other reader.
//!
//! It is pure: [`File::note`] says which range to read, and never the same twice for one reader.

use std::collections::VecDeque;

/// The first window, in bytes: one request of the kernel.
const FIRST_WINDOW_BYTES: u64 = 1 << 20;
/// What is read ahead is said in pieces of so many bytes, and of less at the ends: as much as the leaves of most files hold.
const PIECE_BYTES: u64 = 1 << 20;
/// Readers of one file that are told apart.
const STREAMS: usize = 8;
/// Requests that belong to no reader yet and are remembered, to find a stride among them.
const REMEMBERED: usize = 8;
/// Requests in a row that make a reader sequential, and requests at equal distances that make one strided.
const RUN: u32 = 2;
const STRIDED_RUN: u32 = 4;
/// Requests of others after which a reader that has not moved is known by the exact place of its next one only.
const PATIENCE: u64 = 32;
/// How far apart strided requests may be, in bytes: the rows of a large matrix.
const MAX_STRIDE_BYTES: u64 = 64 << 20;
/// Strided requests that are read ahead.
const STRIDES_AHEAD: u64 = 4;

/// The readers of a file.
#[derive(Default)]
pub(super) struct File {
    /// The one that moved last is at the back.
    streams: Vec<Stream>,
    recent: VecDeque<u64>,
    /// Requests so far.
    requests: u64,
    /// Whether something of it had to be fetched from another machine.
    pub is_remote: bool,
    /// What was read ahead of readers that went elsewhere.
    pub wasted: u64,
}

/// What a request says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// What to read ahead: pieces of the file, in the order in which the reader comes to them.
    pub ahead: Vec<(u64, u64)>,
    /// Bytes of what was read ahead that the reader has come to.
    pub useful: u64,
    /// A reader that began at the beginning has come to the end.
    pub finished: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Motion {
    Forward,
    Backward,
    /// Each request begins this much further, or less far.
    Strided(i64),
}

struct Stream {
    motion: Motion,
    /// When it last moved, in requests of the file.
    moved: u64,
    /// Where it began, and how much was read since: little of a wide span is no reader, but chance.
    start: u64,
    covered: u64,
    /// Requests in a row that lay directly before all others.
    turns: u32,
    /// The place that its next request is expected at: the end of what it has read, or the beginning where it goes backward.
    at: u64,
    /// How many requests have followed each other.
    run: u32,
    window: u64,
    /// The end (going backward: the beginning) of what is read ahead.
    ahead: u64,
}

impl File {
    /// Takes note of a request for `offset..end` of a file of `size` bytes; `limit` is the largest window.
    pub fn note(&mut self, size: u64, offset: u64, end: u64, limit: u64) -> Said {
        let len = end - offset;
        self.requests += 1;
        let now = self.requests;
        // Requests of one reader overtake each other by a few of their own length.
        let slack = 2 * len;
        let follows = |stream: &Stream| match stream.motion {
            _ if now - stream.moved > PATIENCE => false,
            Motion::Forward => offset <= stream.at + slack && end + slack >= stream.at,
            Motion::Backward => end + slack >= stream.at && end <= stream.at + slack,
            Motion::Strided(_) => offset == stream.at,
        };
        // One reader that turns back would be two streams; the one that fits exactly is meant.
        let exact = self.streams.iter().position(|stream| match stream.motion {
            Motion::Backward => end == stream.at,
            Motion::Forward | Motion::Strided(_) => offset == stream.at,
        });
        if let Some(index) = exact.or_else(|| self.streams.iter().position(follows)) {
            let mut stream = self.streams.remove(index);
            let said = stream.note(size, offset, end, limit);
            stream.moved = now;
            self.streams.push(stream);
            return said;
        }
        let strided = self.stride_to(offset).map(|step| (step, offset.checked_add_signed(step)));
        if let Some((step, Some(at))) = strided {
            let run = STRIDED_RUN - 1;
            self.push(Stream {
                motion: Motion::Strided(step),
                at,
                run,
                ahead: at,
                moved: now,
                ..Stream::at(offset, end)
            });
        } else {
            self.push(Stream { moved: now, ..Stream::at(offset, end) });
        }
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(offset);
        Said::default()
    }

    /// The distance by which requests have come to `offset`: two that were remembered, and this one, lie equally far apart.
    fn stride_to(&self, offset: u64) -> Option<i64> {
        let far = |a: u64, b: u64| a != b && a.abs_diff(b) <= MAX_STRIDE_BYTES;
        self.recent.iter().rev().filter(|last| far(**last, offset)).find_map(|last| {
            let step = offset as i64 - *last as i64;
            let before = last.checked_add_signed(-step)?;
            self.recent.contains(&before).then_some(step)
        })
    }

    fn push(&mut self, stream: Stream) {
        if self.streams.len() == STREAMS {
            // The one that has not moved for longest; of those, one that never was a reader.
            let is_idle = |stream: &Stream| stream.run < RUN || self.requests - stream.moved > PATIENCE;
            let idle = self.streams.iter().position(is_idle).unwrap_or(0);
            self.wasted += self.streams.remove(idle).unread();
        }
        self.streams.push(stream);
    }

    /// What was read ahead and never came to be read, when the file is watched no more.
    pub fn unread(&self) -> u64 {
        self.wasted + self.streams.iter().map(Stream::unread).sum::<u64>()
    }

    /// Whether a reader goes towards the piece `from..to` and has not come to it yet.
    pub fn awaits(&self, from: u64, to: u64) -> bool {
        self.streams.iter().any(|stream| match stream.motion {
            Motion::Forward => stream.at < to && to <= stream.ahead,
            Motion::Backward => stream.ahead <= from && from < stream.at,
            Motion::Strided(step) if step < 0 => from <= stream.at,
            Motion::Strided(_) => stream.at <= from,
        })
    }

    /// How its readers go through it, and the largest of their windows.
    pub fn pattern(&self) -> Option<(&'static str, u64)> {
        let stream = self.streams.iter().rev().find(|stream| stream.run >= RUN)?;
        let name = match stream.motion {
            Motion::Forward => "sequential",
            Motion::Backward => "backward",
            Motion::Strided(_) => "strided",
        };
        Some((name, stream.window))
    }
}

impl Stream {
    /// A reader of whom one request is known.
    fn at(offset: u64, end: u64) -> Stream {
        Stream {
            motion: Motion::Forward,
            moved: 0,
            start: offset,
            covered: end - offset,
            turns: 0,
            at: end,
            run: 0,
            window: FIRST_WINDOW_BYTES,
            ahead: end,
        }
    }

    fn unread(&self) -> u64 {
        match self.motion {
            Motion::Forward => self.ahead.saturating_sub(self.at),
            Motion::Backward => self.at.saturating_sub(self.ahead),
            Motion::Strided(_) => 0,
        }
    }

    fn note(&mut self, size: u64, offset: u64, end: u64, limit: u64) -> Said {
        match self.motion {
            Motion::Forward => self.forward(size, offset, end, limit),
            Motion::Backward => self.backward(offset, limit),
            Motion::Strided(step) => self.strided(step, size, offset, end),
        }
    }

    fn forward(&mut self, size: u64, offset: u64, end: u64, limit: u64) -> Said {
        self.covered += end - offset;
        if end <= self.at {
            if end != self.start {
                return Said { finished: self.is_whole(size), ..Said::default() };
            }
            // Directly before all others: once may be disorder, twice is a direction.
            self.start = offset;
            self.turns += 1;
            if self.turns < 2 || self.run > 0 {
                return Said { finished: self.is_whole(size), ..Said::default() };
            }
            let run = RUN - 1;
            *self = Stream { motion: Motion::Backward, at: end, ahead: end, run, ..Stream::at(offset, end) };
            return self.backward(offset, limit);
        }
        let useful = end.min(self.ahead).saturating_sub(self.at);
        self.at = end;
        self.ahead = self.ahead.max(end);
        self.turns = 0;
        let span = self.at - self.start;
        if self.covered * 2 < span {
            let unread = self.unread();
            *self = Stream { window: FIRST_WINDOW_BYTES, ahead: end + unread, ..Stream::at(offset, end) };
            return Said { useful, ..Said::default() };
        }
        let mut said = Said { useful, finished: self.is_whole(size), ..Said::default() };
        if self.covered * 4 < span * 3 {
            return said;
        }
        self.run += 1;
        let wanted = self.at.saturating_add(self.window).min(size);
        // Half a window at a time, so that jobs are worth their start.
        if self.run >= RUN && self.ahead < wanted && wanted - self.ahead >= (self.window / 2).min(size - self.ahead) {
            said.ahead = pieces(self.ahead, wanted);
            self.ahead = wanted;
            self.window = (self.window * 2).min(limit.max(FIRST_WINDOW_BYTES));
        }
        said
    }

    /// Whether it has come from the beginning of the file to its end.
    fn is_whole(&self, size: u64) -> bool {
        self.start == 0 && self.at >= size && self.covered * 4 >= size * 3
    }

    fn backward(&mut self, offset: u64, limit: u64) -> Said {
        if offset >= self.at {
            return Said::default();
        }
        let useful = self.at.saturating_sub(offset.max(self.ahead));
        self.at = offset;
        self.ahead = self.ahead.min(offset);
        self.run += 1;
        let mut said = Said { useful, ..Said::default() };
        let wanted = self.at.saturating_sub(self.window);
        if self.run >= RUN && self.ahead > wanted && self.ahead - wanted >= (self.window / 2).min(self.ahead) {
            said.ahead = pieces(wanted, self.ahead);
            said.ahead.reverse();
            self.ahead = wanted;
            self.window = (self.window * 2).min(limit.max(FIRST_WINDOW_BYTES));
        }
        said
    }

    fn strided(&mut self, step: i64, size: u64, offset: u64, end: u64) -> Said {
        let len = end - offset;
        self.run += 1;
        let useful = if self.run > STRIDED_RUN { len } else { 0 };
        let mut said = Said { useful, ..Said::default() };
        let Some(next) = offset.checked_add_signed(step).filter(|next| *next < size) else { return said };
        self.at = next;
        // At first the next few; then one more for each that was read.
        let first = if self.run == STRIDED_RUN { 1 } else { STRIDES_AHEAD };
        for ahead in first..=STRIDES_AHEAD {
            let at = step.checked_mul(ahead as i64).and_then(|distance| offset.checked_add_signed(distance));
            if let Some(at) = at.filter(|at| *at < size) {
                said.ahead.push((at, at.saturating_add(len).min(size)));
            }
        }
        said
    }
}

/// `from..to`, cut where the pieces of any other range are cut.
fn pieces(from: u64, to: u64) -> Vec<(u64, u64)> {
    let cuts = (from / PIECE_BYTES + 1..to.div_ceil(PIECE_BYTES)).map(|piece| piece * PIECE_BYTES);
    let starts = std::iter::once(from).chain(cuts.clone());
    starts.zip(cuts.chain([to])).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const LIMIT: u64 = 8 * MIB;

    fn read(file: &mut File, offset: u64, len: u64) -> Vec<(u64, u64)> {
        file.note(1000 * MIB, offset, offset + len, LIMIT).ahead
    }

    #[test]
    fn a_reader_that_goes_on_is_read_ahead_of_by_a_growing_window() {
        let mut file = File::default();
        assert_eq!(read(&mut file, 0, MIB), []);
        let mut ahead = 0;
        let mut largest = 0;
        for request in 1..100 {
            for (from, to) in read(&mut file, request * MIB, MIB) {
                let is_new = from >= (request + 1) * MIB && from >= ahead;
                assert!(is_new, "nothing is read twice, and nothing behind the reader");
                ahead = to;
                largest = largest.max(to - (request + 1) * MIB);
            }
        }
        assert_eq!(largest, LIMIT);
        assert!(ahead > 100 * MIB);
    }

    #[test]
    fn a_reader_that_goes_back_is_read_ahead_of_towards_the_beginning() {
        let mut file = File::default();
        let mut ahead = 1000 * MIB;
        for request in (100..200).rev() {
            for (from, to) in read(&mut file, request * MIB, MIB) {
                assert!(from < to && to <= request * MIB && to <= ahead);
                ahead = from;
            }
        }
        assert!((100 * MIB - LIMIT..=100 * MIB - LIMIT / 2).contains(&ahead), "{ahead}");
    }

    #[test]
    fn what_is_read_ahead_comes_in_pieces_the_nearest_first() {
        assert_eq!(pieces(5, 6), [(5, 6)]);
        assert_eq!(pieces(MIB, 3 * MIB), [(MIB, 2 * MIB), (2 * MIB, 3 * MIB)]);
        assert_eq!(pieces(MIB - 1, 2 * MIB + 1), [(MIB - 1, MIB), (MIB, 2 * MIB), (2 * MIB, 2 * MIB + 1)]);
        let mut file = File::default();
        let ahead = (100..120).rev().flat_map(|request| read(&mut file, request * MIB, MIB));
        let starts: Vec<u64> = ahead.map(|(from, _)| from).collect();
        assert!(starts.len() > 10 && starts.is_sorted_by(|a, b| a > b), "{starts:?}");
    }

    #[test]
    fn a_piece_is_awaited_until_its_reader_has_come_to_it() {
        let mut forward = File::default();
        let ahead: Vec<_> = (0..10).flat_map(|request| read(&mut forward, request * MIB, MIB)).collect();
        let mut backward = File::default();
        let back: Vec<_> = (90..100).rev().flat_map(|request| read(&mut backward, request * MIB, MIB)).collect();
        assert!(ahead.len() > 10 && back.len() > 10);
        for (from, to) in ahead {
            assert_eq!(forward.awaits(from, to), to > 10 * MIB, "{from}");
        }
        for (from, to) in back {
            assert_eq!(backward.awaits(from, to), from < 90 * MIB, "{from}");
        }
        assert!(!forward.awaits(500 * MIB, 501 * MIB), "where nobody goes");
        let mut strided = File::default();
        let rows: Vec<_> = (0..4).flat_map(|row| read(&mut strided, row * 10 * MIB, 65_536)).collect();
        assert!(!rows.is_empty());
        assert!(rows.iter().all(|(from, to)| strided.awaits(*from, *to)));
        assert!(!strided.awaits(0, 65_536));
    }

    #[test]
    fn the_next_rows_of_a_matrix_are_read_ahead() {
        for step in [10 * MIB as i64, -(7 * MIB as i64)] {
            let mut file = File::default();
            let mut ahead = std::collections::BTreeSet::new();
            for row in 0..20_i64 {
                let at = (500 * MIB as i64 + row * step) as u64;
                let was_ahead = ahead.contains(&at);
                assert!(was_ahead || row < 4, "row {row}");
                for (from, to) in read(&mut file, at, 65_536) {
                    assert_eq!(to - from, 65_536);
                    assert!(ahead.insert(from), "nothing is read twice");
                }
            }
            assert!(ahead.len() <= 20);
        }
    }

    #[test]
    fn interleaved_readers_and_disordered_requests_are_followed() {
        let mut file = File::default();
        let mut jobs = [0; 6];
        for step in 0..50 {
            // Pairs of requests change places.
            let at = (step ^ 1) * MIB;
            for (reader, jobs) in jobs.iter_mut().enumerate() {
                *jobs += read(&mut file, reader as u64 * 150 * MIB + at, MIB).len();
            }
        }
        assert!(jobs.iter().all(|jobs| *jobs >= 5), "{jobs:?}");
    }

    #[test]
    fn a_file_that_was_read_from_beginning_to_end_is_finished() {
        for (starts, finished) in [(&[0, 1, 2, 3][..], true), (&[0, 1, 3], true), (&[1, 2, 3], false), (&[0, 3], false)]
        {
            let mut file = File::default();
            let ends = starts.iter().any(|at| file.note(4000, at * 1000, (at + 1) * 1000, LIMIT).finished);
            assert_eq!(ends, finished, "{starts:?}");
        }
    }

    /// The kernel's requests for a mapped file that is read at random, recorded: each fault asks for some pages around it.
    fn faults(seed: u64, requests: usize, size: u64) -> Vec<(u64, u64)> {
        let mut state = seed | 1;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        (0..requests)
            .map(|_| {
                let at = next() % (size / 4096) * 4096;
                (at, (at + [4096, 16_384, 65_536, 131_072][(next() % 4) as usize]).min(size))
            })
            .collect()
    }

    proptest! {
        #[test]
        fn random_reads_waste_less_than_a_twentieth(seed: u64, mib in 64_u64..2000) {
            let size = mib * MIB;
            let mut file = File::default();
            let (mut read, mut ahead) = (0, 0);
            for (offset, end) in faults(seed, 4000, size) {
                read += end - offset;
                ahead += file.note(size, offset, end, LIMIT).ahead.iter().map(|(from, to)| to - from).sum::<u64>();
            }
            prop_assert!(ahead * 20 < read, "{ahead} bytes ahead of {read}");
        }

        #[test]
        fn what_is_read_ahead_lies_in_the_file(size in 1..20 * MIB, requests in prop::collection::vec((0.0..1.0_f64, 1..2 * MIB), 1..200)) {
            let mut file = File::default();
            for (place, len) in requests {
                let offset = (size as f64 * place) as u64;
                let end = (offset + len).min(size);
                for (from, to) in file.note(size, offset, end, LIMIT).ahead {
                    prop_assert!(from < to && to <= size);
                }
            }
        }

        #[test]
        fn most_of_what_a_sequential_reader_is_given_is_of_use(requests in 100_u64..500, len in prop::sample::select(vec![65_536_u64, 131_072, MIB])) {
            let mut file = File::default();
            let (mut useful, mut ahead) = (0, 0);
            for request in 0..requests {
                let said = file.note(10_000 * MIB, request * len, (request + 1) * len, LIMIT);
                useful += said.useful;
                ahead += said.ahead.iter().map(|(from, to)| to - from).sum::<u64>();
            }
            prop_assert_eq!(ahead - useful, file.unread());
            prop_assert!(file.unread() <= LIMIT);
            prop_assert!(useful >= ((requests - 4) * len).saturating_sub(2 * MIB), "{useful}");
        }
    }
}
