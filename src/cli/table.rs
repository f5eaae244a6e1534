//! Tables that subcommands print.

/// A table of text.
pub struct Table {
    /// Names of the columns.
    pub heads: Vec<String>,
    /// A cell a column.
    pub rows: Vec<Vec<String>>,
}

/// How a [`Table`] is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Columns apart by blanks.
    Text,
    /// A Markdown table.
    Markdown,
    /// Comma-separated values.
    Csv,
}

impl Table {
    /// All lines, without a line end after the last.
    pub fn text(&self, style: Style) -> String {
        let lines: Vec<&Vec<String>> = [&self.heads].into_iter().chain(&self.rows).collect();
        if style == Style::Csv {
            let quoted = |cell: &String| match cell.contains([',', '"', '\n']) {
                true => format!("\"{}\"", cell.replace('"', "\"\"")),
                false => cell.clone(),
            };
            let line = |l: &&Vec<String>| l.iter().map(quoted).collect::<Vec<_>>().join(",");
            return lines.iter().map(line).collect::<Vec<_>>().join("\n");
        }
        let columns = self.heads.len();
        let width = |c: usize| lines.iter().map(|l| l[c].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        // Names to the left, numbers to the right.
        let is_name = |c: usize| {
            self.rows.iter().all(|r| !r[c].starts_with(|x: char| x.is_ascii_digit() || x == '-'))
        };
        let cell = |c: usize, text: &String| match is_name(c) {
            true => format!("{text:<0$}", widths[c]),
            false => format!("{text:>0$}", widths[c]),
        };
        let line = |l: &Vec<String>| -> String {
            let cells: Vec<_> = l.iter().enumerate().map(|(c, text)| cell(c, text)).collect();
            match style {
                Style::Markdown => format!("| {} |", cells.join(" | ")),
                _ => cells.join("  ").trim_end().to_owned(),
            }
        };
        let mut out: Vec<String> = lines.iter().map(|l| line(l)).collect();
        if style == Style::Markdown {
            let rule = |c: usize| match is_name(c) {
                true => "-".repeat(widths[c].max(3)),
                false => format!("{}:", "-".repeat(widths[c].max(3) - 1)),
            };
            let rules: Vec<_> = (0..columns).map(rule).collect();
            out.insert(1, format!("| {} |", rules.join(" | ")));
        }
        out.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_in_three_styles() {
        let table = Table {
            heads: vec!["test".into(), "tokens/s".into()],
            rows: vec![vec!["pp512".into(), "7.5".into()], vec!["tg, 8".into(), "-".into()]],
        };
        let text = "test   tokens/s\npp512       7.5\ntg, 8         -";
        assert_eq!(table.text(Style::Text), text);
        let md = "| test  | tokens/s |\n| ----- | -------: |\n| pp512 |      7.5 |\n| tg, 8 |        - |";
        assert_eq!(table.text(Style::Markdown), md);
        assert_eq!(table.text(Style::Csv), "test,tokens/s\npp512,7.5\n\"tg, 8\",-");
    }
}
