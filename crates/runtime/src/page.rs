use std::time::Duration;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::flow::{Edge, Kind, Node, chart};
use crate::status::{Doing, LastReject, View, now_ms};

const BOX: (usize, usize) = (156, 58);
const GAP: (usize, usize) = (52, 18);
const MARGIN: usize = 12;

const STYLE: &str = "
:root{color-scheme:light dark;--line:#8884;--soft:#8882;--ok:#2e7d32;--idle:#667;--behind:#b26a00;--stuck:#c62828}
body{font:14px/1.45 system-ui,sans-serif;margin:1.5rem;max-width:1500px}
h1{font-size:1.3rem;margin:0}h2{font-size:1rem;margin:1.6rem 0 .4rem}
header{display:flex;gap:1.2rem;align-items:baseline;flex-wrap:wrap}
header small,.note{opacity:.7}
table{border-collapse:collapse;width:100%}th,td{padding:.25rem .6rem;text-align:right;border-bottom:1px solid var(--line)}
th{font-weight:600}th:first-child,td:first-child,.text{text-align:left}
.scroll{overflow-x:auto}
.word{color:#fff;border-radius:.6rem;padding:0 .5rem}
.ok{background:var(--ok)}.idle{background:var(--idle)}.behind{background:var(--behind)}.stuck{background:var(--stuck)}
svg text{font:12px system-ui,sans-serif;fill:currentColor}svg .name{font-weight:600}
svg .topic,svg .store{fill:color-mix(in srgb,Canvas 92%,CanvasText);stroke:var(--line)}svg .store{stroke:currentColor}
svg .processor{fill:Canvas;stroke-width:2}
svg .edge{fill:none;stroke:currentColor;opacity:.35}
svg .s-ok{stroke:var(--ok)}svg .s-idle{stroke:var(--idle)}svg .s-behind{stroke:var(--behind)}svg .s-stuck{stroke:var(--stuck)}
";

/// The status page: no script, no asset from elsewhere, made anew at each load.
pub(crate) fn render(views: &[View], uptime: Duration) -> Markup {
    let ready = views.iter().all(|view| view.workers.iter().all(|worker| *worker == Doing::Running));
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                meta http-equiv="refresh" content="5";
                title { "Fhirehose" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "Fhirehose" }
                    span.word.ok[ready].behind[!ready] { @if ready { "ready" } @else { "not ready" } }
                    small { "version " (env!("CARGO_PKG_VERSION")) ", up " (span(uptime.as_secs_f64())) }
                    small { a href="/admin/status" { "JSON" } " · " a href="/metrics" { "metrics" } }
                }
                h2 { "Flow" }
                div.scroll { (flow(views)) }
                h2 { "Processors" }
                div.scroll { (table(views)) }
                h2 { "Records that are not written, by reason" }
                (reasons(views))
                h2 { "Last rejects" }
                (last_rejects(views))
            }
        }
    }
}

fn flow(views: &[View]) -> Markup {
    let (nodes, edges) = chart(views);
    let columns = nodes.iter().map(|node| node.layer).max().map_or(0, |last| last + 1);
    let rows = nodes.iter().map(|node| node.row).max().map_or(0, |last| last + 1);
    let tall = |layer: usize| nodes.iter().filter(|node| node.layer == layer).count();
    let place = |node: &Node<'_>| {
        let x = MARGIN + node.layer * (BOX.0 + GAP.0);
        let lead = (rows - tall(node.layer)) * (BOX.1 + GAP.1) / 2;
        (x, MARGIN + lead + node.row * (BOX.1 + GAP.1))
    };
    let (width, height) = (columns * (BOX.0 + GAP.0) + MARGIN, rows * (BOX.1 + GAP.1) + MARGIN);
    html! {
        svg style=(format!("width:100%;max-width:{width}px")) viewBox=(format!("0 0 {width} {height}")) role="img" aria-label="flow" {
            @for edge in &edges { (arrow(edge, place(&nodes[edge.from]), place(&nodes[edge.to]))) }
            @for node in &nodes { (cell(node, place(node))) }
        }
    }
}

fn arrow(edge: &Edge, from: (usize, usize), to: (usize, usize)) -> Markup {
    let (x1, y1) = (from.0 + BOX.0, from.1 + BOX.1 / 2);
    let (x2, y2) = (to.0, to.1 + BOX.1 / 2);
    let bend = GAP.0 / 2;
    let path = format!("M{x1} {y1} C{} {y1} {} {y2} {x2} {y2}", x1 + bend, x2.saturating_sub(bend));
    let width = format!("{:.1}", 1.0 + (1.0 + edge.per_second).log10() * 1.5);
    html! { path.edge d=(path) stroke-width=(width) {} }
}

fn cell(node: &Node<'_>, (x, y): (usize, usize)) -> Markup {
    let (class, radius) = match node.kind {
        Kind::Topic => ("topic".to_owned(), BOX.1 / 2),
        Kind::Processor(view) => (format!("processor s-{}", view.lag), 6),
        Kind::Store => ("store".to_owned(), 0),
    };
    html! {
        rect class=(class) x=(x) y=(y) width=(BOX.0) height=(BOX.1) rx=(radius) {}
        @match node.kind {
            Kind::Processor(view) => {
                text.name x=(x + 10) y=(y + 20) { (node.label) }
                text x=(x + 10) y=(y + 36) {
                    (rate(view.in_per_second)) " in, " (rate(view.out_per_second)) " out /s"
                }
                text x=(x + 10) y=(y + 51) { (view.lag) ", p99 " (millis(view.age_recent.p99_ms)) }
            }
            _ => text x=(x + BOX.0 / 2) y=(y + BOX.1 / 2 + 4) text-anchor="middle" { (node.label) },
        }
    }
}

fn table(views: &[View]) -> Markup {
    html! {
        table {
            tr {
                th { "Processor" } th.text { "State" } th { "Lag" } th { "Records behind" } th { "Seconds behind" }
                th { "In /s" } th { "Out /s" } th { "In" } th { "Out" } th { "Rejected" } th { "Parked" }
                th { "Age p50" } th { "Age p99" } th { "Violations" }
            }
            @for view in views {
                tr {
                    td { (view.processor) }
                    td.text { (state(view)) }
                    td { span class={ "word " (view.lag) } { (view.lag) } }
                    td { (view.lag_records) }
                    td { (format!("{:.1}", view.lag_seconds)) }
                    td { (rate(view.in_per_second)) }
                    td { (rate(view.out_per_second)) }
                    td { (view.records_in) }
                    td { (view.records_out) }
                    td { (view.rejected.values().sum::<u64>()) }
                    td { (view.parked.values().sum::<u64>()) }
                    td { (millis(view.age_recent.p50_ms)) }
                    td { (millis(view.age_recent.p99_ms)) }
                    td { (view.violations.values().sum::<u64>()) }
                }
            }
        }
        p.note {
            "Age is the time from a change at its source to its commit here, over the last minute; of records read "
            "late, after a stop for one, it is as long as the stop."
        }
    }
}

/// The state of its workers, with why, each once.
fn state(view: &View) -> String {
    let mut words: Vec<String> = view
        .workers
        .iter()
        .map(|worker| match worker {
            Doing::Starting => "starting".into(),
            Doing::Restoring => "restoring".into(),
            Doing::Running => "running".into(),
            Doing::Waiting(why) => format!("waiting: {why}"),
            Doing::Tripped(why) => format!("breaker tripped: {why}"),
            Doing::Failed(why) => format!("failed: {why}"),
            Doing::Stopped => "stopped".into(),
        })
        .collect();
    words.sort();
    words.dedup();
    words.join("; ")
}

fn reasons(views: &[View]) -> Markup {
    let rows = views.iter().flat_map(|view| {
        let of = |what: &'static str, counts: &std::collections::BTreeMap<&'static str, u64>| {
            counts.iter().map(|(reason, count)| (view.processor, what, *reason, *count)).collect::<Vec<_>>()
        };
        [of("rejected", &view.rejected), of("parked", &view.parked), of("dropped", &view.dropped)].concat()
    });
    let rows: Vec<_> = rows.collect();
    html! {
        @if rows.is_empty() { p.note { "None." } } @else {
            table {
                tr { th { "Processor" } th.text { "What" } th.text { "Reason" } th { "Records" } }
                @for (processor, what, reason, count) in rows {
                    tr { td { (processor) } td.text { (what) } td.text { (reason) } td { (count) } }
                }
            }
        }
    }
}

fn last_rejects(views: &[View]) -> Markup {
    let mut rejects: Vec<(&str, &LastReject)> = views
        .iter()
        .flat_map(|view| view.last_rejects.iter().map(|reject| (view.processor, reject)))
        .collect();
    rejects.sort_by_key(|(_, reject)| std::cmp::Reverse(reject.at_ms));
    rejects.truncate(20);
    let now = now_ms();
    html! {
        @if rejects.is_empty() { p.note { "None." } } @else {
            table {
                tr { th { "Processor" } th.text { "Reason" } th.text { "Where in it" } th.text { "Record" } th { "Ago" } }
                @for (processor, reject) in rejects {
                    tr {
                        td { (processor) }
                        td.text { (reject.reason) }
                        td.text { (reject.detail) }
                        td.text { (reject.topic) " [" (reject.partition) "] @ " (reject.offset) }
                        td { (span((now - reject.at_ms).max(0) as f64 / 1000.0)) }
                    }
                }
            }
        }
    }
}

fn rate(per_second: f64) -> String {
    match per_second {
        r if r >= 100.0 => format!("{r:.0}"),
        r if r >= 0.05 => format!("{r:.1}"),
        _ => "0".to_owned(),
    }
}

fn millis(ms: u64) -> String {
    if ms < 1_000 { format!("{ms} ms") } else { span(ms as f64 / 1000.0) }
}

fn span(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3_600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}
