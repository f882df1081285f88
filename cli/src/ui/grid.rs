//! Tables as text: columns under a dim header, no borders. Pure.

use super::harmless::harmless;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};

/// In columns. Rows of a narrower terminal run over its edge, and are not broken.
const WIDTH_MIN: u16 = 40;

#[derive(Debug)]
pub(crate) struct Grid(Table);

impl Grid {
    pub(crate) fn new(columns: &[&str]) -> Self {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .enforce_styling();
        // A terminal that does not know its size says 0.
        if table.width().is_some_and(|columns| columns < WIDTH_MIN) {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
        table.set_header(columns.iter().map(|name| Cell::new(name).add_attribute(Attribute::Dim)));
        // Only padding without styles can be trimmed at line ends.
        table.style_text_only();
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self(table)
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.0.add_row(cells.into_iter().collect::<Vec<_>>());
    }

    pub(crate) fn text(&self) -> String {
        self.0.trim_fmt()
    }
}

pub(crate) fn plain(text: impl ToString) -> Cell {
    cell(text)
}

pub(crate) fn strong(text: impl ToString) -> Cell {
    cell(text).add_attribute(Attribute::Bold)
}

pub(crate) fn good(text: impl ToString) -> Cell {
    cell(text).fg(Color::Green)
}

pub(crate) fn doubtful(text: impl ToString) -> Cell {
    cell(text).fg(Color::Yellow)
}

pub(crate) fn bad(text: impl ToString) -> Cell {
    cell(text).fg(Color::Red)
}

fn cell(text: impl ToString) -> Cell {
    Cell::new(harmless(&text.to_string()))
}
