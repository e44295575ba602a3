//! Settings by name and value, as text: the flags of the command line and the parameters of an RPC call.
//!
//! Names are those of kubo's `ipfs add`, long or short; numbers are written as in Go (`0640`, `0o640` and `0x1a0` are one
//! mode), and a flag without a value is true.

use super::ImportError;
use super::options::{ImportOptions, Profile, SizeEstimation};

impl ImportOptions {
    /// Applies one setting. False where the name is none of an import: it may be a setting of how things are printed.
    ///
    /// # Errors
    /// Where the value is none that the setting can have.
    pub fn set(&mut self, name: &str, value: &str) -> Result<bool, ImportError> {
        let flag = || parse_bool(value).ok_or_else(|| bad(name, value, "true or false"));
        let int =
            || parse_int(value, i64::from(i32::MIN), i64::from(i32::MAX)).ok_or_else(|| bad(name, value, "a number"));
        let uint =
            || parse_int(value, 0, i64::from(u32::MAX)).ok_or_else(|| bad(name, value, "a number from 0 to 2^32-1"));
        match name {
            "profile" => {
                self.profile = Profile::from_name(value)
                    .ok_or_else(|| bad(name, value, "unixfs-v1-2025, unixfs-v0-2015 or legacy-cid-v0"))?;
            }
            "cid-version" => self.cid_version = Some(int()?),
            "hash" => self.hash = Some(value.into()),
            "raw-leaves" => self.raw_leaves = Some(flag()?),
            "chunker" | "s" => self.chunker = Some(value.into()),
            "trickle" | "t" => self.trickle = Some(flag()?),
            "max-file-links" => self.max_file_links = Some(int()?),
            "max-directory-links" => self.max_directory_links = Some(int()?),
            "max-hamt-fanout" => self.max_hamt_fanout = Some(int()?),
            "hamt-size-threshold" => {
                self.hamt_size_threshold = Some(
                    parse_bytes(value)
                        .ok_or_else(|| bad(name, value, "a number of bytes, such as 262144 or 256KiB"))?,
                );
            }
            "hamt-size-estimation" => {
                self.hamt_size_estimation = Some(match value {
                    "links" => SizeEstimation::Links,
                    "block" => SizeEstimation::Block,
                    "disabled" => SizeEstimation::Disabled,
                    _ => return Err(bad(name, value, "links, block or disabled")),
                });
            }
            "inline" => self.inline = flag()?,
            "inline-limit" => self.inline_limit = int()?,
            "preserve-mode" => self.preserve_mode = flag()?,
            "preserve-mtime" => self.preserve_mtime = flag()?,
            "mode" => self.mode = uint()? as u32,
            "mtime" => {
                self.mtime =
                    parse_int(value, i64::MIN, i64::MAX).ok_or_else(|| bad(name, value, "a number of seconds"))?;
            }
            "mtime-nsecs" => self.mtime_nsecs = uint()? as u32,
            "wrap-with-directory" | "w" => self.wrap_with_directory = flag()?,
            "hidden" | "H" => self.hidden = flag()?,
            "ignore" => self.ignore.push(value.into()),
            "empty-dirs" | "E" => self.empty_dirs = flag()?,
            "dereference-args" => self.dereference_args = flag()?,
            "dereference-symlinks" => self.dereference_symlinks = flag()?,
            "only-hash" | "n" => self.only_hash = flag()?,
            "pin" => self.pin = flag()?,
            "pin-name" => self.pin_name = Some(value.into()),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn bad(name: &str, value: &str, expected: &str) -> ImportError {
    ImportError::options(format!("--{name}={value}: expected {expected}"))
}

/// A boolean as Go reads it, in any case; nothing at all is true.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "" | "1" | "t" | "true" => Some(true),
        "0" | "f" | "false" => Some(false),
        _ => None,
    }
}

/// A whole number as Go reads it in a program: with a prefix for its base, and `_` between digits.
pub fn parse_int(text: &str, least: i64, most: i64) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits, has_prefix) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..], true),
        Some("0o") => (8, &lower[2..], true),
        Some("0b") => (2, &lower[2..], true),
        _ if lower.len() > 1 && lower.starts_with('0') => (8, &lower[1..], true),
        _ => (10, &lower[..], false),
    };
    // An underscore stands after a digit or a prefix, and before a digit.
    if digits.contains("__") || digits.ends_with('_') || (digits.starts_with('_') && !has_prefix) {
        return None;
    }
    let digits = digits.replace('_', "");
    if digits.is_empty() || digits.starts_with(['+', '-']) {
        return None;
    }
    let value = i128::from_str_radix(&digits, base).ok()?;
    let value = i64::try_from(if negative { -value } else { value }).ok()?;
    (least..=most).contains(&value).then_some(value)
}

/// A number of bytes: plain, or with a unit of 1,000 (`kB`, `MB`, `GB`) or 1,024 (`KiB`, `MiB`, `GiB`).
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..end].parse().ok()?;
    let unit = match text[end..].trim().to_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "ki" | "kib" => 1 << 10,
        "m" | "mb" => 1_000_000,
        "mi" | "mib" => 1 << 20,
        "g" | "gb" => 1_000_000_000,
        "gi" | "gib" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        let parse = |text| parse_int(text, i64::MIN, i64::MAX);
        for (text, value) in [
            ("0640", 0o640),
            ("0o640", 0o640),
            ("0x1A0", 0x1a0),
            ("0b11", 3),
            ("640", 640),
            ("0", 0),
            ("-1", -1),
            ("+7", 7),
            ("0_7", 7),
            ("1_000", 1000),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(parse(text), Some(value), "{text}");
        }
        for text in ["", "-", "08", "0x", "_1", "0__7", "7_", "1e3", " 1", "--1", "9223372036854775808"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse_int("4294967296", 0, i64::from(u32::MAX)), None);
    }

    #[test]
    fn sizes_have_units_or_not() {
        assert_eq!(parse_bytes("262144"), Some(262_144));
        assert_eq!(parse_bytes("1B"), Some(1));
        assert_eq!(parse_bytes("256KiB"), Some(256 << 10));
        assert_eq!(parse_bytes("256 kB"), Some(256_000));
        assert_eq!(parse_bytes("KiB"), None);
        assert_eq!(parse_bytes("99999999999GiB"), None);
    }

    #[test]
    fn a_setting_that_is_none_of_an_import_is_left_to_others_and_a_bad_value_is_an_error() {
        let mut options = ImportOptions::default();
        assert!(!options.set("quiet", "true").unwrap());
        assert!(options.set("raw-leaves", "FALSE").unwrap());
        assert_eq!(options.raw_leaves, Some(false));
        let error = options.set("pin", "maybe").unwrap_err().to_string();
        assert_eq!(error, "--pin=maybe: expected true or false");
    }
}
