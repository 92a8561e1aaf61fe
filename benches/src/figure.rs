//! One measured figure, and the table of them.

use std::fmt::Write as _;

/// Median, least and greatest of some rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub greatest: f64,
}

/// What is wanted of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
    None,
}

/// What a figure's value is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unit {
    /// A share, shown as per cent.
    Share,
    Microseconds,
    Milliseconds,
    Seconds,
    PerSecond,
    Mebibytes,
    Bytes,
    /// How many times as much.
    Times,
    /// A number of things.
    Count,
}

/// A line of the table.
pub struct Figure {
    pub what: String,
    /// What was measured, and what it is compared with.
    pub measured: String,
    pub value: Spread,
    pub unit: Unit,
    pub goal: Goal,
}

/// Figures that belong together, with how they were got.
pub struct Section {
    pub title: &'static str,
    pub how: String,
    pub figures: Vec<Figure>,
}

impl Spread {
    pub fn of(rounds: &[f64]) -> Spread {
        let mut sorted = rounds.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => (at(middle.wrapping_sub(1)) + at(middle)) / 2.0,
            _ => at(middle),
        };
        Spread { median, least: at(0), greatest: at(sorted.len().wrapping_sub(1)) }
    }

    pub fn one(value: f64) -> Spread {
        Spread { median: value, least: value, greatest: value }
    }
}

impl Figure {
    fn met(&self) -> &'static str {
        let value = self.value.median;
        match self.goal {
            Goal::AtLeast(goal) if value >= goal => "met",
            Goal::AtMost(goal) if value <= goal => "met",
            Goal::None => "",
            _ => "**missed**",
        }
    }

    fn goal(&self) -> String {
        match self.goal {
            Goal::AtLeast(goal) => format!("≥ {}", self.unit.show(goal)),
            Goal::AtMost(goal) => format!("≤ {}", self.unit.show(goal)),
            Goal::None => String::new(),
        }
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Unit::Share => format!("{:.0} %", value * 100.0),
            Unit::Microseconds => format!("{value:.1} µs"),
            Unit::Milliseconds => format!("{value:.0} ms"),
            Unit::Seconds => format!("{value:.2} s"),
            Unit::PerSecond => format!("{value:.0}/s"),
            Unit::Mebibytes => format!("{value:.0} MiB"),
            Unit::Bytes => format!("{value:.0} bytes"),
            Unit::Times => format!("{value:.1}×"),
            Unit::Count if value < 100.0 && value.fract() != 0.0 => format!("{value:.2}"),
            Unit::Count => format!("{value:.0}"),
        }
    }
}

impl Section {
    /// As Markdown.
    pub fn to_markdown(&self) -> String {
        let mut text = format!("## {}\n\n{}\n\n", self.title, self.how.trim());
        text.push_str(
            "| Figure | Measured | Median | Least to greatest | Goal | |\n|---|---|---:|---:|---:|---|\n",
        );
        for figure in &self.figures {
            let Spread { median, least, greatest } = figure.value;
            let range = match least == greatest {
                true => String::new(),
                false => format!("{} to {}", figure.unit.show(least), figure.unit.show(greatest)),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {} | {} | {} | {range} | {} | {} |",
                figure.what,
                figure.measured,
                figure.unit.show(median),
                figure.goal(),
                figure.met()
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let spread = Spread::of(&[3.0, 1.0, 2.0]);
        assert_eq!(spread, Spread { median: 2.0, least: 1.0, greatest: 3.0 });
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert!(Spread::of(&[]).median.is_nan());
    }

    #[test]
    fn a_goal_is_met_or_missed_and_never_met_without_a_value() {
        let figure = |value, goal| Figure {
            what: "w".into(),
            measured: "m".into(),
            value: Spread::one(value),
            unit: Unit::Share,
            goal,
        };
        assert_eq!(figure(0.6, Goal::AtLeast(0.6)).met(), "met");
        assert_eq!(figure(0.59, Goal::AtLeast(0.6)).met(), "**missed**");
        assert_eq!(figure(0.08, Goal::AtMost(0.07)).met(), "**missed**");
        assert_eq!(figure(f64::NAN, Goal::AtMost(0.07)).met(), "**missed**");
        let section =
            Section { title: "T", how: "how".into(), figures: vec![figure(0.6, Goal::AtLeast(0.6))] };
        assert!(section.to_markdown().ends_with("| w | m | 60 % |  | ≥ 60 % | met |\n"));
    }
}
