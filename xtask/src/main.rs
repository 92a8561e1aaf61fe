//! The project's own commands: `cargo xtask <command>`. One module per command; each reads its own
//! arguments, prints its own `--help` and returns an error that says what to do next.
use anyhow::{Result, bail};

mod bench;
mod chaos;
mod demo;
mod deny;
mod fuzz;
mod oracles;
mod peers;
mod shell;
mod stack;
mod test;
mod tidy;

const HELP: &str = "\
The project's own commands.

Usage: cargo xtask <command> [arguments]

Commands:
  bench   the product against plain peers; writes docs/generated/bench.md
  chaos   everything broken on purpose and counted; exactly once, or a seed that shows it is not
  demo    two synthetic hospitals through the whole pipeline, every store checked
  fuzz    hostile input for every language and reader; writes docs/generated/fuzz.md
  stack   install, start, stop and inspect Kafka, the registry, Connect, the databases and the stores
  test    everything a change must pass: format, lints, rules, licences, all tests on a stack of their own
  tidy    the project's own rules alone

Examples:
  cargo xtask demo                        see it work
  cargo xtask stack up                    everything, from nothing
  cargo xtask test                        before a change is handed in
  cargo xtask test --only fmt,clippy,unit the quick part of it
  cargo xtask <command> --help            what each can do";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Err(error) = run(&arguments) {
        eprintln!("error: {error:#}");
        std::process::exit(1);
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let (command, rest) = arguments.split_first().map_or(("--help", arguments), |(c, r)| (c.as_str(), r));
    match command {
        "bench" => bench::main(rest),
        "chaos" => chaos::main(rest),
        "demo" => demo::main(rest),
        "fuzz" => fuzz::main(rest),
        "stack" => stack::main(rest),
        "test" => test::main(rest),
        "tidy" => tidy::main(rest),
        "-h" | "--help" | "help" => {
            println!("{HELP}");
            Ok(())
        }
        other => bail!("no command '{other}'; `cargo xtask --help` lists them"),
    }
}
