//! The bench: measures the product against plain peers on the same machine in the same minutes, and writes the
//! figures as they are. `cargo xtask bench` builds it, starts the servers it needs and runs it.

mod admin;
mod changes;
mod copier;
mod copying;
mod devices;
mod end_to_end;
mod engines;
mod figure;
mod kafka;
mod machine;
mod mapping;
mod recovery;
mod report;
mod restore;
mod shapes;
mod stack;
mod stores;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand, ValueEnum};

use engines::Effort;
use figure::Section;
use shapes::Shapes;
use stack::Stack;

/// Measure the product against plain peers
#[derive(Parser)]
#[command(name = "fhirehose-bench")]
struct Cli {
    /// Root of the repository
    #[arg(long, default_value = ".", global = true)]
    root: PathBuf,
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Measure, print, and write what was measured into the report
    Run {
        /// All of them when none is named
        names: Vec<Name>,
        /// Entries of the reference store, for `recovery`
        #[arg(long, default_value_t = 1_000_000)]
        targets: u64,
        /// Rounds of `shapes`
        #[arg(long, default_value_t = 7)]
        rounds: usize,
        /// CPU seconds of a turn of `shapes`
        #[arg(long, default_value_t = 0.5)]
        seconds: f64,
        /// Where the report goes
        #[arg(long, default_value = "docs/generated/bench.md")]
        report: PathBuf,
    },
    /// Copy ready-made records until killed: the peer of normalize-cdc
    Copy {
        #[arg(long)]
        group: String,
        #[arg(long)]
        transactional: bool,
    },
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// CPU time of decode, map and encode
    Mapping,
    /// Views, mappings and FHIRPath against other engines
    Shapes,
    /// The PostgreSQL sinks against plain COPY and upsert
    Stores,
    /// Latency and memory of every processor at half load
    EndToEnd,
    /// normalize-cdc on Kafka against a plain copier, and the cost of transactions
    Copying,
    /// Loss and restart of instances; the reference store of a million entries
    Recovery,
}

/// In the order they are measured: the last ones fill topics that the others should find small.
const ALL: [Name; 6] =
    [Name::Mapping, Name::Shapes, Name::Stores, Name::EndToEnd, Name::Copying, Name::Recovery];

fn main() -> Result<()> {
    let cli = Cli::parse();
    let root = cli.root.canonicalize().context("--root")?;
    match cli.command {
        What::Copy { group, transactional } => {
            let stack = Stack::of_environment(&root)?;
            copier::run(&root, &stack.brokers, &group, transactional)
        }
        What::Run { names, report, targets, rounds, seconds } => {
            let effort = Effort { rounds, seconds };
            let wanted: Vec<Name> =
                ALL.into_iter().filter(|name| names.is_empty() || names.contains(name)).collect();
            // The commit that is measured: others may be made meanwhile.
            let commit = commit(&root);
            let file = root.join(report);
            let mut text = match wanted == ALL {
                true => String::new(),
                false => fs::read_to_string(&file).unwrap_or_default(),
            };
            for name in &wanted {
                let begun = std::time::Instant::now();
                let sections = measure(*name, &root, targets, effort).with_context(|| format!("{name:?}"))?;
                for mut section in sections {
                    say(&section.to_markdown());
                    if wanted != ALL {
                        section
                            .how
                            .push_str(&format!("\n\nMeasured apart from the others: {}.", stamp(&commit)));
                    }
                    text = report::with_section(&text, section.title, &section.to_markdown());
                }
                say(&format!("({name:?}: {:.0} s)", begun.elapsed().as_secs_f64()));
            }
            if wanted == ALL {
                text = format!("{}\n{text}", heading(&commit));
            }
            fs::create_dir_all(file.parent().context("the report is in no folder")?)?;
            fs::write(&file, text)?;
            say(&format!("written to {}", file.display()));
            Ok(())
        }
    }
}

fn measure(name: Name, root: &std::path::Path, targets: u64, effort: Effort) -> Result<Vec<Section>> {
    let stack = || Stack::of_environment(root);
    let prepared = || -> Result<Stack> {
        let stack = stack()?;
        stack.prepare()?;
        Ok(stack)
    };
    Ok(match name {
        Name::Mapping => vec![mapping::measure(&Shapes::load(root)?)?],
        Name::Shapes => engines::measure(root, effort)?,
        Name::Stores => vec![stores::measure(&stack()?, &Shapes::load(root)?)?],
        Name::EndToEnd => end_to_end::measure(&prepared()?)?,
        Name::Copying => vec![copying::measure(&prepared()?)?],
        Name::Recovery => {
            let stack = prepared()?;
            let shapes = Shapes::load(root)?;
            vec![recovery::measure(&stack, &shapes)?, restore::measure(&stack, &shapes, targets)?]
        }
    })
}

fn commit(root: &std::path::Path) -> String {
    let told = Command::new("git").current_dir(root).args(["rev-parse", "--short", "HEAD"]).output();
    let commit = told.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    commit.ok().filter(|commit| !commit.is_empty()).unwrap_or_else(|| "unknown".to_owned())
}

fn heading(commit: &str) -> String {
    format!(
        "# Figures\n\nGenerated by `cargo xtask bench`; every figure is what was measured, also where a goal is missed. Ratios \
         are taken within one run: contestants in turn, one round after the other, each round's ratio by itself; shown \
         are the median of the rounds, the least and the greatest.\n\n\
         - Machine: {}; servers and the bench share it\n\
         - Measured: {} (others may have been at work)\n",
        machine::describe(),
        stamp(commit),
    )
}

/// What was measured, when, and how busy the machine was as it ended.
fn stamp(commit: &str) -> String {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC");
    format!("commit {commit}, {now}, load of the machine {}", machine::load())
}

/// One text on standard output; a reader that went away is no error of ours.
fn say(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}
