//! Types as they are carried, refused, named, and taken by another type.

use super::*;

fn of_postgres(name: &str) -> TypeSeen {
    TypeSeen::Base(name.to_owned())
}

fn name_of(schema: &str, name: &str) -> TypeName {
    TypeName { schema: schema.to_owned(), name: name.to_owned() }
}

fn own(schema: &str, name: &str) -> TypeSeen {
    TypeSeen::Own(name_of(schema, name))
}

fn domain(name: &str, of: &TypeSeen, modifier: i32) -> TypeSeen {
    TypeSeen::Domain { name: name_of("public", name), of: Box::new(of.clone()), modifier }
}

fn range(of: &TypeSeen) -> TypeSeen {
    TypeSeen::Range { name: name_of("pg_catalog", "range"), of: Box::new(of.clone()) }
}

fn composite(fields: &[(&str, &str)]) -> TypeSeen {
    let field = |(name, kind): &(&str, &str)| FieldSeen {
        number: 0,
        name: (*name).to_owned(),
        kind: of_postgres(kind),
        modifier: -1,
    };
    TypeSeen::Composite { name: name_of("public", "pair"), fields: fields.iter().map(field).collect() }
}

fn base(from: &str, modifier: i32, to: &str, to_modifier: i32) -> Fit {
    let base = |name: &str| TypeSeen::Base(name.to_owned());
    fit(&base(from), modifier, &base(to), to_modifier)
}

/// `numeric(precision,scale)` as the catalog keeps it.
fn numeric(precision: i32, scale: i32) -> i32 {
    ((precision << 16) | (scale & 0x7ff)) + 4
}

#[test]
fn wider_is_exact_and_narrower_may_refuse() {
    assert_eq!(base("int4", -1, "int8", -1), Fit::Exact);
    assert_eq!(base("int8", -1, "int4", -1), Fit::MayRefuse);
    assert_eq!(base("varchar", 14, "text", -1), Fit::Exact);
    assert_eq!(base("varchar", 14, "varchar", 24), Fit::Exact);
    assert_eq!(base("text", -1, "varchar", 24), Fit::MayRefuse);
    assert_eq!(base("uuid", -1, "varchar", 14), Fit::MayRefuse);
    assert_eq!(base("jsonb", -1, "json", -1), Fit::Exact);
    assert_eq!(base("json", -1, "jsonb", -1), Fit::Rewrites);
    assert_eq!(base("name", -1, "text", -1), Fit::Exact);
    assert_eq!(base("uuid", -1, "name", -1), Fit::Exact);
}

#[test]
fn what_would_be_rounded_or_shifted_is_refused() {
    assert_eq!(base("numeric", -1, "numeric", numeric(12, 2)), Fit::Changes);
    assert_eq!(base("numeric", numeric(12, 4), "numeric", numeric(12, 2)), Fit::Changes);
    assert_eq!(base("numeric", numeric(12, 2), "numeric", numeric(10, 2)), Fit::MayRefuse);
    assert_eq!(base("numeric", numeric(10, 2), "numeric", numeric(12, 2)), Fit::Exact);
    assert_eq!(base("numeric", numeric(5, -2), "numeric", numeric(5, 0)), Fit::MayRefuse);
    assert_eq!(base("timestamp", -1, "timestamptz", -1), Fit::Changes);
    assert_eq!(base("timestamp", -1, "timestamp", 3), Fit::Changes);
    assert_eq!(base("timestamp", 3, "timestamp", -1), Fit::Exact);
    assert_eq!(base("float8", -1, "float4", -1), Fit::Changes);
    assert_eq!(base("bpchar", 14, "text", -1), Fit::Changes);
    assert_eq!(base("text", -1, "name", -1), Fit::Changes);
    assert_eq!(base("varchar", 104, "name", -1), Fit::Changes);
}

fn labels(labels: &[&str]) -> TypeSeen {
    let labels = labels.iter().map(|label| (*label).to_owned()).collect();
    TypeSeen::Enum { name: "public.state".to_owned(), labels }
}

fn array(element: &TypeSeen) -> TypeSeen {
    TypeSeen::Array(Box::new(element.clone()))
}

#[test]
fn enums_and_arrays_fit_by_their_labels_and_elements() {
    let text = TypeSeen::Base("text".to_owned());
    let fit = |source: &TypeSeen, sink: &TypeSeen| fit(source, -1, sink, -1);
    assert_eq!(fit(&labels(&["a"]), &labels(&["a"])), Fit::Exact);
    assert_eq!(fit(&labels(&["a"]), &labels(&["b", "a"])), Fit::Exact);
    assert_eq!(fit(&labels(&["a", "b"]), &labels(&["a"])), Fit::MayRefuse);
    assert_eq!(fit(&labels(&["a"]), &text), Fit::Exact);
    assert_eq!(fit(&array(&text), &array(&text)), Fit::Exact);
    assert_eq!(fit(&array(&text), &text), Fit::Changes);
}

#[test]
fn texts_that_ignore_case_are_carried_as_texts() {
    assert_eq!(base("citext", -1, "citext", -1), Fit::Exact);
    assert_eq!(base("citext", -1, "text", -1), Fit::Exact);
    assert_eq!(base("citext", -1, "varchar", 24), Fit::MayRefuse);
    assert_eq!(base("text", -1, "citext", -1), Fit::MayRefuse);
    assert_eq!(base("citext", -1, "name", -1), Fit::Changes);
}

/// Every base type that a table of PostgreSQL 15 can have.
const BASE: &str = "int2 int4 int8 oid bool float4 float8 numeric text varchar bpchar name bytea uuid json jsonb date time \
    timestamp timestamptz timetz interval money bit varbit inet cidr macaddr macaddr8 xml tsvector tsquery char point line \
    lseg box path polygon circle jsonpath pg_lsn xid xid8 cid tid pg_snapshot txid_snapshot refcursor int2vector oidvector";

#[test]
fn what_is_carried_fits_itself_and_has_a_name_at_the_sink() {
    let made = [
        own("public", "hstore"),
        own("ext", "citext"),
        labels(&["a"]),
        composite(&[("a", "int4"), ("b", "xml")]),
    ];
    let bases: Vec<TypeSeen> = BASE.split_whitespace().map(of_postgres).collect();
    let ranges: Vec<TypeSeen> = bases.iter().map(range).collect();
    for kind in bases.into_iter().chain(ranges).chain(made) {
        for kind in [array(&kind), domain("d", &kind, -1), array(&domain("d", &kind, -1)), kind] {
            assert!(ColumnType::of(&kind, -1).is_carried(), "{kind:?}");
            assert_eq!(fit(&kind, -1, &kind, -1), Fit::Exact, "{kind:?}");
        }
    }
}

#[test]
fn what_only_one_database_understands_is_refused_wherever_it_hides() {
    for name in ["regclass", "regrole", "aclitem", "pg_node_tree", "pg_mcv_list", "gtsvector"] {
        let kind = of_postgres(name);
        let inside = TypeSeen::Composite {
            name: name_of("public", "pair"),
            fields: vec![FieldSeen { number: 1, name: "a".to_owned(), kind: array(&kind), modifier: -1 }],
        };
        for kind in [array(&kind), domain("d", &kind, -1), range(&kind), array(&inside), inside, kind] {
            assert_eq!(ColumnType::of(&kind, -1), ColumnType::Unsupported(name.to_owned()), "{kind:?}");
            assert!(kind.refused().is_some_and(|(_, why)| !why.is_empty()));
        }
    }
    assert!(!ColumnType::of(&TypeSeen::Other("anyelement".to_owned()), -1).is_carried());
}

#[test]
fn a_domain_is_its_base_type_and_may_refuse_more_at_the_sink() {
    let short = domain("short", &of_postgres("varchar"), 9);
    let outer = domain("outer", &short, -1);
    assert_eq!(ColumnType::of(&outer, -1), ColumnType::Text);
    assert_eq!((outer.sql(-1).as_str(), outer.cast().as_str()), ("character varying(5)", "varchar"));
    let text = of_postgres("text");
    assert_eq!(fit(&outer, -1, &text, -1), Fit::Exact);
    assert_eq!(fit(&text, -1, &outer, -1), Fit::MayRefuse);
    assert_eq!(fit(&short, -1, &domain("other", &of_postgres("varchar"), 9), -1), Fit::MayRefuse);
    let digits = domain("short", &of_postgres("numeric"), numeric(5, 1));
    assert_eq!(fit(&domain("short", &of_postgres("numeric"), numeric(5, 2)), -1, &digits, -1), Fit::Changes);
}

#[test]
fn what_is_known_by_its_text_fits_a_text_and_its_like() {
    assert_eq!(base("inet", -1, "text", -1), Fit::Exact);
    assert_eq!(base("inet", -1, "varchar", 24), Fit::MayRefuse);
    assert_eq!(base("inet", -1, "cidr", -1), Fit::Changes);
    assert_eq!(base("text", -1, "inet", -1), Fit::Changes);
    assert_eq!(base("int4", -1, "text", -1), Fit::Changes);
    assert_eq!(base("xml", -1, "name", -1), Fit::Changes);
    assert_eq!(base("bit", 3, "bit", 5), Fit::Changes);
    assert_eq!(base("bit", 3, "varbit", 2), Fit::MayRefuse);
    assert_eq!(base("varbit", -1, "varbit", 5), Fit::MayRefuse);
    assert_eq!(base("timetz", -1, "timetz", 0), Fit::Changes);
    assert_eq!(base("interval", -1, "interval", 0x7fff), Fit::Changes);
    let own_text = |kind: &TypeSeen| fit(kind, -1, &of_postgres("text"), -1);
    assert_eq!(own_text(&own("public", "vector")), Fit::Exact);
    assert_eq!(own_text(&composite(&[("a", "int4")])), Fit::Exact);
    assert_eq!(fit(&own("a", "vector"), 3, &own("b", "vector"), -1), Fit::Exact);
    assert_eq!(fit(&own("a", "vector"), 3, &own("b", "vector"), 4), Fit::Changes);
    assert_eq!(fit(&own("a", "vector"), -1, &own("a", "halfvec"), -1), Fit::Changes);
}

#[test]
fn a_composite_fits_field_by_field() {
    let pair = composite(&[("a", "int4"), ("b", "text")]);
    let as_pair = |fields: &[(&str, &str)]| fit(&pair, -1, &composite(fields), -1);
    assert_eq!(as_pair(&[("a", "int8"), ("b", "text")]), Fit::Exact);
    assert_eq!(as_pair(&[("a", "int2"), ("b", "text")]), Fit::MayRefuse);
    assert_eq!(as_pair(&[("b", "int4"), ("a", "text")]), Fit::Changes);
    assert_eq!(as_pair(&[("a", "int4")]), Fit::Changes);
    assert_eq!(as_pair(&[("a", "int4"), ("b", "int4")]), Fit::Changes);
}

#[test]
fn an_expression_gets_the_type_with_its_digits_and_its_length() {
    for (name, modifier, sql) in [
        ("bpchar", 9, "character(5)"),
        ("bpchar", -1, "bpchar"),
        ("varchar", 9, "character varying(5)"),
        ("numeric", numeric(5, -2), "numeric(5,-2)"),
        ("time", 3, "\"time\"(3)"),
        ("timestamptz", 0, "\"timestamptz\"(0)"),
        ("bit", 4, "\"bit\"(4)"),
        ("char", -1, "\"char\""),
        ("int4", -1, "\"int4\""),
    ] {
        assert_eq!(of_postgres(name).sql(modifier), sql);
        assert_eq!(array(&of_postgres(name)).sql(modifier), format!("{sql}[]"));
    }
    assert_eq!(own("ext", "Vec.tor").sql(-1), "\"ext\".\"Vec.tor\"");
}

#[test]
fn a_modifier_gives_digits() {
    let of = |name: &str, modifier| ColumnType::of(&TypeSeen::Base(name.to_owned()), modifier);
    assert_eq!(of("numeric", numeric(12, 2)), ColumnType::Numeric { precision: 12, scale: 2 });
    assert_eq!(of("numeric", numeric(5, -2)), ColumnType::Numeric { precision: 5, scale: -2 });
    assert_eq!(of("numeric", -1), ColumnType::NumericAny);
    assert_eq!(of("timestamp", 3), ColumnType::Timestamp { precision: 3 });
    assert_eq!(of("time", -1), ColumnType::Time { precision: 6 });
}

#[test]
fn binary_means_the_same_without_oids_only() {
    let of = |kind: &TypeSeen| ColumnType::of(kind, -1);
    let text = TypeSeen::Base("text".to_owned());
    assert!(of(&text).is_binary_alike(Some("character varying(20)"), "text"));
    assert!(!of(&text).is_binary_alike(Some("text"), "citext"));
    assert!(of(&array(&text)).is_binary_alike(Some("text[]"), "text[]"));
    assert!(!of(&array(&text)).is_binary_alike(Some("citext[]"), "citext[]"));
    assert!(!of(&labels(&["a"])).is_binary_alike(Some("state"), "state"));
}
