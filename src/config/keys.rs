//! The one definition of every setting.
//!
//! `settings!` makes of each entry a field of a typed section, a default, and a [`Key`] that the loader, the file, the
//! documentation and `cidfs config` work from. To add a setting, add its lines here: nothing else.

use super::kind::{
    Count, DhtMode, Flag, Form, ImportProfile, Kind, List, LogFormat, Marks, MountProfile, NetworkProfile, Provide,
    Ratio, Raw, Size, SizeLimit, Span, Text,
};

/// One setting, as the loader and the documentation see it.
#[derive(Debug)]
pub struct Key {
    /// The table of the file that it stands in.
    pub section: &'static str,
    /// Its name there.
    pub key: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// What it takes, for people.
    pub allowed: &'static str,
    /// Its default, as one would write it in the environment.
    pub default: &'static str,
    /// How it looks in TOML and JSON.
    pub form: Form,
    /// The value in the form that is shown; `None` where it is not allowed.
    pub canonical: fn(&Raw) -> Option<Raw>,
}

impl Key {
    /// `section.key`.
    pub fn path(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }

    /// The variable that sets it.
    pub fn variable(&self) -> String {
        format!("CIDFS_{}_{}", self.section, self.key).to_uppercase()
    }

    /// Whether a daemon that runs takes a new value: [`Settings::reload`](super::Settings::reload).
    pub fn is_live(&self) -> bool {
        matches!((self.section, self.key), ("fetch", "max_download_bytes" | "max_upload_bytes"))
    }

    /// Whether its value is a bare number or truth value in TOML and JSON.
    pub fn is_bare(&self) -> bool {
        self.form == Form::Bare
    }

    /// The setting of that name: `section.key`.
    pub fn find(path: &str) -> Option<&'static Key> {
        let (section, key) = path.split_once('.')?;
        KEYS.iter().find(|known| known.section == section && known.key == key)
    }
}

macro_rules! settings {
    ($($(#[doc = $sdoc:literal])* $section:ident: $name:ident {
        $($(#[doc = $doc:literal])* $key:ident: $kind:ident = $default:literal,)*
    })*) => {
        $(
            $(#[doc = $sdoc])*
            #[derive(Clone, Debug)]
            pub struct $name {
                $($(#[doc = $doc])* pub $key: <$kind as Kind>::Value,)*
            }

            impl Default for $name {
                fn default() -> $name {
                    $name {
                        // Every default is parsed by a unit test of this file.
                        $($key: $kind::parse($default).expect("a default is a value of its own kind"),)*
                    }
                }
            }
        )*

        /// Every setting, typed.
        #[derive(Clone, Debug, Default)]
        pub struct Config {
            $($(#[doc = $sdoc])* pub $section: $name,)*
        }

        impl Config {
            /// Sets `section.key`; `None` where the key does not exist or the value is not allowed.
            pub(super) fn set(&mut self, section: &str, key: &str, raw: &Raw) -> Option<()> {
                match (section, key) {
                    $($((stringify!($section), stringify!($key)) => self.$section.$key = <$kind as Kind>::read(raw)?,)*)*
                    _ => return None,
                }
                Some(())
            }
        }

        /// Every setting, in the order of the file.
        pub static KEYS: &[Key] = &[
            $($(Key {
                section: stringify!($section),
                key: stringify!($key),
                doc: concat!($($doc, "\n",)*),
                allowed: <$kind as Kind>::ALLOWED,
                default: $default,
                form: <$kind as Kind>::FORM,
                canonical: |raw| <$kind as Kind>::read(raw).map(|value| <$kind as Kind>::show(&value)),
            },)*)*
        ];

        /// What each section is for, in the order of the file.
        pub(super) static SECTIONS: &[(&str, &str)] = &[
            $((stringify!($section), concat!($($sdoc, "\n",)*)),)*
        ];
    };
}

settings! {
    /// How the blocks of this machine are kept.
    store: StoreConfig {
        /// The most that the RAM tier holds, in bytes.
        ram_bytes: Size = "256MiB",
        /// The most that the NVMe tier holds, in bytes. Pinned blocks count, and are never evicted to meet it.
        disk_bytes: SizeLimit = "unlimited",
        /// The share of the filesystem that the NVMe tier leaves free, from 0 to 1.
        free_ratio: Ratio = "0.05",
        /// The size at which a segment file is sealed, in bytes.
        segment_bytes: Size = "256MiB",
    }
    /// How missing blocks are fetched.
    fetch: FetchConfig {
        /// How long a read waits, counted from its last progress, before it fails.
        timeout: Span = "60s",
        /// How much may come in from other machines in a second, from peers and gateways together, in bytes. 0: no cap. A daemon
        /// that runs follows a change of the file (`cidfs config set`, `cidfs config reload`).
        max_download_bytes: Size = "0",
        /// How much may go out to other machines in a second, in bytes. 0: no cap. A daemon that runs follows a change of the
        /// file (`cidfs config set`, `cidfs config reload`).
        max_upload_bytes: Size = "0",
    }
    /// Trustless HTTP gateways, which are asked for blocks that no peer sends soon.
    gateway: GatewayConfig {
        /// Their addresses, such as `https://trustless-gateway.link`. Blocks are verified, so `http://` is fine on a network of
        /// one's own. `auto` stands for `https://trustless-gateway.link` in the profile `public`, and for none in the others.
        /// Those that are named here are asked in every profile but `offline`.
        urls: List = "auto",
        /// How long peers are waited for before gateways are asked, too.
        head_start: Span = "200ms",
    }
    /// Delegated routing: servers that are asked over HTTP who has a block.
    routing: RoutingConfig {
        /// Their addresses. `auto` stands for `https://delegated-ipfs.dev` in the profile `public`, and for none in the others. Those
        /// that are named here are asked in every profile but `offline`.
        urls: List = "auto",
    }
    /// What is brought ahead of readers.
    prefetch: PrefetchConfig {
        /// Whether to read ahead within a file whose reader goes on, back, or on at equal steps.
        files: Flag = "true",
        /// Whether to bring the next files where files are read in an order of their directory.
        siblings: Flag = "true",
        /// Whether to fetch the rest of a tree from other machines in the background where its files are being read once each, in
        /// any order.
        epochs: Flag = "true",
        /// Whether to put files that will be read into the kernel's page cache before they are opened.
        push: Flag = "true",
        /// Whether to have the kernel learn the names in a directory before its reader comes to it.
        names: Flag = "true",
        /// The most bytes of page cache that are filled ahead of readers. However high, only half of the memory that the machine
        /// can spare is used, and nothing while programs wait for memory.
        memory_bytes: SizeLimit = "unlimited",
        /// The most bytes that are asked of other machines ahead of readers at a time.
        flight_bytes: Size = "64MiB",
    }
    /// What a mount is where its options (`cidfs mount -o`) do not say otherwise.
    mount: MountConfig {
        /// What the mount is tuned for: `training` for many files that are read again and again, `serving` for large
        /// local files that the kernel shall read without asking.
        profile: MountProfile = "training",
        /// Threads that answer the kernel, for each mountpoint. 0: one for each core, up to a sensible number.
        threads: Count = "0",
        /// How far the kernel reads ahead in a file, in bytes. More than 128KiB takes effect only where the daemon runs as root.
        read_ahead_bytes: Size = "1MiB",
        /// Whether other users of the machine may read the mount. An ordinary user needs `user_allow_other` in
        /// /etc/fuse.conf for it.
        allow_other: Flag = "false",
    }
    /// What `cidfs add` does where its flags do not say otherwise.
    import: ImportConfig {
        /// The set of import settings: `unixfs-v1-2025`, or `unixfs-v0-2015`, which is the default of kubo.
        profile: ImportProfile = "unixfs-v1-2025",
    }
    /// Which other machines take part.
    network: NetworkConfig {
        /// Whom this node talks to: `public`: the IPFS network; `lan`: machines of the local network; `private`: those who have the
        /// key of the swarm (the file `swarm.key` in the repository, in kubo's format); `peers`: those of `network.peering` and
        /// those that were connected by hand, with nothing announced or looked up; `offline`: nobody, and no socket is opened.
        profile: NetworkProfile = "public",
        /// Addresses to listen on for other machines. Empty: none; others are reached all the same.
        listen: List = "/ip4/0.0.0.0/tcp/4001,/ip6/::/tcp/4001,/ip4/0.0.0.0/udp/4001/quic-v1,/ip6/::/udp/4001/quic-v1",
        /// Addresses at which others can reach us, where we cannot know them ourselves: those of a router that forwards a port.
        announce: List = "",
        /// Peers (addresses that end in /p2p/PEER) that a newcomer asks for others. `auto` stands for the IPFS project's in the
        /// profile `public`, and for nobody in the others.
        bootstrap: List = "auto",
        /// Peers (addresses that end in /p2p/PEER) that we stay connected to.
        peering: List = "",
        /// How many peers to be connected to: past the second number connections are given up until the first is reached.
        max_connections: Marks = "96/192",
        /// Whether other machines are looked for, and this one is shown, in the local network (mDNS), where the profile looks
        /// for any.
        mdns: Flag = "true",
        /// Whether this node answers others in the DHT: `auto`: in the local network's always, in the public one where others can
        /// reach us; `server`: always; `client`: never; `off`: there is no DHT, and nothing is looked up or announced in it.
        dht: DhtMode = "auto",
        /// What is announced to others as being here: `roots`: what is pinned; `pinned`: every block of that; `all`: every block;
        /// `none`: nothing.
        provide: Provide = "roots",
        /// How often it is announced again. Others forget it after two days.
        provide_interval: Span = "22h",
    }
    /// The control API, which is always served on the socket `api.sock` in the repository.
    api: ApiConfig {
        /// TCP addresses (`127.0.0.1:5001`) that serve the Kubo RPC API too. Whoever reaches such an address has full control:
        /// there is no password. Empty: none.
        listen: List = "",
    }
    /// What the daemon and the verbs report.
    log: LogConfig {
        /// What is logged, in the syntax of `RUST_LOG` (`info`, `cidfs=debug,warn`). The variable `RUST_LOG` wins over it.
        filter: Text = "info",
        /// How log lines look.
        format: LogFormat = "text",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_of_its_kind_and_is_documented() {
        let _ = Config::default();
        for key in KEYS {
            let canonical = (key.canonical)(&Raw::One(key.default.to_owned()));
            assert!(canonical.is_some(), "{}", key.path());
            assert!(!key.doc.trim().is_empty(), "{}", key.path());
            assert!(key.doc.trim().ends_with('.'), "{}", key.path());
        }
    }

    #[test]
    fn every_key_has_a_variable_and_a_section_of_its_own() {
        let mut variables: Vec<String> = KEYS.iter().map(Key::variable).collect();
        variables.sort();
        variables.dedup();
        assert_eq!(variables.len(), KEYS.len());
        assert!(KEYS.iter().all(|key| !key.section.contains('_')), "CIDFS_<SECTION>_<KEY> must split at the first _");
    }
}
