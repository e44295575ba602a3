//! What the settings promise, over all their sources.

use std::path::Path;

use super::*;

fn load(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    std::fs::write(&path, file).unwrap();
    let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
    };
    Settings::load(&path, owned(environment), &owned(flags))
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let file = "[store]\nram_bytes = \"1MiB\"\ndisk_bytes = 5_000\nfree_ratio = 0.2\n";
    let environment = [("CIDFS_STORE_RAM_BYTES", "2MiB"), ("CIDFS_STORE_DISK_BYTES", "6000"), ("CIDFS_PATH", "/x")];
    let settings = load(file, &environment, &[("-c", "store.ram_bytes=3MiB")]).unwrap();
    let store = &settings.config().store;
    assert_eq!((store.ram_bytes, store.disk_bytes, store.segment_bytes), (3 << 20, 6000, 256 << 20));
    assert!((store.free_ratio - 0.2).abs() < 1e-9);
    let source = |key| settings.get(key).unwrap().source.to_string();
    assert_eq!(source("store.ram_bytes"), "flag -c");
    assert_eq!(source("store.disk_bytes"), "environment CIDFS_STORE_DISK_BYTES");
    assert!(source("store.free_ratio").ends_with("config.toml:4"), "{}", source("store.free_ratio"));
    assert_eq!(source("store.segment_bytes"), "default");
    assert!(settings.warnings().is_empty());
}

#[test]
fn a_missing_file_is_the_defaults() {
    let settings = Settings::load(Path::new("/nonexistent/config.toml"), [], &[]).unwrap();
    assert!(settings.iter().all(|setting| setting.source == Source::Default));
    assert_eq!(settings.iter().count(), KEYS.len());
}

#[test]
fn lists_come_as_arrays_and_with_commas() {
    let settings = load("[api]\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n", &[], &[]).unwrap();
    assert_eq!(settings.config().api.listen, ["127.0.0.1:1", "127.0.0.1:2"]);
    let settings = load("", &[("CIDFS_NETWORK_LISTEN", "/ip4/127.0.0.1/tcp/1, /ip4/127.0.0.1/tcp/2")], &[]).unwrap();
    assert_eq!(settings.config().network.listen, ["/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/tcp/2"]);
}

#[test]
fn every_error_names_the_place_and_what_is_allowed() {
    let message =
        |file: &str, env: &[(&str, &str)], flags: &[(&str, &str)]| load(file, env, flags).unwrap_err().to_string();
    let text = message("\n[store]\nram_byte = 1\n", &[], &[]);
    assert!(
        text.contains("config.toml:3") && text.contains("`store.ram_byte`") && text.contains("ram_bytes"),
        "{text}"
    );
    let text = message("[mount]\nprofile = \"fast\"\n", &[], &[]);
    assert!(text.contains("config.toml:2") && text.contains("`fast`") && text.contains("`training`"), "{text}");
    let text = message("[stores]\nram_bytes = 1\n", &[], &[]);
    assert!(text.contains("store.ram_bytes"), "{text}");
    let text = message("[store\n", &[], &[]);
    assert!(text.contains("config.toml is not valid TOML") && text.contains("line 1"), "{text}");
    let text = message("[store]\nram_bytes = {}\n", &[], &[]);
    assert!(text.contains("config.toml:2"), "{text}");
    let text = message("", &[("CIDFS_FETCH_TIMEOUT", "soon")], &[]);
    assert!(text.contains("CIDFS_FETCH_TIMEOUT") && text.contains("60s"), "{text}");
    let text = message("", &[("CIDFS_STORE_RAM", "1")], &[]);
    assert!(text.contains("CIDFS_STORE_RAM") && text.contains("ram_bytes"), "{text}");
    let text = message("", &[], &[("-c", "store.ram_bytes")]);
    assert!(text.contains("section.key=value"), "{text}");
}

#[test]
fn a_variable_of_no_section_is_a_warning() {
    let settings = load("", &[("CIDFS_RAM", "1")], &[]).unwrap();
    assert!(settings.warnings()[0].contains("CIDFS_RAM"));
}

#[test]
fn the_default_file_sets_nothing_and_each_of_its_lines_is_valid() {
    assert!(load(&default_file(), &[], &[]).unwrap().iter().all(|setting| setting.source == Source::Default));
    let live: String = default_file()
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
        .fold(String::new(), |text, line| text + line + "\n");
    let settings = load(&live, &[], &[]).unwrap();
    for setting in settings.iter() {
        assert!(matches!(setting.source, Source::File { .. }), "{}", setting.key.path());
        let default = (setting.key.canonical)(&Raw::One(setting.key.default.to_owned())).unwrap();
        assert_eq!(setting.value, default, "{}", setting.key.path());
    }
}

#[test]
fn an_edit_keeps_comments_and_order_and_can_be_taken_back() {
    let text = "# mine\n[store]\nram_bytes = \"1MiB\" # small\n\n[log]\n# why\nfilter = \"debug\"\n";
    let edited = edit("f", text, "store.ram_bytes", Some("2MiB")).unwrap();
    assert_eq!(edited, text.replace("1MiB", "2MiB"));
    let edited = edit("f", &edited, "store.free_ratio", Some("0.1")).unwrap();
    assert!(edited.contains("free_ratio = 0.1") && edited.contains("# why"), "{edited}");
    let edited = edit("f", &edited, "api.listen", Some("127.0.0.1:1,[::1]:2")).unwrap();
    assert!(edited.contains("[api]\nlisten = [\"127.0.0.1:1\", \"[::1]:2\"]"), "{edited}");
    let edited = edit("f", &edited, "store.ram_bytes", None).unwrap();
    assert!(!edited.contains("ram_bytes"), "{edited}");
    assert!(load(&edited, &[], &[]).is_ok());
    assert!(edit("f", "", "store.free_ratio", Some("2")).is_err());
}

#[test]
fn a_setting_of_the_default_file_is_set_in_its_section() {
    for key in KEYS {
        let edited = edit("f", &default_file(), &key.path(), Some(key.default)).unwrap();
        let settings = load(&edited, &[], &[]).unwrap();
        assert!(matches!(settings.get(&key.path()).unwrap().source, Source::File { .. }), "{}", key.path());
    }
}

#[test]
fn what_is_live_follows_the_file_and_the_rest_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.toml");
    std::fs::write(&path, "[fetch]\nmax_upload_bytes = 1000\n").unwrap();
    let environment = [("CIDFS_STORE_RAM_BYTES".to_owned(), "2MiB".to_owned())];
    let mut settings = Settings::load(&path, environment, &[]).unwrap();
    assert_eq!(settings.reload(&path).unwrap(), []);
    let text = "[fetch]\nmax_upload_bytes = 2000\ntimeout = \"5m\"\n[store]\nram_bytes = \"9MiB\"\n";
    std::fs::write(&path, text).unwrap();
    let change = |key: &str, applied| Change { key: key.to_owned(), applied };
    let mut changes = settings.reload(&path).unwrap();
    changes.sort_by(|one, other| one.key.cmp(&other.key));
    // What the environment says stands.
    assert_eq!(changes, [change("fetch.max_upload_bytes", true), change("fetch.timeout", false)]);
    let config = settings.config();
    assert_eq!((config.fetch.max_upload_bytes, config.store.ram_bytes), (2000, 2 << 20));
    assert_eq!(config.fetch.timeout, std::time::Duration::from_mins(1));
    assert_eq!(settings.get("fetch.max_upload_bytes").unwrap().value, Raw::One("2000".into()));
    // A file that is no good changes nothing.
    std::fs::write(&path, "[fetch]\nmax_upload_bytes = \"much\"\n").unwrap();
    assert!(settings.reload(&path).is_err());
    assert_eq!(settings.config().fetch.max_upload_bytes, 2000);
    std::fs::write(&path, "").unwrap();
    settings.reload(&path).unwrap();
    assert_eq!(settings.config().fetch.max_upload_bytes, 0);
    assert_eq!(settings.get("fetch.max_upload_bytes").unwrap().source, Source::Default);
}
