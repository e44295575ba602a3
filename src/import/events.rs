//! What an import tells while it runs.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::node::{Link, Metadata};
use super::sources::join;
use crate::block::{Cid, CidForm};
use crate::dag::unixfs::Mtime;

/// Something that happened. As JSON it travels from a daemon to a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// What the scan that runs ahead has found so far.
    Totals {
        /// Files and symbolic links.
        files: u64,
        /// Bytes of files.
        bytes: u64,
    },
    /// A part of a large file was kept.
    Progress {
        /// The file's path from its root.
        path: EntryPath,
        /// The bytes of it that are kept.
        bytes: u64,
    },
    /// A file, directory or symbolic link was kept.
    Added(AddedEntry),
}

/// A file, directory or symbolic link that was added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedEntry {
    /// Its path from its root, which it begins with. Empty for the directory of `--wrap-with-directory`; the CID as text
    /// for a file without a name.
    pub path: EntryPath,
    /// Its CID.
    pub cid: Cid,
    /// The bytes of all of its blocks.
    pub dag_bytes: u64,
    /// The bytes of the file: 0 for anything else.
    pub file_bytes: u64,
    /// Whether it is a directory.
    pub directory: bool,
    /// The mode that is stored with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// The time of last change that is stored with it: seconds since 1970, and nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtime: Option<(i64, u32)>,
}

/// A path of any bytes. As JSON it is a string where it is UTF-8, and a list of bytes where not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "PathText", into = "PathText")]
pub struct EntryPath(pub Vec<u8>);

impl std::ops::Deref for EntryPath {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PathText {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<PathText> for EntryPath {
    fn from(path: PathText) -> EntryPath {
        match path {
            PathText::Text(text) => EntryPath(text.into_bytes()),
            PathText::Bytes(bytes) => EntryPath(bytes),
        }
    }
}

impl From<EntryPath> for PathText {
    fn from(path: EntryPath) -> PathText {
        String::from_utf8(path.0).map_or_else(|error| PathText::Bytes(error.into_bytes()), PathText::Text)
    }
}

/// An event in kubo's form, as the RPC API streams it and `cidfs add --json` prints it. Fields that say nothing are
/// left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct KuboEvent {
    /// The entry's path, with a replacement character for what is not UTF-8.
    pub name: String,
    /// The CID, once the entry is complete.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// How much of a file was read, before it is complete.
    #[serde(skip_serializing_if = "is_zero")]
    pub bytes: u64,
    /// The bytes of all blocks, as text.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub size: String,
    /// The mode in octal, with a leading 0.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mode: String,
    /// The time of last change in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtime: Option<i64>,
    /// Its nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtime_nsecs: Option<u32>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks by reference.
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Turns events into what kubo tells of them.
#[derive(Debug)]
pub struct KuboLines {
    progress: bool,
    form: CidForm,
    /// The file whose bytes were told of last, and how many.
    told: (EntryPath, u64),
}

impl KuboLines {
    /// With `progress`, how much of each file was read is told too.
    pub fn new(progress: bool, form: CidForm) -> KuboLines {
        KuboLines { progress, form, told: (EntryPath::default(), 0) }
    }

    /// What kubo tells of this event.
    pub fn of(&mut self, event: &Event) -> Vec<KuboEvent> {
        match event {
            Event::Progress { path, bytes } => Vec::from_iter(self.read(path, *bytes)),
            Event::Totals { .. } => Vec::new(),
            Event::Added(entry) => {
                let mut lines = Vec::from_iter(self.read(&entry.path, entry.file_bytes));
                self.told = (EntryPath::default(), 0);
                lines.push(KuboEvent {
                    name: name(&entry.path),
                    hash: self.form.text(&entry.cid),
                    bytes: 0,
                    size: entry.dag_bytes.to_string(),
                    mode: entry.mode.filter(|mode| *mode != 0).map_or_else(String::new, |mode| format!("0{mode:o}")),
                    mtime: entry.mtime.map(|(seconds, _)| seconds),
                    mtime_nsecs: entry.mtime.map(|(_, nanoseconds)| nanoseconds).filter(|nanoseconds| *nanoseconds > 0),
                });
                lines
            }
        }
    }

    /// So much of a file was read: said once.
    fn read(&mut self, path: &EntryPath, bytes: u64) -> Option<KuboEvent> {
        // A file without a name gets one when it is complete.
        let is_told = self.told.1 == bytes && (self.told.0 == *path || self.told.0.is_empty());
        if !self.progress || bytes == 0 || is_told {
            return None;
        }
        self.told = (path.clone(), bytes);
        Some(KuboEvent { name: name(path), bytes, ..KuboEvent::default() })
    }
}

fn name(path: &EntryPath) -> String {
    String::from_utf8_lossy(&path.0).into_owned()
}

/// Takes the events of an import, on the thread that runs it.
pub trait Progress {
    /// Takes an event. [`ControlFlow::Break`] stops the import: nothing is pinned then.
    fn event(&mut self, event: Event) -> ControlFlow<()>;

    /// Whether [`Event::Totals`] are wanted, which cost a second walk.
    fn wants_totals(&self) -> bool {
        false
    }
}

/// Ignores all events.
impl Progress for () {
    fn event(&mut self, _event: Event) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

impl<F: FnMut(Event) -> ControlFlow<()>> Progress for F {
    fn event(&mut self, event: Event) -> ControlFlow<()> {
        self(event)
    }
}

impl AddedEntry {
    pub(super) fn new(path: Vec<u8>, link: &Link, metadata: Metadata, directory: bool) -> AddedEntry {
        AddedEntry {
            path: EntryPath(path),
            cid: link.cid.clone(),
            dag_bytes: link.dag_bytes,
            file_bytes: link.file_bytes,
            directory,
            mode: metadata.mode,
            mtime: metadata.mtime.map(|Mtime { seconds, nanoseconds }| (seconds, nanoseconds)),
        }
    }
}

/// A directory that was kept, until it is told: kubo tells directories after all files of their root.
pub(super) struct Listing {
    pub name: Vec<u8>,
    pub link: Link,
    pub metadata: Metadata,
    /// The directories in it, in the order of its links.
    pub children: Vec<Listing>,
}

impl Listing {
    /// The entries of this directory and all below it, children first.
    pub fn into_entries(self) -> impl Iterator<Item = AddedEntry> {
        // Each frame: the directory's own entry, and its children that are still to be told.
        let mut path = vec![(self.name.clone(), self)].into_iter().map(Frame::new).collect::<Vec<_>>();
        std::iter::from_fn(move || {
            loop {
                let frame = path.last_mut()?;
                let Some(child) = frame.children.next() else {
                    return path.pop().map(|frame| frame.entry);
                };
                let below = join(&[&frame.entry.path.0, &child.name]);
                path.push(Frame::new((below, child)));
            }
        })
    }
}

struct Frame {
    entry: AddedEntry,
    children: std::vec::IntoIter<Listing>,
}

impl Frame {
    fn new((path, listing): (Vec<u8>, Listing)) -> Frame {
        let entry = AddedEntry::new(path, &listing.link, listing.metadata, true);
        Frame { entry, children: listing.children.into_iter() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &[u8]) -> AddedEntry {
        AddedEntry {
            path: EntryPath(path.to_vec()),
            cid: "bafkqaaa".parse().unwrap(),
            dag_bytes: 7,
            file_bytes: 3,
            directory: false,
            mode: Some(0o644),
            mtime: Some((-1, 0)),
        }
    }

    #[test]
    fn events_travel_as_json_whatever_bytes_a_path_has() {
        for path in [&b"a/\xff"[..], b"a/\xff\xfe", "caf\u{e9}".as_bytes(), b""] {
            let event = Event::Added(entry(path));
            let text = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event, "{text}");
        }
    }

    fn told(lines: &mut KuboLines, event: &Event) -> Vec<String> {
        lines.of(event).iter().map(|event| serde_json::to_string(event).unwrap()).collect()
    }

    #[test]
    fn kubo_is_told_what_it_tells() {
        let mut lines = KuboLines::new(true, CidForm::default());
        let added = r#"{"Name":"d/f","Hash":"bafkqaaa","Size":"7","Mode":"0644","Mtime":-1}"#;
        assert_eq!(told(&mut lines, &Event::Added(entry(b"d/f"))), [r#"{"Name":"d/f","Bytes":3}"#, added]);
        // What was told already is not told again, and directories and links have no bytes.
        let progress = Event::Progress { path: EntryPath(b"d/g".to_vec()), bytes: 3 };
        assert_eq!(told(&mut lines, &progress), [r#"{"Name":"d/g","Bytes":3}"#]);
        assert_eq!(told(&mut lines, &Event::Added(entry(b"d/g"))).len(), 1);
        let empty = AddedEntry { file_bytes: 0, mode: Some(0), mtime: None, ..entry(b"d") };
        assert_eq!(told(&mut lines, &Event::Added(empty)), [r#"{"Name":"d","Hash":"bafkqaaa","Size":"7"}"#]);
        let mut quiet = KuboLines::new(false, CidForm::default());
        assert_eq!(told(&mut quiet, &progress), <[&str; 0]>::default());
        assert_eq!(told(&mut quiet, &Event::Added(entry(b"d/f"))), [added]);
    }
}
