//! The report's file: all sections, or some of them in their places.

/// The report with this section in place of the one of the same title, or after all others.
pub fn with_section(report: &str, title: &str, section: &str) -> String {
    let heading = format!("## {title}\n");
    let begin = report.find(&heading).unwrap_or(report.len());
    let rest = &report[begin..];
    let end =
        rest.get(3..).and_then(|after| after.find("\n## ")).map_or(report.len(), |at| begin + 3 + at + 1);
    let (before, after) = (report[..begin].trim_end(), report[end..].trim());
    let parts = [before, section.trim(), after];
    parts.iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("\n\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_takes_the_place_of_its_predecessor_or_comes_last() {
        let report = "# F\n\nh\n\n## A\n\na\n\n## B\n\nb\n\n## C\n\nc\n";
        assert_eq!(with_section(report, "B", "## B\n\nnew\n"), report.replace("\nb\n", "\nnew\n"));
        assert_eq!(with_section(report, "C", "## C\n\nnew\n"), report.replace("\nc\n", "\nnew\n"));
        assert_eq!(with_section(report, "D", "## D\n\nd\n"), format!("{report}\n## D\n\nd\n"));
        assert_eq!(with_section("", "D", "## D\n\nd\n"), "## D\n\nd\n");
    }
}
