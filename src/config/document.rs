//! The settings as documents: the file of a new repository, edits of a file that keep its comments, and the manual.

use std::fmt::Write;

use toml_edit::{Array, DocumentMut, Item, Table, Value};

use super::keys::SECTIONS;
use super::kind::Form;
use super::load::{check, find};
use super::{ConfigError, KEYS, Key, Raw};

/// The file of a new repository: every setting with its meaning and its default, none of them set.
pub fn default_file() -> String {
    let mut text = String::from(
        "# The settings of this cidfs repository. Each is shown with its default: take away the # to change it.\n\
         # `cidfs config show` says which values are in force and where each came from.\n",
    );
    for (section, doc) in SECTIONS {
        let _ = write!(text, "\n# {}\n[{section}]\n", one_line(doc));
        for key in KEYS.iter().filter(|key| key.section == *section) {
            for line in key.doc.lines() {
                let _ = writeln!(text, "# {}", line.trim());
            }
            let _ = writeln!(text, "# Takes {}.\n#{} = {}", key.allowed, key.key, default_value(key));
        }
    }
    text
}

/// The chapter of the manual: a table a section.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Settings\n\n\
         <!-- Made from src/config/keys.rs by `cidfs generate configuration`. Change it there. -->\n\n\
         Every setting can be given in four places. A later one wins over an earlier one:\n\n\
         1. its default;\n\
         2. the file `config.toml` in the repository (`$CIDFS_PATH`, else `$XDG_DATA_HOME/cidfs`, else\n   \
         `~/.local/share/cidfs`), written with every setting and its meaning when the repository is made;\n\
         3. the environment: `CIDFS_<SECTION>_<KEY>`, a list separated by commas;\n\
         4. the flag `-c section.key=value` of any verb, and the flags of a verb that have a meaning of their own.\n\n\
         `cidfs config show` prints each value and where it came from, `cidfs config get KEY` one value, and\n\
         `cidfs config set KEY VALUE` changes the file and keeps its comments. A key that does not exist, or a value that is\n\
         not allowed, is an error that names the place. A running daemon keeps the settings it was started with: restart it\n\
         after a change. The settings of `import` and `mount` are those of the verb that asks, so that\n\
         `CIDFS_IMPORT_PROFILE=unixfs-v0-2015 cidfs add` means the same with a daemon and without.\n\n\
         Sizes are bytes, with the units `kB MB GB TB` (1,000) or `KiB MiB GiB TiB` (1,024). Lengths of time have the units\n\
         `ms s m h d`.\n",
    );
    for (section, doc) in SECTIONS {
        let _ = write!(
            text,
            "\n## {section}\n\n{}\n\n| key | default | variable | what it is |\n|---|---|---|---|\n",
            one_line(doc)
        );
        for key in KEYS.iter().filter(|key| key.section == *section) {
            let _ = writeln!(
                text,
                "| `{}` | `{}` | `{}` | {} Takes {}. |",
                key.path(),
                default_value(key),
                key.variable(),
                one_line(key.doc),
                key.allowed
            );
        }
    }
    text
}

/// The text of a settings file with `path` (`section.key`) set to `value`, everything else as it was. `None` takes the key
/// out, so that the default rules again. `file` names the file in errors.
pub fn edit(file: &str, text: &str, path: &str, value: Option<&str>) -> Result<String, ConfigError> {
    let key = find(path, "config set")?;
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| ConfigError::Syntax {
        path: file.to_owned(),
        why: error.to_string().trim().to_owned(),
    })?;
    let section = document.entry(key.section).or_insert_with(|| Item::Table(Table::new()));
    let Some(table) = section.as_table_like_mut() else {
        return Err(ConfigError::Syntax { path: file.to_owned(), why: format!("`{}` is not a table", key.section) });
    };
    match value {
        None => {
            table.remove(key.key);
        }
        Some(value) => {
            let new = to_toml(key, &check(key, &Raw::One(value.to_owned()), "config set")?);
            match table.get_mut(key.key).and_then(Item::as_value_mut) {
                Some(old) => {
                    let decor = old.decor().clone();
                    *old = new;
                    *old.decor_mut() = decor;
                }
                None => {
                    table.insert(key.key, Item::Value(new));
                }
            }
        }
    }
    Ok(document.to_string())
}

fn to_toml(key: &Key, raw: &Raw) -> Value {
    match (key.form, raw) {
        (Form::List, Raw::Many(texts)) => Value::Array(texts.iter().collect::<Array>()),
        (Form::Bare, Raw::One(text)) => text.parse().unwrap_or_else(|_| Value::from(text.as_str())),
        (_, raw) => Value::from(raw.to_string()),
    }
}

fn default_value(key: &Key) -> String {
    let raw = Raw::One(key.default.to_owned());
    to_toml(key, &(key.canonical)(&raw).unwrap_or(raw)).to_string().trim().to_owned()
}

fn one_line(doc: &str) -> String {
    doc.split_whitespace().collect::<Vec<_>>().join(" ")
}
