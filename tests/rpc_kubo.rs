//! The Kubo RPC API against what kubo 0.43 itself answered.
//!
//! `vectors/kubo_rpc.json` has calls in order, and the answers of a kubo that ran offline on an empty repository: status,
//! headers and body. cidfs must answer alike; the words of errors are its own.

#[path = "cli/fixture.rs"]
mod fixture;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use fixture::{Answer, Fixture, exchange, http};
use serde_json::Value;

const BOUNDARY: &str = "----cidfs-test";

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value[name].as_str()
}

fn multipart(parts: &Value) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts.as_array().unwrap() {
        let name = text(part, "name").unwrap_or("file");
        let filename = text(part, "filename").unwrap();
        let kind = text(part, "type").unwrap_or("application/octet-stream");
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"{filename}\"\r\n\
             Content-Type: {kind}\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        match text(part, "hex") {
            Some(hex) => body.extend(unhex(hex)),
            None => body.extend_from_slice(text(part, "text").unwrap().as_bytes()),
        }
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

fn lines(body: &str) -> Vec<Value> {
    body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A value with its shape alone: names of fields and kinds of values.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(map) => map.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        Value::String(_) => "text".into(),
        Value::Number(_) => "number".into(),
        other => other.clone(),
    }
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.head.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}

#[test]
fn answers_are_those_of_kubo() {
    let fixture = Fixture::new();
    let _daemon = fixture.daemon(&[]);
    let socket = fixture.repository().join("api.sock");
    let steps: Vec<Value> = serde_json::from_str(include_str!("vectors/kubo_rpc.json")).unwrap();
    let mut wrong = Vec::new();
    for step in &steps {
        let path = text(step, "path").unwrap();
        let (headers, body) = match step.get("parts") {
            Some(parts) => (format!("Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n"), multipart(parts)),
            None => (String::new(), Vec::new()),
        };
        let answer = http(&socket, "POST", &format!("/api/v0/{path}"), &headers, &body);
        let kept = text(step, "body").unwrap_or_default();
        let mut differs = |what: &str, ours: String, kubos: String| {
            if ours != kubos {
                wrong.push(format!("{path}: {what}\n  ours: {ours}\n  kubo: {kubos}"));
            }
        };
        differs("status", answer.status.to_string(), step["status"].to_string());
        for (name, value) in step["headers"].as_object().unwrap() {
            // Figures for a progress bar: kubo has one where we have none for a tar of a directory.
            differs(name, header(&answer, name).unwrap_or_default().to_owned(), value.as_str().unwrap().to_owned());
        }
        if answer.status != step["status"] {
            continue;
        }
        let show = |values: Vec<Value>| values.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n        ");
        match text(step, "mode").unwrap() {
            "lines" => differs("body", show(lines(&answer.text())), show(lines(kept))),
            "set" => {
                let sorted = |body: &str| {
                    let mut lines: Vec<String> = lines(body).iter().map(ToString::to_string).collect();
                    lines.sort();
                    lines.join("\n        ")
                };
                differs("body", sorted(&answer.text()), sorted(kept));
            }
            "keys" | "error" => {
                let first = |body: &str| shape(&lines(body)[0]).to_string();
                differs("shape", first(&answer.text()), first(kept));
            }
            "bytes" => {
                let expected = unhex(text(step, "hex").unwrap());
                differs("bytes", format!("{:?}", answer.body), format!("{expected:?}"));
            }
            "text" => differs("text", answer.text().trim().to_owned(), kept.trim().to_owned()),
            other => panic!("unknown mode {other}"),
        }
    }
    assert!(wrong.is_empty(), "{} of {} calls differ:\n{}", wrong.len(), steps.len(), wrong.join("\n"));
}

#[test]
fn the_rules_of_the_api_hold_on_tcp_too() {
    let fixture = Fixture::new();
    let daemon = fixture.daemon(&["-c", "api.listen=127.0.0.1:0"]);
    let line = daemon.lines.iter().find(|line| line.contains("served on TCP")).unwrap();
    let address = line.split("address=").nth(1).unwrap().trim().trim_matches('"').to_owned();
    let call = |method: &str, path: &str, headers: &str| {
        exchange(TcpStream::connect(&address).unwrap(), method, path, headers, b"")
    };
    assert_eq!(call("POST", "/api/v0/version", "").status, 200);
    assert_eq!(call("GET", "/api/v0/version", "").status, 405);
    assert_eq!(call("OPTIONS", "/api/v0/version", "").status, 204);
    for headers in
        ["Origin: http://localhost\r\n", "Referer: http://localhost/\r\n", "User-Agent: Mozilla/5.0 (X11)\r\n"]
    {
        assert_eq!(call("POST", "/api/v0/version", headers).status, 403, "{headers}");
    }
    assert_eq!(call("POST", "/api/v0/cidfs/add", "").status, 404, "files of this machine are for its owner");
    assert_eq!(call("POST", "/api/v0/pin/ls?timeout=soon", "").status, 400);
    let metrics = call("GET", "/metrics", "");
    assert!(metrics.status == 200 && metrics.text().contains("cidfs_healthy 1"), "{}", metrics.text());
}

/// Sends the parts to `path` of the API.
fn upload(socket: &std::path::Path, path: &str, parts: &Value) -> Answer {
    let headers = format!("Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n");
    http(socket, "POST", &format!("/api/v0/{path}"), &headers, &multipart(parts))
}

#[test]
fn hidden_files_that_a_client_sends_are_added() {
    let fixture = Fixture::new();
    let _daemon = fixture.daemon(&[]);
    let socket = fixture.repository().join("api.sock");
    let parts = serde_json::json!([
        { "filename": "d", "type": "application/x-directory", "text": "" },
        { "filename": "d%2F.hidden", "text": "secret\n" },
        { "filename": "d%2F.below", "type": "application/x-directory", "text": "" },
        { "filename": "d%2F.below%2Fa.txt", "text": "hello\n" },
    ]);
    // Also where the client sends the flags by which it chose, as kubo's own command does.
    for flags in ["", "&hidden=false&ignore=a.txt"] {
        let told = lines(&upload(&socket, &format!("add?cid-version=1&progress=true{flags}"), &parts).text());
        let names: Vec<&str> =
            told.iter().filter(|line| line["Hash"].is_string()).map(|line| text(line, "Name").unwrap()).collect();
        assert_eq!(names, ["d/.below/a.txt", "d/.hidden", "d/.below", "d"], "{flags}");
        assert!(told.iter().any(|line| *line == serde_json::json!({ "Name": "d/.hidden", "Bytes": 7 })), "{told:?}");
        let root = text(told.last().unwrap(), "Hash").unwrap();
        assert_eq!(fixture.run(&["cat", &format!("{root}/.hidden")]), "secret\n");
    }
}

#[test]
fn a_pin_of_what_is_put_is_of_all_that_it_links_to() {
    let fixture = Fixture::new();
    let _daemon = fixture.daemon(&[]);
    let socket = fixture.repository().join("api.sock");
    let absent = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvya4";
    let node = |cid: &str| serde_json::json!([{ "filename": "x", "text": format!("{{\"l\":{{\"/\":\"{cid}\"}}}}") }]);
    for put in ["block/put?cid-codec=dag-json&pin=true", "dag/put?store-codec=dag-json&pin=true"] {
        let answer = upload(&socket, put, &node(absent));
        assert_eq!(answer.status, 500, "{put}: {}", answer.text());
        assert!(answer.text().contains(absent), "{put}: {}", answer.text());
        assert_eq!(fixture.run(&["pin", "ls"]), "", "{put}");
        let leaf = upload(&socket, "block/put", &serde_json::json!([{ "filename": "x", "text": put }]));
        let leaf = text(&lines(&leaf.text())[0], "Key").unwrap().to_owned();
        let answer = upload(&socket, put, &node(&leaf));
        assert_eq!(answer.status, 200, "{put}: {}", answer.text());
        assert!(fixture.run(&["pin", "ls", "-t", "indirect"]).contains(&leaf));
        let pin = fixture.run(&["pin", "ls", "-q"]);
        fixture.run(&["pin", "rm", pin.trim()]);
    }
}

#[test]
fn get_gc_and_verify_answer_in_kubo_s_form() {
    let fixture = Fixture::new();
    let root = fixture.add_tree();
    let _daemon = fixture.daemon(&[]);
    let socket = fixture.repository().join("api.sock");
    let call = |path: &str| http(&socket, "POST", &format!("/api/v0/{path}"), "", b"");
    // A tar of a directory, of a file, and a file as it is, gzipped.
    for (path, kind, begins) in [
        (format!("get?arg={root}/sub&archive=true"), "application/x-tar", "sub"),
        (format!("get?arg={root}/a.txt"), "application/x-tar", "a.txt"),
        (format!("get?arg={root}/a.txt&compress=true"), "application/gzip", "\u{1f}"),
    ] {
        let answer = call(&path);
        assert_eq!((answer.status, header(&answer, "Content-Type")), (200, Some(kind)), "{path}");
        assert_eq!(header(&answer, "X-Stream-Output"), Some("1"), "{path}");
        assert!(answer.body.starts_with(begins.as_bytes()), "{path}: {:?}", &answer.body[..8]);
    }
    let tar = call(&format!("get?arg={root}"));
    let mut list = std::process::Command::new("tar")
        .arg("t")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    list.stdin.take().unwrap().write_all(&tar.body).unwrap();
    let listed = String::from_utf8(list.wait_with_output().unwrap().stdout).unwrap();
    let expected = ["", "/a.txt", "/empty", "/link", "/sub", "/sub/b.txt", "/sub/deep", "/sub/deep/large.bin"];
    let names: Vec<&str> = listed.lines().map(|line| line.trim_end_matches('/').strip_prefix(&root).unwrap()).collect();
    assert_eq!(names, expected);
    // What is removed is told block by block, as a CID in kubo's form of JSON.
    let loose = upload(
        &socket,
        "add?pin=false&raw-leaves=true&cid-version=1",
        &serde_json::json!([{ "filename": "x", "text": "loose" }]),
    );
    let loose = text(&lines(&loose.text())[0], "Hash").unwrap().to_owned();
    assert_eq!(lines(&call("repo/gc").text()), [serde_json::json!({ "Key": { "/": loose } })]);
    upload(&socket, "add?pin=false", &serde_json::json!([{ "filename": "x", "text": "loose too" }]));
    assert_eq!(lines(&call("repo/gc?silent=true").text()), <[Value; 0]>::default());
    assert_eq!(lines(&call("repo/gc").text()), <[Value; 0]>::default(), "it did so silently");
    let told = lines(&call("repo/verify").text());
    let (end, progress) = told.split_last().unwrap();
    assert_eq!(*end, serde_json::json!({ "Msg": "verify complete, all blocks validated.", "Progress": 0 }));
    assert!(progress.iter().all(|line| line["Msg"] == "" && line["Progress"].as_u64() > Some(0)), "{progress:?}");
}

#[test]
fn answers_that_nobody_reads_hold_up_no_other() {
    let fixture = Fixture::new();
    let bytes: Vec<u8> = (0..2_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let root = String::from_utf8(fixture.pipe(&["add", "-Q", "--chunker=size-1000", "-"], &bytes)).unwrap();
    let root = root.trim();
    let _daemon = fixture.daemon(&[]);
    let socket = fixture.repository().join("api.sock");
    let calls = [
        format!("dag/stat?arg={root}"),
        format!("pin/add?arg={root}&progress=true"),
        format!("refs?arg={root}&recursive=true"),
        format!("dag/export?arg={root}"),
        format!("cat?arg={root}"),
    ];
    // More of them than the daemon has workers, each with more to say than fits into a socket.
    let unread: Vec<UnixStream> = calls
        .iter()
        .chain(&calls)
        .map(|call| {
            let mut stream = UnixStream::connect(&socket).unwrap();
            let head = format!(
                "POST /api/v0/{call} HTTP/1.1\r\nHost: cidfs\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
            // Its answer has begun.
            stream.read_exact(&mut [0; 12]).unwrap_or_else(|error| panic!("{call}: {error}"));
            stream
        })
        .collect();
    for _ in 0..20 {
        let stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        assert_eq!(exchange(stream, "POST", "/api/v0/version", "", b"").status, 200);
        let stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
        assert_eq!(exchange(stream, "POST", &format!("/api/v0/block/stat?arg={root}"), "", b"").status, 200);
    }
    for (mut stream, call) in unread.into_iter().zip(calls.iter().cycle()) {
        let mut rest = Vec::new();
        let read = stream.read_to_end(&mut rest);
        assert!(
            read.is_ok(),
            "{call}: {read:?} after {} bytes: {:?}",
            rest.len(),
            String::from_utf8_lossy(&rest[rest.len().saturating_sub(300)..])
        );
        assert!(rest.ends_with(b"0\r\n\r\n"), "{call} comes to its end once it is read");
    }
}

#[test]
fn an_answer_that_breaks_off_never_looks_whole() {
    let fixture = Fixture::new();
    let root = fixture.add_tree();
    // A leaf in the middle of the DAG goes missing.
    let leaf = fixture.run(&["refs", "-r", "--format", "<dst>", &format!("{root}/sub/deep")]);
    let leaf = leaf.lines().nth(5).unwrap().to_owned();
    fixture.run(&["pin", "rm", &root]);
    let _daemon = fixture.daemon(&[]);
    let socket = fixture.repository().join("api.sock");
    let removed = http(&socket, "POST", &format!("/api/v0/block/rm?arg={leaf}"), "", b"");
    assert!(!removed.text().contains("Error"), "{}", removed.text());
    let file = format!("{root}/sub/deep/large.bin");
    let error = fixture.fail(1, &["cat", &file]);
    assert!(error.contains(&leaf), "{error}");
    // A client that takes no trailers sees the connection cut: the last chunk never comes.
    let mut stream = UnixStream::connect(&socket).unwrap();
    let request = format!("POST /api/v0/cat?arg={file} HTTP/1.1\r\nHost: cidfs\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    assert!(bytes.starts_with(b"HTTP/1.1 200") && !bytes.ends_with(b"0\r\n\r\n"));
}
