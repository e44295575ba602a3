//! What this node keeps for others as a member of the DHT: who provides what.
//!
//! Everything in here was sent by strangers, so all of it is bounded: keys ([`MAX_PROVIDED_KEYS`]), providers of a key
//! ([`MAX_PROVIDERS_OF_KEY`]), addresses of a provider ([`MAX_RECORD_ADDRESSES`]). Where there is no room, what was refreshed
//! longest ago gives way: honest providers refresh theirs, and what nobody refreshes expires anyway. Addresses that mean
//! nothing to those who will ask (see [`Scope`](super::address::Scope)) are not kept.
//!
//! Values (names of IPNS, public keys) are not kept at all: they would have to be validated first.

use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::time::Instant;

use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore, Result};
use libp2p::kad::{ProviderRecord, Record, RecordKey};
use lru::LruCache;

use super::dht::Reach;
use crate::limits::{
    MAX_OWN_KEYS, MAX_PROVIDED_KEYS, MAX_PROVIDERS_OF_KEY, MAX_RECORD_ADDRESSES, MAX_RECORD_KEY_BYTES,
};

/// The records of one DHT.
pub(super) struct Records {
    own: PeerId,
    reach: Reach,
    theirs: LruCache<RecordKey, Vec<ProviderRecord>>,
    /// What we provide ourselves: told to others without being bounded by what others send.
    ours: LruCache<RecordKey, ()>,
}

impl Records {
    /// None yet, of the node `own`.
    pub fn new(own: PeerId, reach: Reach) -> Records {
        let bound = |count| NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
        Records {
            own,
            reach,
            theirs: LruCache::new(bound(MAX_PROVIDED_KEYS)),
            ours: LruCache::new(bound(MAX_OWN_KEYS)),
        }
    }

    /// How many keys of others there are.
    pub fn len(&self) -> usize {
        self.theirs.len()
    }
}

impl RecordStore for Records {
    type RecordsIter<'a> = std::iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = std::iter::Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, _: &RecordKey) -> Option<Cow<'_, Record>> {
        None
    }

    fn put(&mut self, _: Record) -> Result<()> {
        Err(Error::MaxRecords)
    }

    fn remove(&mut self, _: &RecordKey) {}

    fn records(&self) -> Self::RecordsIter<'_> {
        std::iter::empty()
    }

    fn add_provider(&mut self, mut record: ProviderRecord) -> Result<()> {
        if record.key.as_ref().len() > MAX_RECORD_KEY_BYTES {
            return Err(Error::ValueTooLarge);
        }
        if record.provider == self.own {
            self.ours.put(record.key, ());
            return Ok(());
        }
        record.addresses.retain(|address| self.reach.takes(address));
        record.addresses.truncate(MAX_RECORD_ADDRESSES);
        let key = record.key.clone();
        // The key moves to the front, and the one at the back gives way where there is no room.
        let providers = self.theirs.get_or_insert_mut(key, Vec::new);
        let now = Instant::now();
        providers.retain(|known| known.provider != record.provider && !known.is_expired(now));
        if providers.len() >= MAX_PROVIDERS_OF_KEY {
            providers.remove(0);
        }
        providers.push(record);
        Ok(())
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        let mut providers = self.theirs.peek(key).cloned().unwrap_or_default();
        if self.ours.contains(key) {
            // Without addresses: those of the moment are put in when it is sent.
            providers.push(ProviderRecord::new(key.clone(), self.own, Vec::new()));
        }
        providers
    }

    fn provided(&self) -> Self::ProvidedIter<'_> {
        // Whoever provides says so again in time: see `Net::provide`.
        std::iter::empty()
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        if provider == &self.own {
            self.ours.pop(key);
        } else if let Some(providers) = self.theirs.peek_mut(key) {
            providers.retain(|known| known.provider != *provider);
            if providers.is_empty() {
                self.theirs.pop(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> RecordKey {
        RecordKey::new(&number.to_le_bytes())
    }

    #[test]
    fn the_record_store_is_bounded_in_every_direction() {
        let mut records = Records::new(PeerId::random(), Reach::Wan);
        let numbered = |port: usize| format!("/ip4/8.8.8.8/tcp/{port}").parse().unwrap();
        let addresses: Vec<_> = (1..=MAX_RECORD_ADDRESSES * 2).map(numbered).collect();
        for _ in 0..MAX_PROVIDERS_OF_KEY * 2 {
            records.add_provider(ProviderRecord::new(key(0), PeerId::random(), addresses.clone())).unwrap();
        }
        let providers = records.providers(&key(0));
        assert_eq!(providers.len(), MAX_PROVIDERS_OF_KEY);
        assert!(providers.iter().all(|record| record.addresses.len() == MAX_RECORD_ADDRESSES));
        for number in 1..=MAX_PROVIDED_KEYS {
            records.add_provider(ProviderRecord::new(key(number), PeerId::random(), Vec::new())).unwrap();
        }
        assert_eq!(records.len(), MAX_PROVIDED_KEYS);
        assert!(records.providers(&key(0)).is_empty(), "the oldest gave way");
        assert_eq!(records.providers(&key(MAX_PROVIDED_KEYS)).len(), 1);
        let long = RecordKey::new(&vec![0; MAX_RECORD_KEY_BYTES + 1]);
        assert!(records.add_provider(ProviderRecord::new(long, PeerId::random(), Vec::new())).is_err());
        assert!(records.put(Record::new(key(1), vec![1])).is_err());
    }

    #[test]
    fn private_addresses_are_not_kept_for_the_public_dht() {
        let all = ["/ip4/8.8.8.8/tcp/1", "/ip4/10.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/1"];
        let all: Vec<libp2p::Multiaddr> = all.iter().map(|text| text.parse().unwrap()).collect();
        for (reach, kept) in [(Reach::Wan, &all[..1]), (Reach::Lan, &all[1..])] {
            let mut records = Records::new(PeerId::random(), reach);
            records.add_provider(ProviderRecord::new(key(1), PeerId::random(), all.clone())).unwrap();
            assert_eq!(records.providers(&key(1))[0].addresses, kept);
        }
    }

    #[test]
    fn what_we_provide_is_told_and_can_be_withdrawn() {
        let own = PeerId::random();
        let mut records = Records::new(own, Reach::Lan);
        records.add_provider(ProviderRecord::new(key(1), own, Vec::new())).unwrap();
        assert_eq!(records.providers(&key(1))[0].provider, own);
        records.remove_provider(&key(1), &own);
        assert!(records.providers(&key(1)).is_empty());
    }
}
