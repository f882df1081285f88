//! Columns: one change of the sound world for each finding about them, and what is no finding.

use super::*;
use crate::code::Code;

#[test]
fn columns_and_their_types() {
    let other = |name: &str| TypeSeen::Other(name.to_owned());
    brings(Code::SourceType, "drop: [note]", |w| w.source().columns[2].kind = other("anyelement"));
    brings(Code::SourceType, "drop: [note]", |w| {
        w.source().columns[2].kind = TypeSeen::Array(Box::new(TypeSeen::Base("regclass".to_owned())));
    });
    let named = brings(Code::SourceLargeObject, "type bytea, or write `drop: [note]`", |w| {
        w.source().large_objects.insert("note".to_owned());
    });
    assert!(!named.is_error());
    brings(Code::SinkNoColumn, "ADD COLUMN \"extra\" int4;", |w| {
        w.source().columns.push(column("extra", "int4"));
    });
    brings(Code::SinkGeneratedColumn, "drop: [customer_id]", |w| {
        w.sink().columns[1].generated_as = Some("1".to_owned())
    });
    brings(Code::SinkType, "TYPE int8 USING \"customer_id\"::int8;", |w| {
        w.sink().columns[1] = column("customer_id", "bool")
    });
    let narrow = brings(Code::SinkNarrowerType, "TYPE int8 USING \"customer_id\"::int8;", |w| {
        w.sink().columns[1] = column("customer_id", "int4")
    });
    assert!(!narrow.is_error());
    let labels = |labels: [&str; 2]| TypeSeen::Enum {
        name: "public.state".to_owned(),
        labels: labels.map(str::to_owned).to_vec(),
    };
    brings(Code::SinkNarrowerType, "ALTER TABLE", |w| {
        w.source().columns[2].kind = labels(["a", "b"]);
        w.sink().columns[2].kind = labels(["a", "c"]);
    });
    let json = brings(Code::SinkJsonRewritten, "TYPE json USING", |w| {
        w.source().columns[2] = column("note", "json");
        w.sink().columns[2] = column("remark", "jsonb");
    });
    assert!(!json.is_error() && json.message.contains("and \\u0000 stops"), "{}", json.message);
    let twice = brings(Code::PlanColumnTwice, "`drop: [remark]`", |w| {
        w.source().columns.push(column("remark", "text"));
    });
    assert!(
        twice.is_error()
            && twice.message.contains("columns note and remark of public.orders both go to remark")
    );
    brings(Code::SinkNotNull, "ALTER COLUMN \"remark\" DROP NOT NULL;", |w| {
        w.source().columns[2].is_nullable = true
    });
    brings(Code::SinkUnfilledColumn, "ALTER COLUMN \"region\" DROP NOT NULL;", |w| {
        w.sink().columns.push(column("region", "text"));
    });
    let mut filled = World::sound();
    filled.sink().columns.push(ColumnSeen { has_default: true, ..column("region", "text") });
    filled
        .source()
        .columns
        .push(ColumnSeen { generated_as: Some("1".to_owned()), ..column("search", "tsvector") });
    assert_eq!(filled.findings(), []);
}

#[test]
fn expressions_over_columns() {
    let full = "ALTER TABLE \"public\".\"orders\" REPLICA IDENTITY FULL;";
    brings(Code::SourceToastInSet, full, |w| w.source().columns[3].is_toastable = true);
    let mut whole = World::sound();
    whole.source().columns[3].is_toastable = true;
    whole.source().identity = IdentitySeen::Full;
    assert_eq!(whole.findings(), []);
    brings(Code::SourceNoColumn, "correct", |w| drop(w.source().columns.remove(3)));
    brings(Code::SourceGeneratedInSet, "generating expression", |w| {
        w.source().columns[3].generated_as = Some("1".to_owned())
    });
    brings(Code::SinkNoColumn, "add the column", |w| drop(w.sink().columns.remove(3)));
    brings(Code::SinkGeneratedColumn, "`total_cents`", |w| {
        w.sink().columns[3].generated_as = Some("1".to_owned())
    });
}

#[test]
fn generated_columns_and_identities() {
    let full = || ColumnSeen {
        generated_as: Some(r#"("note" || '$"\'::text)"#.to_owned()),
        ..column("full", "text")
    };
    let hint = r#"`set: { full: "(\"note\" || '$$\"\\'::text)" }`"#;
    let found = brings(Code::SourceGeneratedColumn, hint, |w| {
        w.source().columns.push(full());
        w.sink().columns.push(column("full", "text"));
    });
    assert!(found.is_error() && found.remedy.contains("`drop: [full]`"));
    let mut alike = World::sound();
    alike.source().columns.push(full());
    alike.sink().columns.push(full());
    assert_eq!(alike.findings(), []);
    let computed = brings(Code::SourceGeneratedKey, "ALTER COLUMN \"id\" DROP EXPRESSION;", |w| {
        w.source().columns[0].generated_as = Some("customer_id * 2".to_owned());
    });
    assert!(computed.is_error(), "whether the service computes it, too, or is to be told: {computed}");
    let told = World::of(&PLAN.replace("    reference:", "        drop: [full]\n    reference:"));
    let mut dropped = World { source: World::sound().source, ..told };
    dropped.source.installed.as_mut().unwrap().facts =
        Some(crate::sql::facts(&dropped.plan, &Database::Monolith, "strangler"));
    dropped.source().columns.push(full());
    dropped.sink().columns.push(ColumnSeen { is_nullable: true, ..column("full", "text") });
    assert_eq!(dropped.findings(), []);

    let by_default = "service orders's database: ALTER TABLE \"public\".\"orders\" ALTER COLUMN \"id\" SET GENERATED BY DEFAULT;";
    let always = |column: &mut ColumnSeen| (column.is_always_identity, column.has_default) = (true, true);
    assert!(brings(Code::SinkIdentityAlways, by_default, |w| always(&mut w.sink().columns[0])).is_error());
    let mut own = World::sound();
    always(&mut own.source().columns[0]);
    own.sink().columns.push(column("no", "int8"));
    always(own.sink().columns.last_mut().unwrap());
    assert_eq!(own.findings(), []);
}

#[test]
fn an_expression_over_texts_needs_one_locale() {
    let change = |w: &mut World, exact: &str, locale: &str| {
        w.sink.collation = locale.to_owned();
        let total = w.source().columns.iter_mut().find(|column| column.name == "total").unwrap();
        *total = ColumnSeen { exact: exact.to_owned(), is_toastable: false, ..column("total", "text") };
    };
    let other = "en_US.UTF-8 en_US.UTF-8";
    let found = brings(Code::PlanOtherCollation, "\"total\" COLLATE \"C\"", |w| change(w, "text", other));
    assert!(!found.is_error() && found.message.contains(other), "{}", found.message);
    for (exact, locale) in [("text COLLATE pg_catalog.\"C\"", other), ("text", "C.utf8 C.utf8")] {
        let mut world = World::sound();
        change(&mut world, exact, locale);
        assert_eq!(world.findings(), []);
    }
}
