//! Sheets: tables, and what is done to their rows, as SQL.
//!
//! A sheet may begin with `-- needs NAME`: then it counts only where the server has that extension.

use anyhow::{Context, Result};

/// Stands between a sheet's tables and its operations.
const OPERATIONS: &str = "\n-- operations\n";

#[derive(Debug, Clone)]
pub struct Sheet {
    pub name: String,
    /// The extension whose types it has.
    pub extension: Option<String>,
    /// One transaction, in both databases.
    pub tables: String,
    /// Statement by statement, in the source.
    pub operations: String,
}

macro_rules! sheets {
    ($($name:literal),*) => { [$(($name, include_str!(concat!("sheets/", $name, ".sql")))),*] };
}

const WRITTEN: [(&str, &str); 20] = sheets![
    "numbers",
    "texts",
    "times",
    "bits",
    "networks",
    "ranges",
    "shapes",
    "arrays",
    "domains",
    "defaults",
    "required",
    "keys",
    "identity",
    "names",
    "generated",
    "large",
    "transactions",
    "citext",
    "hstore",
    "ltree"
];

/// The sheets that are written by hand.
pub fn written() -> Result<Vec<Sheet>> {
    WRITTEN.iter().map(|(name, text)| Sheet::read(name, text)).collect()
}

impl Sheet {
    fn read(name: &str, text: &str) -> Result<Sheet> {
        let (tables, operations) =
            text.split_once(OPERATIONS).with_context(|| format!("sheet {name} has no `-- operations`"))?;
        let extension = tables.strip_prefix("-- needs ").and_then(|rest| rest.lines().next());
        Ok(Sheet {
            name: name.to_owned(),
            extension: extension.map(str::to_owned),
            tables: tables.to_owned(),
            operations: operations.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_written_sheet_has_tables_and_operations() {
        for sheet in written().unwrap() {
            assert!(sheet.tables.contains("CREATE TABLE"), "{}", sheet.name);
            assert!(sheet.operations.contains("INSERT INTO"), "{}", sheet.name);
        }
        let extensions: Vec<_> = written().unwrap().into_iter().filter_map(|sheet| sheet.extension).collect();
        assert_eq!(extensions, ["citext", "hstore", "ltree"]);
    }

    #[test]
    fn a_sheet_without_operations_is_an_error() {
        assert!(Sheet::read("x", "CREATE TABLE t ()").is_err());
    }
}
