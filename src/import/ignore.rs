//! What is left out below the given paths: hidden files, and what rules in the style of `.gitignore` name.
//!
//! The rules are kubo's, which are not git's: each is matched against the name of an entry alone, never against its
//! path, `?` stands for itself, and a rule that is no regular expression after translation is passed over.

use regex::Regex;

/// What a walk leaves out.
#[derive(Debug, Default)]
pub(super) struct Filter {
    hidden: bool,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    pattern: Regex,
    /// The rule brings back what one before it left out.
    negated: bool,
}

impl Filter {
    /// Leaves out what `rules` name, and names that begin with a dot unless `hidden` files are wanted.
    pub fn new(hidden: bool, rules: &[String]) -> Filter {
        Filter { hidden, rules: rules.iter().filter_map(|line| Rule::parse(line)).collect() }
    }

    /// Whether an entry of this name is left out.
    pub fn excludes(&self, name: &[u8]) -> bool {
        if !self.hidden && name.first() == Some(&b'.') {
            return true;
        }
        if self.rules.is_empty() {
            return false;
        }
        let name = text(name);
        self.rules.iter().fold(
            false,
            |excluded, rule| {
                if rule.pattern.is_match(&name) { !rule.negated } else { excluded }
            },
        )
    }
}

/// The name as kubo's matcher sees it: each byte that is not part of UTF-8 is one replacement character.
fn text(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    text
}

/// Stands for a star that is part of a regular expression until the stars of the rule are translated.
const STAR: &str = "#$~";

impl Rule {
    fn parse(line: &str) -> Option<Rule> {
        let line = line.trim_end_matches('\r');
        if line.starts_with('#') {
            return None;
        }
        let line = line.trim_matches(' ');
        if line.is_empty() {
            return None;
        }
        let (negated, line) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest));
        let line = line.strip_prefix(['#', '!']).unwrap_or(line);
        let mut line = line.to_owned();
        if names_files_below_a_directory(&line) && !line.starts_with('/') {
            line.insert(0, '/');
        }
        line = line.replace('.', r"\.");
        if line.starts_with("/**/") {
            line.remove(0);
        }
        line = line.replace("/**/", "(/|/.+/)");
        line = line.replace("**/", &format!("(|.{STAR}/)"));
        line = line.replace("/**", &format!("(|/.{STAR})"));
        line = line.replace(r"\*", &format!(r"\{STAR}"));
        line = line.replace('*', "([^/]*)");
        line = line.replace('?', r"\?");
        line = line.replace(STAR, "*");
        line.push_str(if line.ends_with('/') { "(|.*)$" } else { "(|/.*)$" });
        let pattern = match line.strip_prefix('/') {
            Some(rest) => format!("^(|/){rest}"),
            None => format!("^(|.*/){line}"),
        };
        Regex::new(&pattern).ok().map(|pattern| Rule { pattern, negated })
    }
}

/// Whether the rule is like `directory/*.ending`: a character that is neither `/` nor `+`, then `/`, and `*.` after it.
fn names_files_below_a_directory(line: &str) -> bool {
    line.match_indices('/').any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let below = line[at + 1..].split('\n').next().unwrap_or_default();
        before.is_some_and(|character| character != '/' && character != '+') && below.contains("*.")
    })
}
