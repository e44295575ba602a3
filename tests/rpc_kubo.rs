//! The Kubo RPC API against what kubo 0.43 itself answered.
//!
//! `vectors/kubo_rpc.json` has calls in order, and the answers of a kubo that ran offline on an empty repository: status,
//! headers and body. cidfs must answer alike; the words of errors are its own.

#[path = "cli/fixture.rs"]
mod fixture;

use std::net::TcpStream;

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
    let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let request = format!("POST /api/v0/cat?arg={file} HTTP/1.1\r\nHost: cidfs\r\nContent-Length: 0\r\n\r\n");
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let _ = std::io::Read::read_to_end(&mut stream, &mut bytes);
    assert!(bytes.starts_with(b"HTTP/1.1 200") && !bytes.ends_with(b"0\r\n\r\n"));
}
