//! Which pages of some regions are free: the smallest extent that is long enough is taken, and what comes back is joined
//! with what is free on either side of it.
//!
//! It is pure: regions are numbers, and whose memory they are is the caller's to know.

use std::collections::{BTreeMap, BTreeSet};

/// Pages that lie one after the other in a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub region: u32,
    pub first: u32,
    pub pages: u32,
}

/// The free pages.
#[derive(Debug, Default)]
pub(super) struct Extents {
    /// How long each free extent is, by its region and its first page.
    by_place: BTreeMap<(u32, u32), u32>,
    /// The same by length.
    by_length: BTreeSet<(u32, u32, u32)>,
}

impl Extents {
    /// Takes `pages` pages, if as many are free in one place.
    pub fn take(&mut self, pages: u32) -> Option<Extent> {
        let (free, region, first) = *self.by_length.range((pages, 0, 0)..).next()?;
        self.remove(region, first, free);
        if free > pages {
            self.insert(region, first + pages, free - pages);
        }
        Some(Extent { region, first, pages })
    }

    /// Gives pages back, or gives new ones. The free extent that they are a part of now.
    pub fn give(&mut self, extent: Extent) -> Extent {
        let Extent { region, mut first, mut pages } = extent;
        if let Some((&(at, before), &free)) = self.by_place.range(..(region, first)).next_back()
            && (at, before + free) == (region, first)
        {
            self.remove(region, before, free);
            (first, pages) = (before, pages + free);
        }
        if let Some(&free) = self.by_place.get(&(region, first + pages)) {
            self.remove(region, first + pages, free);
            pages += free;
        }
        self.insert(region, first, pages);
        Extent { region, first, pages }
    }

    /// Forgets a free extent: its pages are no more.
    pub fn withdraw(&mut self, extent: Extent) {
        self.remove(extent.region, extent.first, extent.pages);
    }

    /// How many free extents are at least so long.
    pub fn count(&self, pages: u32) -> usize {
        self.by_length.range((pages, 0, 0)..).count()
    }

    fn insert(&mut self, region: u32, first: u32, pages: u32) {
        self.by_place.insert((region, first), pages);
        self.by_length.insert((pages, region, first));
    }

    fn remove(&mut self, region: u32, first: u32, pages: u32) {
        self.by_place.remove(&(region, first));
        self.by_length.remove(&(pages, region, first));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGES: u32 = 64;

    proptest! {
        /// Against one flag a page: nothing is taken twice, nothing is lost, and what is free side by side is one extent.
        #[test]
        fn no_page_is_given_twice_and_none_is_lost(steps in prop::collection::vec((1..20_u32, any::<prop::sample::Index>()), 1..200)) {
            let mut extents = Extents::default();
            let mut used = [[false; PAGES as usize]; 2];
            let mut held: Vec<Extent> = Vec::new();
            for region in 0..2 {
                extents.give(Extent { region, first: 0, pages: PAGES });
            }
            for (pages, which) in steps {
                if pages % 3 == 0 && !held.is_empty() {
                    let extent = held.swap_remove(which.index(held.len()));
                    let merged = extents.give(extent);
                    for page in extent.first..extent.first + extent.pages {
                        used[extent.region as usize][page as usize] = false;
                    }
                    let region = &used[merged.region as usize];
                    let (first, end) = (merged.first as usize, (merged.first + merged.pages) as usize);
                    prop_assert!(region[first..end].iter().all(|used| !used));
                    prop_assert!(first == 0 || region[first - 1]);
                    prop_assert!(end == region.len() || region[end]);
                } else if let Some(extent) = extents.take(pages) {
                    prop_assert_eq!(extent.pages, pages);
                    for page in extent.first..extent.first + pages {
                        let used = &mut used[extent.region as usize][page as usize];
                        prop_assert!(!*used);
                        *used = true;
                    }
                    held.push(extent);
                } else {
                    let longest = |region: &[bool]| region.split(|used| *used).map(<[bool]>::len).max().unwrap_or(0);
                    prop_assert!(used.iter().all(|region| longest(region) < pages as usize));
                }
            }
            for extent in held {
                extents.give(extent);
            }
            prop_assert_eq!(extents.count(PAGES), 2);
        }
    }

    #[test]
    fn the_smallest_place_that_is_large_enough_is_taken() {
        let mut extents = Extents::default();
        for (first, pages) in [(0, 9), (20, 4), (40, 6)] {
            extents.give(Extent { region: 0, first, pages });
        }
        assert_eq!(extents.take(5), Some(Extent { region: 0, first: 40, pages: 5 }));
        assert_eq!(extents.take(4), Some(Extent { region: 0, first: 20, pages: 4 }));
        assert_eq!(extents.take(10), None);
        extents.withdraw(Extent { region: 0, first: 0, pages: 9 });
        assert_eq!(extents.take(2), None);
        assert_eq!(extents.take(1), Some(Extent { region: 0, first: 45, pages: 1 }));
    }
}
