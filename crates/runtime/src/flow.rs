use std::collections::{BTreeMap, BTreeSet};

use crate::status::View;

/// A box of the flow chart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node<'v> {
    pub label: String,
    pub kind: Kind<'v>,
    /// Column from the left.
    pub layer: usize,
    /// Place in its column, from the top.
    pub row: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind<'v> {
    Topic,
    Processor(&'v View),
    Store,
}

/// An arrow, by positions of nodes, with its records per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Edge {
    pub from: usize,
    pub to: usize,
    pub per_second: f64,
}

/// The flow of the processors of this process as columns of boxes and arrows between them. Topics of one kind,
/// such as `fhir.patient` and `fhir.encounter`, share a box.
pub(crate) fn chart(views: &[View]) -> (Vec<Node<'_>>, Vec<Edge>) {
    let produced: BTreeSet<&str> =
        views.iter().flat_map(|view| view.outputs.iter().map(String::as_str)).collect();
    let names: BTreeSet<&str> =
        views.iter().flat_map(|view| view.inputs.iter().chain(&view.outputs)).map(String::as_str).collect();
    let mut members: BTreeMap<(bool, &str), BTreeSet<&str>> = BTreeMap::new();
    let group = |name: &'_ str| (produced.contains(name), kind_of(name).to_owned());
    for name in names {
        members.entry((produced.contains(name), kind_of(name))).or_default().insert(name);
    }
    let mut nodes: Vec<Node<'_>> = Vec::new();
    let mut topics: BTreeMap<(bool, String), usize> = BTreeMap::new();
    for ((made, kind), names) in &members {
        let label = match names.first() {
            Some(only) if names.len() == 1 && !only.starts_with('^') => (*only).to_owned(),
            _ => format!("{kind}.*"),
        };
        topics.insert((*made, (*kind).to_owned()), nodes.len());
        nodes.push(Node { label, kind: Kind::Topic, layer: 0, row: 0 });
    }
    let mut edges: Vec<Edge> = Vec::new();
    for view in views {
        let at = nodes.len();
        nodes.push(Node { label: view.processor.to_owned(), kind: Kind::Processor(view), layer: 0, row: 0 });
        let ends = |names: &[String]| -> BTreeSet<usize> {
            names.iter().filter_map(|name| topics.get(&group(name)).copied()).collect()
        };
        edges.extend(ends(&view.inputs).into_iter().map(|from| Edge {
            from,
            to: at,
            per_second: view.in_per_second,
        }));
        edges.extend(ends(&view.outputs).into_iter().map(|to| Edge {
            from: at,
            to,
            per_second: view.out_per_second,
        }));
        if let Some(store) = view.store {
            edges.push(Edge { from: at, to: nodes.len(), per_second: view.out_per_second });
            nodes.push(Node { label: store.to_owned(), kind: Kind::Store, layer: 0, row: 0 });
        }
    }
    place(&mut nodes, &edges);
    (nodes, edges)
}

/// Every box right of all that lead to it; a processor that reads what it writes does not push itself on.
fn place(nodes: &mut [Node<'_>], edges: &[Edge]) {
    for _ in 0..nodes.len() {
        let mut moved = false;
        for edge in edges {
            let wanted = nodes[edge.from].layer + 1;
            if nodes[edge.to].layer < wanted && wanted < nodes.len() {
                nodes[edge.to].layer = wanted;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    // What nobody here produces stands just before its first reader.
    for at in 0..nodes.len() {
        let reads = edges.iter().filter(|edge| edge.from == at).map(|edge| nodes[edge.to].layer).min();
        if let (false, Some(first)) = (edges.iter().any(|edge| edge.to == at), reads) {
            nodes[at].layer = first.saturating_sub(1);
        }
    }
    // Sinks stand in one column, their stores in the next.
    let sink = |kind: Kind<'_>| matches!(kind, Kind::Processor(view) if view.store.is_some());
    if let Some(last) = nodes.iter().filter(|node| sink(node.kind)).map(|node| node.layer).max() {
        for node in nodes.iter_mut() {
            match node.kind {
                kind if sink(kind) => node.layer = last,
                Kind::Store => node.layer = last + 1,
                _ => {}
            }
        }
    }
    order(nodes, edges);
}

/// Gives the boxes of each column their rows: near what they are joined to, so that few arrows cross.
fn order(nodes: &mut [Node<'_>], edges: &[Edge]) {
    let layers = nodes.iter().map(|node| node.layer + 1).max().unwrap_or(0);
    let mut height: Vec<f64> = (0..nodes.len()).map(|at| at as f64).collect();
    for sweep in 0..6 {
        let mut columns: Vec<usize> = (0..layers).collect();
        if sweep % 2 == 1 {
            columns.reverse();
        }
        for layer in columns {
            let mut column: Vec<usize> = (0..nodes.len()).filter(|at| nodes[*at].layer == layer).collect();
            let pull = |at: usize| {
                let joined = edges.iter().filter_map(|edge| match (edge.from == at, edge.to == at) {
                    (true, _) if sweep % 2 == 1 => Some(height[edge.to]),
                    (_, true) if sweep % 2 == 0 => Some(height[edge.from]),
                    _ => None,
                });
                let (sum, count) = joined.fold((0.0, 0.0), |(sum, count), one| (sum + one, count + 1.0));
                if count == 0.0 { height[at] } else { sum / count }
            };
            let mut pulled: Vec<(f64, usize)> = column.drain(..).map(|at| (pull(at), at)).collect();
            pulled.sort_by(|one, other| one.0.total_cmp(&other.0));
            let middle = pulled.len() as f64 / 2.0;
            for (row, (_, at)) in pulled.into_iter().enumerate() {
                nodes[at].row = row;
                height[at] = row as f64 - middle;
            }
        }
    }
}

/// `fhir` of `fhir.patient`, `cdc` of `^cdc\.(a|b)\..*`.
fn kind_of(name: &str) -> &str {
    let name = name.trim_start_matches('^');
    name.split(['.', '\\']).next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::spec::{Inputs, Spec};
    use crate::status::ProcessorStatus;

    fn view(name: &'static str, inputs: Inputs, outputs: &[&str], store: Option<&'static str>) -> View {
        let spec = Spec {
            name,
            group: name.into(),
            inputs,
            tables: vec![],
            changelog: None,
            outputs: outputs.iter().map(|name| Arc::from(*name)).collect(),
            store,
            dead_letters: Arc::new(|topic| topic.into()),
        };
        ProcessorStatus::new(spec, 1).view()
    }

    #[test]
    fn boxes_stand_right_of_what_leads_to_them() {
        let topics = |names: &[&str]| Inputs::Topics(names.iter().map(|name| Arc::from(*name)).collect());
        let views = [
            view("sink", topics(&["enriched.a", "enriched.b"]), &[], Some("PostgreSQL")),
            view(
                "normalize",
                Inputs::Pattern(r"^cdc\.(x)\..*".into()),
                &["fhir.a", "fhir.b", "vitals.sample"],
                None,
            ),
            view("enrich", topics(&["fhir.a", "fhir.b"]), &["enriched.a", "enriched.b"], None),
        ];
        let (nodes, edges) = chart(&views);
        let layer = |label: &str| nodes.iter().find(|node| node.label == label).unwrap().layer;
        let order = ["cdc.*", "normalize", "fhir.*", "enrich", "enriched.*", "sink", "PostgreSQL"];
        let layers: Vec<_> = order.iter().map(|label| layer(label)).collect();
        assert!(layers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{layers:?}");
        assert_eq!(layer("vitals.sample"), layer("fhir.*"));
        assert_eq!(edges.len(), 7);
        let places: BTreeSet<_> = nodes.iter().map(|node| (node.layer, node.row)).collect();
        assert_eq!(places.len(), nodes.len(), "two boxes share a place");
    }

    #[test]
    fn a_loop_ends() {
        let topics = |name: &str| Inputs::Topics(vec![name.into()]);
        let views = [view("a", topics("x.1"), &["y.1"], None), view("b", topics("y.1"), &["x.1"], None)];
        assert_eq!(chart(&views).0.len(), 4);
    }
}
