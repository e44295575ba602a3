//! Reads the settings from their four places and remembers where each came from.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml_edit::{Item, TableLike, Value};

use super::{Config, ConfigError, KEYS, Key, Raw};

/// Variables of other meaning that share the prefix of the settings.
const RESERVED_VARIABLES: [&str; 1] = ["CIDFS_PATH"];

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The repository's file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment {
        /// Its name.
        variable: String,
    },
    /// A flag of the command line.
    Flag {
        /// As it was written.
        flag: String,
    },
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Default => f.write_str("default"),
            Source::File { path, line } => write!(f, "{}:{line}", path.display()),
            Source::Environment { variable } => write!(f, "environment {variable}"),
            Source::Flag { flag } => write!(f, "flag {flag}"),
        }
    }
}

/// One setting's value and where it came from.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Which setting.
    pub key: &'static Key,
    /// Its value, in the form that is shown.
    pub value: Raw,
    /// Who said so.
    pub source: Source,
}

/// A setting whose value in the file is not the one that a process runs with.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Change {
    /// `section.key`.
    pub key: String,
    /// Whether the process runs with it from now on.
    pub applied: bool,
}

/// All settings of one process.
#[derive(Clone, Debug)]
pub struct Settings {
    config: Config,
    values: Vec<Setting>,
    warnings: Vec<String>,
}

impl Default for Settings {
    fn default() -> Settings {
        let values = KEYS
            .iter()
            .map(|key| {
                let raw = Raw::One(key.default.to_owned());
                Setting { key, value: (key.canonical)(&raw).unwrap_or(raw), source: Source::Default }
            })
            .collect();
        Settings { config: Config::default(), values, warnings: Vec::new() }
    }
}

impl Settings {
    /// Reads `file` (which need not exist), then `environment` (name and value), then `flags`: pairs of the flag as it was
    /// written and its `section.key=value`. Later ones win.
    pub fn load(
        file: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &[(String, String)],
    ) -> Result<Settings, ConfigError> {
        let mut settings = Settings::default();
        match std::fs::read_to_string(file) {
            Ok(text) => settings.read_file(file, &text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(ConfigError::File { what: "read", path: file.display().to_string(), source }),
        }
        let mut variables: Vec<(String, String)> =
            environment.into_iter().filter(|(name, _)| name.starts_with("CIDFS_")).collect();
        variables.sort();
        for (name, value) in variables {
            settings.read_variable(&name, value)?;
        }
        for (flag, assignment) in flags {
            let place = format!("flag {flag}");
            let Some((path, value)) = assignment.split_once('=') else {
                return Err(ConfigError::NoAssignment { place, text: assignment.clone() });
            };
            let key = find(path.trim(), &place)?;
            settings.set(key, &Raw::One(value.to_owned()), Source::Flag { flag: flag.clone() }, &place)?;
        }
        Ok(settings)
    }

    /// Reads `file` again. What is [live](Key::is_live) is taken over; what else has changed is named, and takes a new start.
    /// Where the environment or a flag has set a key, the file has no say in it.
    pub fn reload(&mut self, file: &Path) -> Result<Vec<Change>, ConfigError> {
        let fresh = Settings::load(file, [], &[])?;
        let mut changes = Vec::new();
        for setting in fresh.values {
            let key = setting.key;
            let Some(known) = self.values.iter_mut().find(|known| std::ptr::eq(known.key, key)) else { continue };
            let is_the_files = matches!(known.source, Source::Default | Source::File { .. });
            if !is_the_files || known.value == setting.value {
                continue;
            }
            let applied = key.is_live() && self.config.set(key.section, key.key, &setting.value).is_some();
            if applied {
                *known = setting;
            }
            changes.push(Change { key: key.path(), applied });
        }
        Ok(changes)
    }

    /// The typed values.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Every setting with its source, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Setting> {
        self.values.iter()
    }

    /// One setting by its `section.key`.
    pub fn get(&self, path: &str) -> Result<&Setting, ConfigError> {
        let key = find(path, "config get")?;
        // `find` gives an element of KEYS, and `values` has one entry for each.
        let at = KEYS.iter().position(|known| std::ptr::eq(known, key)).unwrap_or_default();
        Ok(&self.values[at])
    }

    /// What is odd but no error, for people.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    fn set(&mut self, key: &'static Key, raw: &Raw, source: Source, place: &str) -> Result<(), ConfigError> {
        let canonical = check(key, raw, place)?;
        if self.config.set(key.section, key.key, raw).is_none() {
            return Err(bad_value(key, raw, place));
        }
        for setting in &mut self.values {
            if std::ptr::eq(setting.key, key) {
                setting.value = canonical;
                setting.source = source;
                break;
            }
        }
        Ok(())
    }

    fn read_variable(&mut self, name: &str, value: String) -> Result<(), ConfigError> {
        if RESERVED_VARIABLES.contains(&name) {
            return Ok(());
        }
        let place = format!("environment variable {name}");
        if let Some(key) = KEYS.iter().find(|key| key.variable() == name) {
            return self.set(key, &Raw::One(value), Source::Environment { variable: name.to_owned() }, &place);
        }
        let rest = name.trim_start_matches("CIDFS_").to_lowercase();
        match rest.split_once('_') {
            Some((section, key)) if KEYS.iter().any(|known| known.section == section) => {
                Err(unknown(&format!("{section}.{key}"), &place))
            }
            _ => {
                self.warnings.push(format!("{place} sets nothing: settings are named CIDFS_<SECTION>_<KEY>"));
                Ok(())
            }
        }
    }

    fn read_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let shown = path.display().to_string();
        let document = toml_edit::Document::parse(text)
            .map_err(|error| ConfigError::Syntax { path: shown.clone(), why: error.to_string().trim().to_owned() })?;
        let line_of = |span: Option<std::ops::Range<usize>>| {
            1 + text[..span.map_or(0, |span| span.start.min(text.len()))].matches('\n').count()
        };
        for (section, item) in document.as_table() {
            let line = line_of(document.as_table().key(section).and_then(toml_edit::Key::span));
            let place = format!("{shown}:{line}");
            let Some(table) = item.as_table_like() else {
                return Err(unknown(section, &place));
            };
            for (name, item) in table.iter() {
                let line = line_of(TableLike::key(table, name).and_then(toml_edit::Key::span));
                let place = format!("{shown}:{line}");
                let key = find(&format!("{section}.{name}"), &place)?;
                let raw = raw_of(item).ok_or_else(|| bad_value(key, &Raw::One(shown_item(item)), &place))?;
                self.set(key, &raw, Source::File { path: path.to_owned(), line }, &place)?;
            }
        }
        Ok(())
    }
}

/// The value in the form that is shown, or the error that says what is allowed.
pub(super) fn check(key: &Key, raw: &Raw, place: &str) -> Result<Raw, ConfigError> {
    (key.canonical)(raw).ok_or_else(|| bad_value(key, raw, place))
}

fn bad_value(key: &Key, raw: &Raw, place: &str) -> ConfigError {
    ConfigError::BadValue {
        place: place.to_owned(),
        key: key.path(),
        value: raw.to_string(),
        allowed: key.allowed.to_owned(),
    }
}

/// The setting named `path`, or the error that says what may have been meant.
pub(super) fn find(path: &str, place: &str) -> Result<&'static Key, ConfigError> {
    Key::find(path).ok_or_else(|| unknown(path, place))
}

fn unknown(path: &str, place: &str) -> ConfigError {
    let (section, name) = path.split_once('.').unwrap_or((path, ""));
    let same_section: Vec<&str> = KEYS.iter().filter(|key| key.section == section).map(|key| key.key).collect();
    let same_name: Vec<String> = KEYS.iter().filter(|key| key.key == name).map(Key::path).collect();
    let hint = if !same_section.is_empty() {
        format!("; section `{section}` has {}", same_section.join(", "))
    } else if !same_name.is_empty() {
        format!("; did you mean {}?", same_name.join(" or "))
    } else {
        let mut sections: Vec<&str> = KEYS.iter().map(|key| key.section).collect();
        sections.dedup();
        format!("; the sections are {}", sections.join(", "))
    };
    ConfigError::UnknownKey { place: place.to_owned(), key: path.to_owned(), hint }
}

fn raw_of(item: &Item) -> Option<Raw> {
    let one = |value: &Value| match value {
        Value::String(text) => Some(text.value().clone()),
        Value::Integer(number) => Some(number.value().to_string()),
        Value::Float(number) => Some(number.value().to_string()),
        Value::Boolean(truth) => Some(truth.value().to_string()),
        _ => None,
    };
    match item.as_value()? {
        Value::Array(array) => array.iter().map(one).collect::<Option<Vec<String>>>().map(Raw::Many),
        value => one(value).map(Raw::One),
    }
}

fn shown_item(item: &Item) -> String {
    item.to_string().trim().replace('\n', " ")
}
