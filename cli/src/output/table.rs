//! A table of text: columns as wide as they must be, numbers to the right.

/// A table that is filled row by row.
#[derive(Debug)]
pub(crate) struct Table {
    headers: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new<const COLUMNS: usize>(headers: [&'static str; COLUMNS]) -> Self {
        Self { headers: headers.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row<const COLUMNS: usize>(&mut self, cells: [String; COLUMNS]) {
        debug_assert_eq!(COLUMNS, self.headers.len());
        self.rows.push(cells.to_vec());
    }

    /// The text, or what is said instead of a table without rows.
    pub(crate) fn text_or(&self, instead: &str) -> String {
        if self.rows.is_empty() { instead.to_owned() } else { self.text() }
    }

    fn text(&self) -> String {
        let columns: Vec<(usize, bool)> = (0..self.headers.len()).map(|column| self.shape(column)).collect();
        let mut text = String::new();
        let headers = self.headers.iter().map(|header| (*header).to_owned()).collect();
        for row in std::iter::once(&headers).chain(&self.rows) {
            let mut line = String::new();
            for (cell, (width, right)) in row.iter().zip(&columns) {
                let cell = if *right { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
                line.push_str(&cell);
                line.push_str("  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// A column's width, and whether it holds numbers only.
    fn shape(&self, column: usize) -> (usize, bool) {
        let cells = || self.rows.iter().map(|row| row[column].as_str());
        let width = cells().map(|cell| cell.chars().count()).chain([self.headers[column].len()]).max();
        let is_number = |cell: &str| cell.chars().all(|c| c.is_ascii_digit() || c == ',');
        (width.unwrap_or(0), cells().all(|cell| !cell.is_empty() && is_number(cell)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_numbers_stand_right() {
        let mut table = Table::new(["table", "rows", "note"]);
        table.row(["customer".into(), "1,200".into(), String::new()]);
        table.row(["ä".into(), "7".into(), "x".into()]);
        assert_eq!(table.text(), "table      rows  note\ncustomer  1,200\nä             7  x\n");
    }

    #[test]
    fn a_table_without_rows_is_a_sentence() {
        assert_eq!(Table::new(["a"]).text_or("nothing there"), "nothing there");
    }
}
