//! Tables on the terminal: columns under a dim header, no borders. Pure: makes text.

use super::harmless::harmless;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};

/// A table that is being filled.
#[derive(Debug)]
pub struct Grid(Table);

impl Grid {
    /// An empty table with these columns.
    pub fn new(columns: &[&str]) -> Self {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .enforce_styling();
        table.set_header(columns.iter().map(|name| Cell::new(name).add_attribute(Attribute::Dim)));
        // Padding without styles can be trimmed at the ends of lines.
        table.style_text_only();
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self(table)
    }

    /// One more row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.0.add_row(cells.into_iter().collect::<Vec<_>>());
    }

    /// The table as text with styles, without an end of line.
    pub fn text(&self) -> String {
        self.0.trim_fmt()
    }
}

/// A plain cell.
pub fn plain(text: impl ToString) -> Cell {
    cell(text)
}

/// A cell for what is named.
pub fn strong(text: impl ToString) -> Cell {
    cell(text).add_attribute(Attribute::Bold)
}

/// A cell for what is well.
pub fn good(text: impl ToString) -> Cell {
    cell(text).fg(Color::Green)
}

/// A cell for what is under way or doubtful.
pub fn doubtful(text: impl ToString) -> Cell {
    cell(text).fg(Color::Yellow)
}

/// A cell for what is wrong.
pub fn bad(text: impl ToString) -> Cell {
    cell(text).fg(Color::Red)
}

fn cell(text: impl ToString) -> Cell {
    Cell::new(harmless(&text.to_string()))
}
