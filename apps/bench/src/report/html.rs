//! `report.html`: one page with all of it, that needs nothing else.

use std::path::Path;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::plot::{self, Bar};
use super::table::{Cell, cell, failure};
use crate::group::{Result, Topic};
use crate::judge::{Judgement, judge, short};
use crate::machine::Machine;
use crate::runner::Measured;
use crate::stats::Verdict;

/// Writes the page.
pub(crate) fn write(
    path: &Path,
    machine: &Machine,
    topics: &[Topic],
    results: &[Measured],
) -> Result<()> {
    let measured = |topic: &Topic| -> Vec<&Measured> {
        results.iter().filter(|measured| measured.topic == topic.name).collect()
    };
    let sections = topics.iter().map(|topic| (topic, measured(topic)));
    let sections: Vec<_> = sections.filter(|(_, measured)| !measured.is_empty()).collect();
    let mut bodies = Vec::new();
    for (topic, measured) in &sections {
        bodies.push(section(topic, measured)?);
    }
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "kevent and its peers" }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                header {
                    h1 { "kevent and its peers" }
                    (about(machine))
                    nav {
                        @for (topic, _) in &sections { a href={ "#" (topic.name) } { (topic.title) } }
                    }
                }
                main {
                    (goals(results))
                    (reading(machine))
                    @for body in bodies { (body) }
                }
            }
        }
    };
    Ok(std::fs::write(path, page.into_string())?)
}

fn about(machine: &Machine) -> Markup {
    html! {
        @if machine.quick {
            p.warning { "A quick run, to see that everything works: the figures mean nothing." }
        }
        p.machine {
            (machine.date) ". " (machine.cpu) ", " (machine.cpus) " processors, "
            (machine.memory_gib) " GiB, Linux " (machine.kernel) "."
            @if let Some(revision) = &machine.revision { " kevent " (revision) "." }
            " " (machine.rounds) " rounds in " (machine.seconds) " s"
            @if let Some(load) = machine.other_load {
                "; " (format!("{:.0} %", load * 100.0)) " of the processors went elsewhere meanwhile"
            }
            "."
        }
    }
}

fn goals(results: &[Measured]) -> Markup {
    let judged: Vec<(&Measured, Judgement)> = results
        .iter()
        .flat_map(|m| m.group.goals.iter().map(move |goal| (m, judge(m, goal))))
        .collect();
    let count = |verdict| judged.iter().filter(|(_, j)| j.verdict == verdict).count();
    let verdicts = [Verdict::Reached, Verdict::WithinNoise, Verdict::Missed, Verdict::NotMeasured];
    html! {
        section #goals {
            h2 { "Goals" }
            p.counts {
                @for verdict in verdicts {
                    @if count(verdict) > 0 { span { (chip(verdict)) " " (count(verdict)) } }
                }
            }
            div.scroll {
                table.goals {
                    thead { tr { th { "" } th { "what" } th { "goal" } th { "measured" } } }
                    tbody {
                        @for (measured, judgement) in &judged {
                            tr {
                                td { (chip(judgement.verdict)) }
                                td {
                                    a href={ "#" (measured.group.name) } { (measured.group.title) }
                                    div.small { (judgement.metric) ", " (judgement.who) }
                                }
                                td { (judgement.limit) }
                                td { (judgement.found) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn chip(verdict: Verdict) -> Markup {
    let (class, sign) = match verdict {
        Verdict::Reached => ("reached", "✓"),
        Verdict::Missed => ("missed", "✗"),
        Verdict::WithinNoise => ("noise", "≈"),
        Verdict::NotMeasured => ("none", "–"),
    };
    html! { span class={ "chip " (class) } { (sign) " " (verdict.text()) } }
}

fn reading(machine: &Machine) -> Markup {
    html! {
        details {
            summary { "How to read this" }
            p {
                "Less is better everywhere. In each of the " (machine.rounds) " rounds every peer of a \
                 group runs once, in a process of its own, in an order that rotates. A bar is the \
                 median of the rounds, its whisker goes from the least to the greatest. The last \
                 column of a table compares round by round: the median of what the peer took for what \
                 kevent took in the same round."
            }
            p {
                "What is noise: the true median lies, with 95 % confidence, between two of the rounds \
                 that the sign test names (the second least and the second greatest of eleven); those \
                 are in brackets. A goal is reached when all of that interval is within its limit, \
                 missed when none of it is, and else inside the noise. A ratio whose interval has 1 in \
                 it is marked as noise. Processor time repeats within 5 to 20 % on shared machines; \
                 times that depend on when a thread is woken repeat much worse."
            }
        }
    }
}

fn section(topic: &Topic, results: &[&Measured]) -> Result<Markup> {
    let groups = results.iter().map(|m| group(m)).collect::<Result<Vec<_>>>()?;
    Ok(html! {
        section id=(topic.name) {
            h2 { (topic.title) }
            @for group in groups { (group) }
        }
    })
}

fn group(measured: &Measured) -> Result<Markup> {
    let group = &measured.group;
    let metrics =
        (0..group.metrics.len()).map(|n| metric(measured, n)).collect::<Result<Vec<_>>>()?;
    Ok(html! {
        article id=(group.name) {
            h3 { (group.title) " " code { (group.name) } }
            p.small { (group.about) }
            @for goal in &group.goals {
                @let judgement = judge(measured, goal);
                p.goal {
                    (chip(judgement.verdict)) " " (judgement.metric) ", " (judgement.who) ": "
                    (judgement.limit)
                    @if !judgement.found.is_empty() { "; measured " (judgement.found) }
                }
            }
            div.metrics.single[metrics.len() == 1] { @for metric in metrics { (metric) } }
        }
    })
}

/// A plot and its table, the least on top.
fn metric(measured: &Measured, number: usize) -> Result<Markup> {
    let group = &measured.group;
    let metric = &group.metrics[number];
    let mut rows: Vec<(usize, Option<Cell>)> =
        (0..group.peers.len()).map(|peer| (peer, cell(measured, peer, number))).collect();
    let median = |cell: &Option<Cell>| cell.as_ref().map_or(f64::INFINITY, |c| c.summary.median);
    rows.sort_by(|(_, a), (_, b)| median(a).total_cmp(&median(b)));
    let ours = |peer: usize| group.peers[peer].name.starts_with("kevent");
    let bars: Vec<Bar<'_>> = rows
        .iter()
        .filter_map(|(peer, cell)| {
            let summary = cell.as_ref()?.summary;
            Some(Bar { label: group.peers[*peer].name, summary, ours: ours(*peer) })
        })
        .collect();
    let (svg, logarithmic) = plot::bars(&bars)?;
    Ok(html! {
        figure {
            figcaption {
                (metric.name) ", " (metric.unit)
                @if logarithmic { span.small { " (logarithmic)" } }
            }
            div.plot role="img" aria-label={ (metric.name) " of each peer; figures in the table" } {
                (PreEscaped(svg))
            }
            div.scroll { (table(measured, &rows, ours)) }
        }
    })
}

fn table(
    measured: &Measured,
    rows: &[(usize, Option<Cell>)],
    ours: impl Fn(usize) -> bool,
) -> Markup {
    html! {
        table.figures {
            thead { tr { th { "" } th { "median" } th { "min – max" } th { "of kevent's" } } }
            tbody {
                @for (peer, cell) in rows {
                    tr.ours[ours(*peer)] {
                        td { (measured.group.peers[*peer].name) }
                        @if let Some(cell) = cell {
                            td { (short(cell.summary.median)) }
                            td { (cell.range_text()) }
                            td { (cell.ratio_text()) }
                        } @else {
                            td.failure colspan="3" {
                                "no figures" @if !failure(measured, *peer).is_empty() { ": " }
                                (failure(measured, *peer))
                            }
                        }
                    }
                }
            }
        }
    }
}
