//! `cidfs plan`: the order in which a job will read a dataset.

use std::io::Write;
use std::path::PathBuf;

use axum::body::Body;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Outcome;
use super::client::{Call, Client, read};
use super::context::Context;
use super::output::{size, table};
use crate::daemon::plans::PlanReport;

/// Say in which order a dataset will be read, so that its files are brought ahead of the readers
///
/// The mounts follow the plan: what is read next is fetched, and put into the kernel's page cache, just before it is read. The
/// next epoch's order follows by itself. A plan that the reads contradict is dropped, and said so in the log. The order is a list of paths, or what a sampler of PyTorch draws from its seed. Paths are relative to the directory. The
/// files that a sampler numbers are those of torchvision's ImageFolder where the directory is laid out for it, else all
/// files, sorted by their paths.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cidfs plan bafy.../train --sampler torch-distributed --seed 0 --epoch 3 --rank 2 --world 8
  cidfs plan bafy.../train --sampler torch-distributed --rank 0-7 --world 64    the processes of this machine
  cidfs plan bafy.../train --sampler torch-random --seed 1 --batch-size 256 --drop-last --print
  ls | shuf | cidfs plan bafy.../train --order - --print

Samplers, and the code that they stand for:
  torch-distributed  DistributedSampler(dataset, num_replicas=WORLD, rank=RANK, seed=SEED), after set_epoch(EPOCH)
  torch-random       DataLoader(dataset, shuffle=True, generator=torch.Generator().manual_seed(SEED)), in its pass number
                     EPOCH from 0; with --generator default, one without a generator, after torch.manual_seed(SEED)
                     with nothing else drawn from the default generator since")]
pub struct Arguments {
    /// The directory that the job reads, as the job names it below the mountpoint
    #[arg(required_unless_present_any = ["list", "drop"])]
    path: Option<String>,
    /// The order: a file of paths, one a line; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "sampler")]
    #[arg(required_unless_present_any = ["sampler", "list", "drop"])]
    order: Option<PathBuf>,
    /// What draws the order
    #[arg(long, value_name = "NAME", value_parser = ["torch-distributed", "torch-random"])]
    sampler: Option<String>,
    /// The sampler's seed
    #[arg(long, value_name = "N", requires = "sampler", allow_negative_numbers = true)]
    seed: Option<String>,
    /// The epoch, from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    epoch: u64,
    /// Which of the processes this is, from 0; the processes of one machine are like 0-7 or 0,4
    #[arg(long, value_name = "N", requires = "sampler")]
    rank: Option<String>,
    /// How many processes share the dataset
    #[arg(long, value_name = "N", requires = "sampler")]
    world: Option<u64>,
    /// The loader's batch_size
    #[arg(long, value_name = "N", requires = "sampler")]
    batch_size: Option<u64>,
    /// DataLoader(drop_last=True): a last batch that is not full is not read
    #[arg(long, requires = "batch_size")]
    drop_last: bool,
    /// DistributedSampler(drop_last=True): what does not divide among the processes is not read
    #[arg(long, requires = "sampler")]
    sampler_drop_last: bool,
    /// Reads in the order of the files: shuffle=False
    #[arg(long, requires = "sampler")]
    no_shuffle: bool,
    /// torch-random: where its numbers come from
    #[arg(long, value_name = "WHICH", requires = "sampler")]
    generator: Option<Generator>,
    /// torch-random: the generator is seeded with SEED + EPOCH before each epoch
    #[arg(long, requires = "sampler")]
    reseeded: bool,
    /// torch-random: DataLoader(persistent_workers=True)
    #[arg(long, requires = "sampler")]
    persistent_workers: bool,
    /// The files that are numbered
    #[arg(long, value_name = "WHICH", requires = "sampler")]
    files: Option<Files>,
    /// Prints the order, one path a line, and follows nothing
    #[arg(long)]
    print: bool,
    /// Lists the plans that are followed, and how they stand
    #[arg(long, conflicts_with_all = ["path", "order", "sampler", "print", "drop"])]
    list: bool,
    /// Drops the plan for PATH, or all
    #[arg(long, conflicts_with_all = ["order", "sampler", "print"])]
    drop: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Generator {
    /// The one that the loader was given
    Given,
    /// The default one
    Default,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Files {
    /// Those of ImageFolder: images in directories of classes
    Images,
    /// All, sorted by their paths
    All,
}

fn word(value: &impl ValueEnum) -> Option<String> {
    value.to_possible_value().map(|value| value.get_name().to_owned())
}

pub async fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<Outcome> {
    let client = context.connect().await?;
    if arguments.list || arguments.drop {
        return manage(arguments, client, context).await;
    }
    let body = match &arguments.order {
        Some(path) => read(Some(path)).await?,
        None => Body::empty(),
    };
    let call = arguments.call(&client, context).flag("print", arguments.print).body(body);
    let reply = call.send().await?;
    if !arguments.print {
        let value: Value = reply.json().await?;
        let bytes = value["Bytes"].as_u64().unwrap_or_default();
        context
            .print(&value, |out| writeln!(out, "a plan of {} files, {}, is followed", value["Files"], size(bytes)))?;
        client.close().await?;
        return Ok(Outcome::Done);
    }
    let mut out = std::io::stdout().lock();
    let mut line = Vec::new();
    reply
        .pieces(|piece| {
            if !context.json() {
                return Ok(out.write_all(&piece)?);
            }
            for part in piece.split_inclusive(|byte| *byte == b'\n') {
                line.extend_from_slice(part);
                if line.last() == Some(&b'\n') {
                    let path = String::from_utf8_lossy(&line[..line.len() - 1]).into_owned();
                    serde_json::to_writer(&mut out, &json!({ "Path": path }))?;
                    out.write_all(b"\n")?;
                    line.clear();
                }
            }
            Ok(())
        })
        .await?;
    out.flush()?;
    client.close().await?;
    Ok(Outcome::Done)
}

/// Lists plans, or drops them.
async fn manage(arguments: &Arguments, client: Client, context: &Context) -> anyhow::Result<Outcome> {
    if arguments.drop {
        let value: Value = client.call("cidfs/plan/rm").args(&arguments.path).send().await?.json().await?;
        context.print(&value, |out| writeln!(out, "dropped {}", value["Dropped"]))?;
    } else {
        #[derive(Deserialize, Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct List {
            plans: Vec<PlanReport>,
        }
        let list: List = client.call("cidfs/plan/ls").send().await?.json().await?;
        context.print(&list, |out| {
            if list.plans.is_empty() {
                return writeln!(out, "no plan is followed");
            }
            let rows = list.plans.iter().map(|plan| {
                vec![
                    plan.directory.clone(),
                    plan.order.clone(),
                    plan.epoch.to_string(),
                    format!("{} of {}", plan.reached, plan.of),
                    size(plan.pushed_bytes),
                    format!("{:?}", plan.state).to_lowercase(),
                ]
            });
            writeln!(out, "{}", table(&["directory", "order", "epoch", "files", "ahead", "state"], rows))
        })?;
    }
    client.close().await?;
    Ok(Outcome::Done)
}

impl Arguments {
    fn call<'a>(&self, client: &'a Client, context: &Context) -> Call<'a> {
        let call = client.call("cidfs/plan").args(&self.path).maybe("timeout", context.timeout());
        let call = call.option("epoch", self.epoch.to_string());
        let Some(sampler) = &self.sampler else { return call.flag("order", true) };
        let call = call.option("sampler", sampler).maybe("seed", self.seed.as_ref());
        let call =
            call.maybe("rank", self.rank.as_ref()).maybe("world", self.world).maybe("batch-size", self.batch_size);
        let call = call.flag("drop-last", self.drop_last).flag("sampler-drop-last", self.sampler_drop_last);
        let call = call.flag("shuffle", !self.no_shuffle).flag("reseeded", self.reseeded);
        let call = call.flag("persistent-workers", self.persistent_workers);
        call.maybe("generator", self.generator.as_ref().and_then(word))
            .maybe("files", self.files.as_ref().and_then(word))
    }
}
