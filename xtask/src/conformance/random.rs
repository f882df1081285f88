//! A sheet of random tables and operations, the same for a seed.

use std::fmt::Write;

use lab::Dice;

use super::sheet::Sheet;

const ROWS: u64 = 12;
const OPERATIONS: u64 = 40;

/// A type with values of it, as SQL. A key has only values that differ as texts and as values.
struct Kind {
    sql: &'static str,
    is_key: bool,
    values: &'static [&'static str],
}

const fn kind(sql: &'static str, is_key: bool, values: &'static [&'static str]) -> Kind {
    Kind { sql, is_key, values }
}

#[rustfmt::skip]
const KINDS: &[Kind] = &[
    kind("smallint", true, &["-32768", "0", "7", "32767"]),
    kind("integer", true, &["-2147483648", "0", "42", "2147483647"]),
    kind("bigint", true, &["-9223372036854775808", "0", "9007199254740993", "9223372036854775807"]),
    kind("real", false, &["0", "1.5", "3.3", "-1e10", "1e-5"]),
    kind("double precision", false, &["0", "-0.1", "1e21", "123456789.123456789"]),
    kind("boolean", true, &["true", "false"]),
    kind("numeric(10,2)", true, &["0", "1.10", "-1.28", "99999999.99"]),
    kind("numeric(20)", true, &["0", "127", "128", "-99999999999999999999"]),
    kind("numeric", false, &["0", "1.50", "100", "-0.0001", "12345678901234567890.5"]),
    kind("money", false, &["'1.50'", "'-20'"]),
    kind("text", true, &["''", "'a \"b\" \\ c'", "'🐘 ž'", "E'tab\\tline\\n'"]),
    kind("varchar(12)", true, &["''", "'null'", "'word'", "'žluť'"]),
    kind("char(6)", false, &["''", "'ab'", "'🐘'"]),
    kind("bytea", true, &["'\\x'", "'\\x00ff'", "'\\xdeadbeef'"]),
    kind("uuid", true, &["'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "'00000000-0000-0000-0000-000000000000'"]),
    kind("json", false, &["'{ \"b\": 1, \"a\": [1.50, null] }'", "'null'", "'[]'"]),
    kind("jsonb", false, &["'{ \"b\": 1, \"a\": [1.50, null] }'", "'null'", "'\"é\"'"]),
    kind("xml", false, &["'<a b=\"c\">d &amp; e</a>'", "''"]),
    kind("tint", true, &["'light'", "'dark one'"]),
    kind("date", true, &["'1970-01-01'", "'2016-11-04'", "'0044-03-15 BC'", "'9999-12-31'"]),
    kind("time", true, &["'00:00'", "'13:51:30.123456'", "'24:00:00'"]),
    kind("time(3)", false, &["'00:00'", "'13:51:30.123'"]),
    kind("timetz", false, &["'13:51:30.5+02'", "'00:00+00'"]),
    kind("timestamp", true, &["'1970-01-01'", "'2016-11-04 13:51:30.123456'", "'1936-10-25 22:10:12.608'"]),
    kind("timestamp(0)", false, &["'2016-11-04 13:51:30.6'", "'1969-12-31 23:59:59'"]),
    kind("timestamptz", true, &["'2020-04-01 11:51:02+02'", "'1969-12-31 23:59:59.999999+00'", "'2020-06-30 12:00:00.5+00'"]),
    kind("interval", false, &["'1 year 2 mons 3 days 04:05:06.078'", "'-1 day'", "'0'"]),
    kind("bit(1)", false, &["'0'", "'1'"]),
    kind("bit(11)", false, &["'00000000001'", "'10000000001'"]),
    kind("inet", true, &["'127.0.0.1'", "'2001:db8::1/64'"]),
    kind("macaddr", true, &["'08:00:2b:01:02:03'"]),
    kind("int4range", false, &["'[1,5)'", "'empty'", "'(,)'"]),
    kind("tstzrange", false, &["'[2020-01-01 00:00+00,)'", "'empty'"]),
    kind("point", false, &["'(1,-2.5)'", "'(0,0)'"]),
    kind("integer[]", false, &["'{}'", "'{1,NULL,3}'"]),
    kind("text[]", false, &["'{}'", "'{\"a b\",NULL,\"null\"}'"]),
    kind("numeric(6,2)[]", false, &["'{1.10,-2}'", "'{NULL}'"]),
    kind("timestamptz[]", false, &["'{\"2020-04-01 11:51:02+00\"}'"]),
    kind("whole_number", true, &["1", "-1"]),
];

struct Column {
    name: String,
    kind: &'static Kind,
    is_required: bool,
    default: Option<&'static str>,
    is_key: bool,
}

struct Table {
    name: String,
    columns: Vec<Column>,
}

/// Throws `count` tables, and operations on them.
pub fn thrown(dice: &mut Dice, count: usize) -> Sheet {
    let mut tables =
        "CREATE TYPE tint AS ENUM ('light', 'dark one');\nCREATE DOMAIN whole_number AS int;\n".to_owned();
    let mut operations = String::new();
    for number in 0..count {
        let table = table(dice, number);
        tables.push_str(&table.create(dice));
        table.operate(dice, &mut operations);
    }
    Sheet { name: "random".to_owned(), extension: None, tables, operations }
}

fn pick<T>(dice: &mut Dice, of: &'static [T]) -> &'static T {
    &of[usize::try_from(dice.below(of.len() as u64)).unwrap_or(0)]
}

fn table(dice: &mut Dice, number: usize) -> Table {
    let mut columns: Vec<Column> = Vec::new();
    let width = 3 + dice.below(10);
    for at in 0..width {
        let kind = pick(dice, KINDS);
        let is_required = dice.one_in(3);
        let default = dice.one_in(3).then(|| *pick(dice, kind.values));
        columns.push(Column { name: format!("c{at}"), kind, is_required, default, is_key: false });
    }
    // A serial number makes every key one of its own.
    let id =
        Column { name: "id".to_owned(), kind: &KINDS[1], is_required: true, default: None, is_key: true };
    columns.insert(usize::try_from(dice.below(width + 1)).unwrap_or(0), id);
    if dice.one_in(2)
        && let Some(column) = columns.iter_mut().find(|column| column.kind.is_key && !column.is_key)
    {
        column.is_key = true;
    }
    Table { name: format!("random_{number}"), columns }
}

impl Table {
    fn create(&self, dice: &mut Dice) -> String {
        let column = |column: &Column| {
            let default = column.default.map(|value| format!(" DEFAULT {value}")).unwrap_or_default();
            let required = if column.is_required { " NOT NULL" } else { "" };
            format!("{} {}{default}{required}", column.name, column.kind.sql)
        };
        let columns: Vec<_> = self.columns.iter().map(column).collect();
        let mut key: Vec<_> =
            self.columns.iter().filter(|column| column.is_key).map(|c| c.name.as_str()).collect();
        if dice.one_in(2) {
            key.reverse();
        }
        let name = &self.name;
        let full = if dice.one_in(3) {
            format!("ALTER TABLE {name} REPLICA IDENTITY FULL;\n")
        } else {
            String::new()
        };
        format!("CREATE TABLE {name} ({}, PRIMARY KEY ({}));\n{full}", columns.join(", "), key.join(", "))
    }

    fn operate(&self, dice: &mut Dice, out: &mut String) {
        let name = &self.name;
        // Writing into a text does not fail.
        for fresh in 1000..1000 + OPERATIONS {
            let id = dice.below(ROWS);
            let _ = match dice.below(20) {
                0..9 => {
                    let named = self
                        .columns
                        .iter()
                        .filter(|column| column.name != "id")
                        .map(|column| (column.name.as_str(), self.value(dice, column)));
                    let (names, values): (Vec<_>, Vec<_>) = named.unzip();
                    let (names, values) = (names.join(", "), values.join(", "));
                    writeln!(
                        out,
                        "INSERT INTO {name} (id, {names}) SELECT {id}, {values} WHERE NOT EXISTS (SELECT FROM {name} WHERE id = {id});"
                    )
                }
                9..14 => {
                    let at = usize::try_from(dice.below(self.columns.len() as u64)).unwrap_or(0);
                    let column = &self.columns[at];
                    if column.name == "id" {
                        writeln!(out, "UPDATE {name} SET id = {fresh} WHERE id = {id};")
                    } else {
                        let value = self.value(dice, column);
                        writeln!(out, "UPDATE {name} SET {} = {value} WHERE id <= {id};", column.name)
                    }
                }
                14..17 => writeln!(out, "DELETE FROM {name} WHERE id = {id};"),
                17 => writeln!(out, "UPDATE {name} SET id = id WHERE id < {id};"),
                18 => writeln!(
                    out,
                    "BEGIN; DELETE FROM {name} WHERE id < 3; UPDATE {name} SET id = {fresh} WHERE id = {id}; COMMIT;"
                ),
                _ => writeln!(out, "TRUNCATE {name};"),
            };
        }
    }

    fn value(&self, dice: &mut Dice, column: &Column) -> String {
        let may_be_null = !column.is_required && !column.is_key;
        match dice.below(8) {
            0 if may_be_null => "NULL".to_owned(),
            1 if may_be_null || column.default.is_some() => column.default.unwrap_or("NULL").to_owned(),
            _ => format!("({})::{}", pick(dice, column.kind.values), column.kind.sql),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_sheet_and_another_one_another() {
        let throw = |seed| thrown(&mut Dice::new(seed), 5);
        let (one, same, other) = (throw(1), throw(1), throw(2));
        assert_eq!((&one.tables, &one.operations), (&same.tables, &same.operations));
        assert_ne!(one.tables, other.tables);
        assert!(one.operations.lines().count() == 200, "{}", one.operations);
    }
}
