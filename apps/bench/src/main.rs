//! kevent and its peers side by side, in one run.
//!
//! See README.md for how to run it and how to read what it says.

mod group;
mod judge;
mod machine;
mod measure;
mod report;
mod runner;
mod scratch;
mod stats;
mod sys;
mod topics;

use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::prelude::*;

use crate::group::Result;
use crate::machine::Machine;
use crate::runner::Measured;
use crate::scratch::Scratch;
use crate::topics::TOPICS;

const USAGE: &str = "\
usage: kevent-bench [TOPIC | TOPIC/GROUP]... [--rounds N] [--quick] [--out DIR]
       kevent-bench --list

Measures all topics, or those that are named, and writes results.jsonl and report.html to DIR (the
current directory unless it is given). Files that are read, sent and copied meanwhile are made in the
current directory, up to 3 GB of them, and removed.

  --rounds N  how often each peer is measured; 11 unless it is given, 2 of a quick run
  --quick     only see whether everything works: the figures mean nothing
  --list      names of the topics, their groups and peers";

#[global_allocator]
static ALLOCATOR: sys::Counting = sys::Counting;

enum Command {
    Run { names: Vec<String>, rounds: usize, quick: bool, out: PathBuf },
    List,
    Help,
    Round { group: String, peer: String, quick: bool },
    Helper { topic: String, arguments: Vec<String> },
    Keep { directory: PathBuf },
}

fn main() -> ExitCode {
    match parse().and_then(execute) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kevent-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse() -> Result<Command> {
    let mut parser = lexopt::Parser::from_env();
    let (mut names, mut rounds, mut quick, mut out) = (vec![], None, false, PathBuf::from("."));
    let mut round = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("rounds") => rounds = Some(parser.value()?.parse()?),
            Long("quick") => quick = true,
            Long("out") => out = parser.value()?.into(),
            Long("list") => return Ok(Command::List),
            Long("help") | Short('h') => return Ok(Command::Help),
            Long("round") => round = Some((parser.value()?.string()?, parser.value()?.string()?)),
            Long("helper") => {
                let topic = parser.value()?.string()?;
                let rest = parser.raw_args()?.map(|argument| argument.string());
                let arguments = rest.collect::<std::result::Result<_, _>>()?;
                return Ok(Command::Helper { topic, arguments });
            }
            Long("keep") => return Ok(Command::Keep { directory: parser.value()?.into() }),
            Value(name) => names.push(name.string()?),
            other => return Err(format!("{}\n{USAGE}", other.unexpected()).into()),
        }
    }
    if let Some((group, peer)) = round {
        return Ok(Command::Round { group, peer, quick });
    }
    let rounds = rounds.unwrap_or(if quick { 2 } else { 11 });
    Ok(Command::Run { names, rounds, quick, out })
}

fn execute(command: Command) -> Result<()> {
    match command {
        Command::Run { names, rounds, quick, out } => run(&names, rounds, quick, &out),
        Command::List => list(),
        Command::Help => {
            println!("{USAGE}");
            Ok(())
        }
        Command::Round { group, peer, quick } => runner::round(TOPICS, &group, &peer, quick),
        Command::Helper { topic, arguments } => runner::helper(TOPICS, &topic, &arguments),
        Command::Keep { directory } => scratch::keep(&directory),
    }
}

fn list() -> Result<()> {
    for topic in TOPICS {
        println!("{}: {}", topic.name, topic.title);
        for group in (topic.groups)() {
            let peers: Vec<_> = group.peers.iter().map(|peer| peer.name).collect();
            println!("    {}: {}", group.name, peers.join(", "));
        }
    }
    Ok(())
}

fn run(names: &[String], rounds: usize, quick: bool, out: &std::path::Path) -> Result<()> {
    if rounds == 0 {
        return Err("--rounds 0 measures nothing".into());
    }
    let wanted = |topic: &str, group: &str| {
        names.is_empty() || names.iter().any(|name| name == topic || name == group)
    };
    let groups = TOPICS.iter().flat_map(|topic| {
        let groups = (topic.groups)().into_iter();
        groups.map(move |group| (topic, group)).filter(|(topic, g)| wanted(topic.name, &g.name))
    });
    let groups: Vec<_> = groups.collect();
    if groups.is_empty() {
        return Err(format!("no topic or group of that name; see --list\n{USAGE}").into());
    }
    std::fs::create_dir_all(out)?;
    let scratch = Scratch::make()?;
    let mut machine = Machine::ask(rounds, quick);
    let mut results = Vec::new();
    for (topic, group) in groups {
        let measured = Measured::run(topic.name, group, rounds, quick, scratch.path());
        report::table::print(&measured);
        results.push(measured);
    }
    machine.finish();
    drop(scratch);
    report::table::print_goals(&results);
    report::json::write(&out.join("results.jsonl"), &machine, &results)?;
    report::html::write(&out.join("report.html"), &machine, TOPICS, &results)?;
    println!("\nwritten: results.jsonl and report.html in {}", out.display());
    Ok(())
}
