//! Whose the blocks of a segment are, and when each root was used last: what eviction goes by.
//!
//! A writer that fetches for a root says so ([`Store::writer_for`]); what it writes is a *run* of records that belong to
//! that root. Blocks of a writer without a root belong to their segment. Both are written to the database lazily: what is
//! lost of it makes eviction choose less well, and nothing else.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::uses::{self, Uses};
use super::{Core, Store};
use crate::block::Cid;

/// A root that blocks were fetched for.
#[derive(Debug)]
pub(super) struct Root {
    pub cid: Cid,
    /// When it was read, or written for.
    pub uses: Arc<Uses>,
}

/// The known roots.
#[derive(Debug, Default)]
pub(super) struct Roots(Mutex<HashMap<Cid, Arc<Root>>>);

/// The records of a segment by whose they are: each run goes on to where the next begins.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs(Vec<(u32, Option<Arc<Root>>)>);

impl Store {
    /// Says that a root is being used: what was fetched for it is evicted after what was fetched for others.
    pub fn touch(&self, root: &Cid) {
        if let Some(root) = self.core().roots.0.lock().get(root) {
            root.uses.note(uses::now());
        }
    }
}

impl Core {
    /// The root with this CID, used now.
    pub(super) fn root(&self, cid: &Cid) -> Arc<Root> {
        let root = self.roots.get_or_add(cid, 0);
        root.uses.note(uses::now());
        root
    }
}

impl Roots {
    /// The roots that the database knows, with their last use.
    pub fn from_rows(rows: &[(Vec<u8>, u64)]) -> Roots {
        let roots = Roots::default();
        for (cid, last_use) in rows {
            if let Ok(cid) = Cid::from_bytes(cid) {
                roots.get_or_add(&cid, *last_use);
            }
        }
        roots
    }

    /// What the database is to know: when each root was used last.
    pub fn rows(&self) -> Vec<(Vec<u8>, u64)> {
        let roots = self.0.lock();
        roots.values().map(|root| (root.cid.as_bytes().to_vec(), root.uses.last())).collect()
    }

    /// All roots.
    pub fn all(&self) -> Vec<Arc<Root>> {
        self.0.lock().values().cloned().collect()
    }

    /// Forgets a root that has no blocks any more, unless somebody is writing for it.
    pub fn forget(&self, root: &Arc<Root>) -> bool {
        let mut roots = self.0.lock();
        // The map's and the caller's.
        let forgotten = Arc::strong_count(root) <= 2;
        if forgotten {
            roots.remove(&root.cid);
        }
        forgotten
    }

    /// The root with this CID, where it is known. Not a use.
    pub fn get(&self, cid: &Cid) -> Option<Arc<Root>> {
        self.0.lock().get(cid).cloned()
    }

    fn get_or_add(&self, cid: &Cid, last_use: u64) -> Arc<Root> {
        let mut roots = self.0.lock();
        let add = || Arc::new(Root { cid: cid.clone(), uses: Arc::new(Uses::at(last_use)) });
        roots.entry(cid.clone()).or_insert_with(add).clone()
    }
}

impl Runs {
    /// The record belongs to this root; records come in the order of their ordinals.
    pub fn push(&mut self, ordinal: u32, root: Option<&Arc<Root>>) {
        if self.of_last().map(Arc::as_ptr) != root.map(Arc::as_ptr) {
            self.0.push((ordinal, root.cloned()));
        }
    }

    /// Whose a record is.
    pub fn of(&self, ordinal: u32) -> Option<&Arc<Root>> {
        let next = self.0.partition_point(|(first, _)| *first <= ordinal);
        self.0.get(next.checked_sub(1)?)?.1.as_ref()
    }

    /// How many of `records` records are this root's.
    pub fn count(&self, root: &Arc<Root>, records: u32) -> u32 {
        let ends = self.0.iter().skip(1).map(|(first, _)| *first).chain([records]);
        let own = self.0.iter().zip(ends).filter(|((_, of), _)| of.as_ref().is_some_and(|of| Arc::ptr_eq(of, root)));
        own.map(|((first, _), end)| end.min(records).saturating_sub(*first)).sum()
    }

    /// Whether any record is this root's.
    pub fn has(&self, root: &Arc<Root>) -> bool {
        self.0.iter().any(|(_, of)| of.as_ref().is_some_and(|of| Arc::ptr_eq(of, root)))
    }

    /// Takes out what is said of records from `end` on.
    pub fn truncate(&mut self, end: u32) {
        self.0.retain(|(first, _)| *first < end);
    }

    /// A row of the database: the time of the segment's last use, then the runs.
    pub fn to_bytes(&self, last_use: u64) -> Vec<u8> {
        let mut bytes = last_use.to_le_bytes().to_vec();
        for (first, root) in &self.0 {
            let cid = root.as_ref().map_or(&[][..], |root| root.cid.as_bytes());
            bytes.extend_from_slice(&first.to_le_bytes());
            bytes.push(cid.len() as u8);
            bytes.extend_from_slice(cid);
        }
        bytes
    }

    /// Reads what [`Runs::to_bytes`] made; what cannot be read is left out.
    pub fn from_bytes(bytes: &[u8], roots: &Roots) -> (u64, Runs) {
        let mut runs = Runs::default();
        let Some((last_use, mut rest)) = bytes.split_first_chunk::<8>() else { return (0, runs) };
        while let Some((first, after)) = rest.split_first_chunk::<4>()
            && let Some((len, after)) = after.split_first()
            && let Some((cid, after)) = after.split_at_checked(usize::from(*len))
        {
            let root = Cid::from_bytes(cid).ok().map(|cid| roots.get_or_add(&cid, 0));
            runs.0.push((u32::from_le_bytes(*first), root));
            rest = after;
        }
        (u64::from_le_bytes(*last_use), runs)
    }

    fn of_last(&self) -> Option<&Arc<Root>> {
        self.0.last()?.1.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::{HashFunction, codec};

    #[test]
    fn runs_say_whose_each_record_is_and_survive_their_bytes() {
        let roots = Roots::default();
        let root = |text: &[u8]| roots.get_or_add(&Cid::new_v1(codec::RAW, &HashFunction::Sha2_256.digest(text)), 7);
        let (one, other) = (root(b"one"), root(b"other"));
        let mut runs = Runs::default();
        for (ordinal, root) in [(0, None), (1, None), (2, Some(&one)), (3, Some(&one)), (4, Some(&other)), (9, None)] {
            runs.push(ordinal, root);
        }
        let (last_use, mut runs) = Runs::from_bytes(&runs.to_bytes(99), &roots);
        assert_eq!(last_use, 99);
        let of: Vec<_> = (0..12).map(|ordinal| runs.of(ordinal).map(|root| root.cid.clone())).collect();
        let (one_cid, other_cid) = (Some(one.cid.clone()), Some(other.cid.clone()));
        assert_eq!(of[..4], [None, None, one_cid.clone(), one_cid]);
        assert!(of[4..9].iter().all(|cid| *cid == other_cid) && of[9..].iter().all(Option::is_none));
        assert!(runs.has(&one));
        assert_eq!((runs.count(&one, 12), runs.count(&other, 12), runs.count(&other, 6)), (2, 5, 2));
        runs.truncate(4);
        assert!(!runs.has(&other));
    }
}
