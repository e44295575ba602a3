//! The kinds of values that settings have: how people write them, and how they are shown.
//!
//! Every source (file, environment, flag) hands over a [`Raw`]; a [`Kind`] makes the typed value of it or refuses. Showing a
//! value gives the form that the file takes, so that what is shown can be pasted.

use std::time::Duration;

/// A value as it was written: one text, or a list of texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raw {
    /// A string, a number, or a truth value.
    One(String),
    /// A list.
    Many(Vec<String>),
}

impl std::fmt::Display for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Raw::One(text) => f.write_str(text),
            Raw::Many(texts) => f.write_str(&texts.join(",")),
        }
    }
}

/// How a value looks in TOML and JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A quoted string.
    Text,
    /// A bare number or truth value.
    Bare,
    /// An array of strings.
    List,
}

/// A kind of setting.
pub trait Kind {
    /// What the code gets.
    type Value;
    /// How it looks in a file.
    const FORM: Form = Form::Text;
    /// What it takes, for people: completes "it takes …".
    const ALLOWED: &'static str;
    /// The value, where `text` is one. A list comes in element by element through [`Kind::read`].
    fn parse(text: &str) -> Option<Self::Value>;
    /// The form to show: parsing it gives the same value.
    fn show(value: &Self::Value) -> Raw;
    /// The value of what a source gave.
    fn read(raw: &Raw) -> Option<Self::Value> {
        match raw {
            Raw::One(text) => Self::parse(text.trim()),
            Raw::Many(_) => None,
        }
    }
}

/// A number of bytes.
pub struct Size;

impl Kind for Size {
    type Value = u64;
    const ALLOWED: &'static str = "a size in bytes, such as 268435456, 256MiB or 4GB";
    fn parse(text: &str) -> Option<u64> {
        parse_size(text)
    }
    fn show(value: &u64) -> Raw {
        Raw::One(format_size(*value))
    }
}

/// A number of bytes, or no bound at all (`u64::MAX`).
pub struct SizeLimit;

impl Kind for SizeLimit {
    type Value = u64;
    const ALLOWED: &'static str = "a size in bytes, such as 500GB or 2TiB, or `unlimited`";
    fn parse(text: &str) -> Option<u64> {
        if text == "unlimited" { Some(u64::MAX) } else { parse_size(text) }
    }
    fn show(value: &u64) -> Raw {
        Raw::One(if *value == u64::MAX { "unlimited".into() } else { format_size(*value) })
    }
}

/// A length of time.
pub struct Span;

impl Kind for Span {
    type Value = Duration;
    const ALLOWED: &'static str = "a length of time, such as 500ms, 60s, 5m or 1h30m";
    fn parse(text: &str) -> Option<Duration> {
        parse_span(text)
    }
    fn show(value: &Duration) -> Raw {
        Raw::One(format_span(*value))
    }
}

/// A share of a whole.
pub struct Ratio;

impl Kind for Ratio {
    type Value = f64;
    const FORM: Form = Form::Bare;
    const ALLOWED: &'static str = "a number from 0 to 1";
    fn parse(text: &str) -> Option<f64> {
        text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio))
    }
    fn show(value: &f64) -> Raw {
        Raw::One(format!("{value:?}"))
    }
}

/// How many of something; 0 lets cidfs choose.
pub struct Count;

impl Kind for Count {
    type Value = usize;
    const FORM: Form = Form::Bare;
    const ALLOWED: &'static str = "a number from 0 (cidfs chooses) to 1024";
    fn parse(text: &str) -> Option<usize> {
        text.parse().ok().filter(|count| *count <= 1024)
    }
    fn show(value: &usize) -> Raw {
        Raw::One(value.to_string())
    }
}

/// Yes or no.
pub struct Flag;

impl Kind for Flag {
    type Value = bool;
    const FORM: Form = Form::Bare;
    const ALLOWED: &'static str = "true or false";
    fn parse(text: &str) -> Option<bool> {
        match text {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        }
    }
    fn show(value: &bool) -> Raw {
        Raw::One(value.to_string())
    }
}

/// Any text.
pub struct Text;

impl Kind for Text {
    type Value = String;
    const ALLOWED: &'static str = "a text";
    fn parse(text: &str) -> Option<String> {
        Some(text.to_owned())
    }
    fn show(value: &String) -> Raw {
        Raw::One(value.clone())
    }
}

/// A list of texts. In the environment and in flags the elements stand between commas.
pub struct List;

impl Kind for List {
    type Value = Vec<String>;
    const FORM: Form = Form::List;
    const ALLOWED: &'static str = "a list (in the environment and in flags: separated by commas)";
    fn parse(text: &str) -> Option<Vec<String>> {
        Some(text.split(',').map(str::trim).filter(|element| !element.is_empty()).map(str::to_owned).collect())
    }
    fn show(value: &Vec<String>) -> Raw {
        Raw::Many(value.clone())
    }
    fn read(raw: &Raw) -> Option<Vec<String>> {
        match raw {
            Raw::One(text) => List::parse(text),
            Raw::Many(texts) => Some(texts.clone()),
        }
    }
}

/// How many of something to keep: past `high` it is brought back to `low`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// Where bringing back ends.
    pub low: usize,
    /// Where it begins.
    pub high: usize,
}

/// Two numbers, low and high.
pub struct Marks;

impl Kind for Marks {
    type Value = Watermarks;
    const ALLOWED: &'static str = "two numbers, low/high, such as 96/192, of at most 65536";
    fn parse(text: &str) -> Option<Watermarks> {
        let (low, high) = text.split_once('/')?;
        let (low, high) = (low.trim().parse().ok()?, high.trim().parse().ok()?);
        (low <= high && (1..=65_536).contains(&high)).then_some(Watermarks { low, high })
    }
    fn show(value: &Watermarks) -> Raw {
        Raw::One(format!("{}/{}", value.low, value.high))
    }
}

/// Defines a setting that is one of a few words.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident, $allowed:literal { $($(#[$vdoc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
        }

        impl $name {
            /// The word for it.
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }

        impl Kind for $name {
            type Value = $name;
            const ALLOWED: &'static str = $allowed;
            fn parse(text: &str) -> Option<$name> {
                match text { $($word => Some($name::$variant),)* _ => None }
            }
            fn show(value: &$name) -> Raw {
                Raw::One(value.word().to_owned())
            }
        }
    };
}

choice! {
    /// Which machines are asked for blocks that are not here.
    NetworkProfile, "`public`, `lan`, `private`, `peers` or `offline`" {
        /// The public network.
        Public = "public",
        /// The machines of the local network.
        Lan = "lan",
        /// The members of a private network.
        Private = "private",
        /// The peers that are named in the configuration.
        Peers = "peers",
        /// Nobody.
        Offline = "offline",
    }
}

choice! {
    /// Whether this node answers others in the DHT.
    DhtMode, "`auto`, `server`, `client` or `off`" {
        /// Where others can reach it.
        Auto = "auto",
        /// Always.
        Server = "server",
        /// Never.
        Client = "client",
        /// There is no DHT.
        Off = "off",
    }
}

choice! {
    /// What is announced to others as being here.
    Provide, "`roots`, `pinned`, `all` or `none`" {
        /// The roots of what is pinned.
        Roots = "roots",
        /// Every block of what is pinned.
        Pinned = "pinned",
        /// Every block.
        All = "all",
        /// Nothing.
        None = "none",
    }
}

choice! {
    /// What a mount is tuned for.
    MountProfile, "`training` or `serving`" {
        /// Many small files, read again and again: the kernel asks nothing that it can know.
        Training = "training",
        /// Large local files: handed to the kernel whole.
        Serving = "serving",
    }
}

choice! {
    /// The settings of an import that go by one name.
    ImportProfile, "`unixfs-v1-2025` or `unixfs-v0-2015`" {
        /// CIDv1, raw leaves, 1 MiB chunks, 1,024 links a node.
        UnixfsV1 = "unixfs-v1-2025",
        /// What kubo does by default: CIDv0, 256 KiB chunks, 174 links a node.
        UnixfsV0 = "unixfs-v0-2015",
    }
}

choice! {
    /// How log lines look.
    LogFormat, "`text` or `json`" {
        /// Lines for people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

const SIZE_UNITS: [(&str, u64); 10] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1000),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Reads a size: a number of bytes, or one with a unit of 1,000 (`kB`, `MB`, `GB`, `TB`) or 1,024 (`KiB` to `TiB`). A
/// fraction is fine where it comes to whole bytes, more or less.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number = number.replace('_', "");
    let unit = unit.trim();
    let factor = if unit.is_empty() {
        1
    } else {
        SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor)?
    };
    if number.contains('.') {
        let value = number.parse::<f64>().ok()? * factor as f64;
        return (value.is_finite() && value < 1.8e19).then_some(value as u64);
    }
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Shows a size exactly, in the largest unit of 1,024 that divides it.
pub fn format_size(bytes: u64) -> String {
    for (name, factor) in [("TiB", 1_u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes > 0 && bytes.is_multiple_of(factor) {
            return format!("{}{name}", bytes / factor);
        }
    }
    bytes.to_string()
}

/// Reads a length of time: numbers with the units `ms`, `s`, `m`, `h`, `d`, one after another. A bare number is seconds.
pub fn parse_span(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if let Ok(seconds) = rest.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return None,
        };
        rest = rest[letters..].trim_start();
        total = total.checked_add(Duration::try_from_secs_f64(number * unit).ok()?)?;
    }
    Some(total)
}

/// Shows a length of time so that [`parse_span`] reads it back, to the millisecond.
pub fn format_span(span: Duration) -> String {
    let (seconds, millis) = (span.as_secs(), span.subsec_millis());
    if millis > 0 {
        return if seconds == 0 { format!("{millis}ms") } else { format!("{seconds}s{millis}ms") };
    }
    match seconds {
        0 => "0s".into(),
        s if s.is_multiple_of(86400) => format!("{}d", s / 86400),
        s if s.is_multiple_of(3600) => format!("{}h", s / 3600),
        s if s.is_multiple_of(60) && s > 60 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("256MiB", 256 << 20),
            ("4 GiB", 4 << 30),
            ("4gib", 4 << 30),
            ("1.5GiB", 3 << 29),
            ("10kB", 10_000),
            ("2TB", 2_000_000_000_000),
            ("1_000", 1000),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "4XB", "4 G", "99999999TiB", "1e9"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn spans_read_as_people_write_them() {
        for (text, millis) in
            [("60s", 60_000), ("60", 60_000), ("500ms", 500), ("5m", 300_000), ("1h30m", 5_400_000), ("1.5s", 1500)]
        {
            assert_eq!(parse_span(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "5 parsecs", "-1s", "60sec"] {
            assert_eq!(parse_span(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_size_that_is_shown_reads_back(bytes: u64) {
            prop_assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
        }

        #[test]
        fn a_span_that_is_shown_reads_back(millis in 0_u64..1_000_000_000_000) {
            let span = Duration::from_millis(millis);
            prop_assert_eq!(parse_span(&format_span(span)), Some(span));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text: String) {
            let _ = (parse_size(&text), parse_span(&text));
        }
    }
}
