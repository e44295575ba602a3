//! `cidfs status`: what is mounted, what is cached, and whether all is well.

use std::io::Write;

use clap::Args;
use serde_json::json;

use super::Outcome;
use super::client::Client;
use super::context::Context;
use super::output::{duration, size, table};
use crate::daemon::api::cidfs::Status;
use crate::daemon::warmups::WarmupEnd;
use crate::prefetch::RootReport;

/// Show what is mounted, what is cached, and whether all is well
///
/// Exit status: 0 where the daemon is healthy, 1 where something is wrong with it (it is said what), 3 where none runs.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cidfs status\n  cidfs status --prefetch\n  cidfs status --json | jq .Healthy")]
pub struct Arguments {
    /// Shows what is brought ahead of readers: pattern, window, what was of use, predicted stall
    #[arg(long)]
    prefetch: bool,
}

pub async fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let Some(client) = Client::running(&context.repository).await else {
        let repository = context.repository.display().to_string();
        context.print(&json!({ "Running": false, "Repository": repository }), |out| {
            writeln!(out, "no daemon runs on {repository}; `cidfs mount MOUNTPOINT` starts one")
        })?;
        return Ok(Outcome::NoDaemon);
    };
    let status: Status = client.call("cidfs/status").maybe("timeout", context.timeout()).send().await?.json().await?;
    let mut value = serde_json::to_value(&status)?;
    value["Running"] = json!(true);
    if arguments.prefetch {
        let report = json!({ "Running": true, "Prefetch": status.prefetch });
        context.print(&report, |out| show_prefetch(out, &status.prefetch))?;
        return Ok(Outcome::Done);
    }
    context.print(&value, |out| {
        writeln!(
            out,
            "cidfs {} (process {}) on {}, up {}, {} resident",
            status.version,
            status.pid,
            status.repository.display(),
            duration(status.uptime_seconds),
            size(status.resident_bytes)
        )?;
        if status.healthy {
            writeln!(out, "healthy")?;
        }
        for problem in &status.problems {
            writeln!(out, "problem: {problem}")?;
        }
        let store = &status.store;
        let budget = store.disk_budget_bytes.map_or_else(|| "no limit".to_owned(), size);
        let row = |name: &str, blocks: u64, used, of, hits: u64| {
            vec![name.to_owned(), blocks.to_string(), size(used), of, hits.to_string()]
        };
        let rows = [
            row("RAM", store.ram_blocks, store.ram_bytes, size(store.ram_budget_bytes), store.counted.ram_hits),
            row("NVMe", store.disk_blocks, store.disk_bytes, budget, store.counted.disk_hits),
        ];
        writeln!(out, "\n{}", table(&["cache", "blocks", "used", "of", "hits"], rows))?;
        writeln!(
            out,
            "{} reads of what is not here; {} read from NVMe; {} evicted, {} collected",
            store.counted.misses,
            size(store.counted.disk_read_bytes),
            size(store.counted.evicted_bytes),
            size(store.counted.collected_bytes)
        )?;
        writeln!(out, "{} pins; {} free on the disk", store.pins, size(store.available_bytes))?;
        if !status.warmups.is_empty() {
            let rows = status.warmups.iter().map(|warmup| {
                let progress = &warmup.progress;
                let state = match &warmup.state {
                    WarmupEnd::Running => "at work".to_owned(),
                    WarmupEnd::Done => "done".to_owned(),
                    WarmupEnd::Incomplete => format!("{} blocks missing", progress.missing),
                    WarmupEnd::Stopped => "stopped".to_owned(),
                    WarmupEnd::Failed(why) => format!("failed: {why}"),
                };
                let of = size(progress.claimed_bytes.max(progress.bytes));
                vec![
                    warmup.path.clone(),
                    progress.files.to_string(),
                    size(progress.bytes),
                    of,
                    duration(warmup.seconds),
                    state,
                ]
            });
            writeln!(out, "\n{}", table(&["warmup", "files", "here", "of", "time", "state"], rows))?;
        }
        if status.mounts.is_empty() {
            return writeln!(out, "\nnothing is mounted");
        }
        let rows = status.mounts.iter().map(|mount| {
            vec![
                mount.mountpoint.display().to_string(),
                mount.profile.clone(),
                duration(mount.seconds),
                mount.requests.values().sum::<u64>().to_string(),
            ]
        });
        writeln!(out, "\n{}", table(&["mountpoint", "profile", "since", "requests"], rows))
    })?;
    Ok(if status.healthy { Outcome::Done } else { Outcome::BadNews })
}

fn show_prefetch(out: &mut dyn Write, roots: &[RootReport]) -> std::io::Result<()> {
    if roots.is_empty() {
        return writeln!(out, "nothing was brought ahead of a reader");
    }
    let rows = roots.iter().map(|root| {
        let figures = &root.figures;
        let brought = figures.pushed_bytes + figures.read_ahead_bytes;
        let stall = root.predicted_stall_milliseconds as f64 / 1000.0;
        vec![
            root.root.clone(),
            root.pattern.clone(),
            size(root.window_bytes),
            size(root.ahead_bytes),
            size(brought),
            size(figures.fetched_bytes),
            size(figures.useful_bytes),
            size(figures.wasted_bytes),
            format!("{stall:.1} s"),
        ]
    });
    let head = ["root", "pattern", "window", "ahead", "brought", "fetched", "useful", "wasted", "predicted stall"];
    writeln!(out, "{}", table(&head, rows))
}
