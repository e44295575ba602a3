//! Every setting of cidfs, each defined once.
//!
//! The table at the foot of `config/keys.rs` is the one definition: section, key, kind, default, and what it is for. From it come
//! the typed [`Config`], the file `<repository>/config.toml` (a documented one is written with a new repository), the
//! environment (`CIDFS_<SECTION>_<KEY>`), the flag `-c section.key=value`, what `cidfs config` shows and changes, and
//! `docs/configuration.md`.
//!
//! Where a key is set in several places, a flag wins over the environment, the environment over the file, the file over the
//! default; [`Settings`] remembers which one it was. A key that does not exist, or a value that is not allowed, is an error
//! that names the place and says what would be allowed: a setting is never ignored quietly.
//!
//! This floor knows no other module: what a value means is up to those that read it.

mod document;
mod keys;
mod kind;
mod load;
#[cfg(test)]
mod tests;

pub use self::document::{default_file, edit, markdown};
pub use self::keys::{
    ApiConfig, Config, FetchConfig, GatewayConfig, ImportConfig, KEYS, Key, LogConfig, MountConfig, NetworkConfig,
    PrefetchConfig, RoutingConfig, StoreConfig,
};
pub use self::kind::{
    DhtMode, ImportProfile, Kind, LogFormat, MountProfile, NetworkProfile, Provide, Raw, Watermarks, format_size,
    format_span, parse_size, parse_span,
};
pub use self::load::{Change, Setting, Settings, Source};

/// Why the settings cannot be used. Each names the place (a file and its line, a variable, a flag) for the person who
/// wrote it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read or written.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// `read` or `write`.
        what: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{path} is not valid TOML: {why}")]
    Syntax {
        /// The file.
        path: String,
        /// What the parser said, with the line.
        why: String,
    },
    /// There is no such key.
    #[error("{place}: there is no setting `{key}`{hint}")]
    UnknownKey {
        /// Where it was written.
        place: String,
        /// What was written.
        key: String,
        /// What could have been meant.
        hint: String,
    },
    /// The key exists, the value is not one it takes.
    #[error("{place}: `{key}` cannot be `{value}`: it takes {allowed}")]
    BadValue {
        /// Where it was written.
        place: String,
        /// `section.key`.
        key: String,
        /// What was written.
        value: String,
        /// What the key takes.
        allowed: String,
    },
    /// A flag without `=`.
    #[error("{place}: `{text}` is not of the form section.key=value")]
    NoAssignment {
        /// Where it was written.
        place: String,
        /// What was written.
        text: String,
    },
}
