//! Foreign keys: one change of the sound world for each finding about them, and what is no finding.

use super::*;
use crate::code::Code;

fn key(from: &str, to: &str, on_delete: ActionSeen) -> ForeignKeySeen {
    ForeignKeySeen {
        name: "fk".to_owned(),
        from: table(from),
        from_columns: vec!["customer_id".to_owned()],
        to: table(to),
        to_columns: vec!["id".to_owned()],
        is_deferrable: false,
        is_deferred: false,
        on_delete,
        on_update: ActionSeen::NoAction,
    }
}

#[test]
fn foreign_keys_that_leave_the_sinks_tables() {
    let cascading = |from, to| key(from, to, ActionSeen::Cascade);
    brings(Code::SinkForeignKeyOutside, "add public.regions", |w| {
        w.sink.foreign_keys.push(cascading("orders", "regions"))
    });
    brings(Code::SinkForeignKeyCascades, "fk", |w| w.sink.foreign_keys.push(cascading("notes", "orders")));
}

#[test]
fn foreign_keys_over_the_border_hinder_only_a_cutover() {
    let crosses = |key: ForeignKeySeen| {
        super::cutover::hinders(Code::SourceForeignKeyAcross, "DROP CONSTRAINT \"fk\";", move |w| {
            w.source.foreign_keys.push(key);
        })
    };
    let orphans = "SELECT c.* FROM \"public\".\"orders\" c WHERE c.\"customer_id\" IS NOT NULL AND NOT EXISTS (SELECT FROM \
                   \"public\".\"regions\" p WHERE p.\"id\" = c.\"customer_id\") LIMIT 100;";
    let unknown = crosses(key("orders", "regions", ActionSeen::NoAction));
    assert!(unknown.is_error() && unknown.remedy.ends_with(orphans), "{unknown}");
    let followed = crosses(key("orders", "customers", ActionSeen::Restrict));
    assert!(!followed.is_error(), "the service's copy of customers says which exist: {followed}");
    let cascading = crosses(key("orders", "customers", ActionSeen::Cascade));
    assert!(
        cascading.is_error() && cascading.message.contains("each DELETE of public.customers"),
        "{cascading}"
    );
    let did = "when a row of public.customers was deleted, its rows in public.orders were deleted";
    assert!(cascading.remedy.contains(did), "{cascading}");
    let changes =
        ForeignKeySeen { on_update: ActionSeen::SetNull, ..key("orders", "customers", ActionSeen::NoAction) };
    let changes = crosses(changes);
    assert!(changes.is_error() && changes.message.contains("each change of the key of"), "{changes}");
    for action in [ActionSeen::NoAction, ActionSeen::Cascade] {
        let staying = crosses(key("invoices", "orders", action));
        let stops = staying.message.contains("stops the way back");
        assert!(staying.is_error() && stops == (action == ActionSeen::NoAction), "{staying}");
    }
}

#[test]
fn foreign_keys_in_a_circle_must_be_able_to_wait() {
    let plain = |from, to| key(from, to, ActionSeen::NoAction);
    let mut circle = World::sound();
    circle.source.foreign_keys.extend([plain("orders", "customers"), plain("customers", "orders")]);
    circle.sink.foreign_keys.extend([plain("orders", "customers"), plain("customers", "orders")]);
    let found = circle.findings();
    assert!(
        found.len() == 2 && found.iter().all(|f| f.code == Code::SinkForeignKeyCircle && f.is_error()),
        "{found:?}"
    );
    assert!(
        found[0].remedy.ends_with("ALTER TABLE \"public\".\"orders\" ALTER CONSTRAINT \"fk\" DEFERRABLE;")
    );
    circle.sink.foreign_keys[1].is_deferrable = true;
    assert_eq!(circle.findings(), []);
    circle.sink.foreign_keys[1].on_delete = ActionSeen::Restrict;
    let found = circle.findings();
    let anew = "FOREIGN KEY (\"customer_id\") REFERENCES \"public\".\"orders\" (\"id\") DEFERRABLE;";
    assert!(found.len() == 2 && found[1].remedy.ends_with(anew), "RESTRICT never waits: {found:?}");
}

#[test]
fn foreign_keys_write_in_the_sink_only_what_they_write_in_the_source() {
    let set_null = || ForeignKeySeen {
        is_deferrable: true,
        is_deferred: true,
        on_update: ActionSeen::Cascade,
        ..key("orders", "customers", ActionSeen::SetNull)
    };
    let anew = "ALTER TABLE \"public\".\"orders\" DROP CONSTRAINT \"fk\", ADD CONSTRAINT \"fk\" FOREIGN KEY \
                (\"customer_id\") REFERENCES \"public\".\"customers\" (\"id\") DEFERRABLE INITIALLY DEFERRED;";
    let found = brings(Code::SinkForeignKeyAction, anew, |w| w.sink.foreign_keys.push(set_null()));
    assert!(found.is_error() && found.message.contains("ON DELETE SET NULL and ON UPDATE CASCADE"));
    let codes = |source: ForeignKeySeen| {
        let mut world = World::sound();
        world.sink.foreign_keys.push(set_null());
        world.source.foreign_keys.push(source);
        let found = world.findings();
        found.into_iter().filter(Finding::is_error).map(|f| f.remedy).collect::<Vec<_>>()
    };
    assert_eq!(codes(set_null()), [""; 0]);
    let deletes = codes(ForeignKeySeen { on_delete: ActionSeen::Cascade, ..set_null() });
    assert!(
        deletes.len() == 1 && deletes[0].contains(" (\"id\") ON UPDATE CASCADE DEFERRABLE"),
        "{deletes:?}"
    );
    let elsewhere = codes(ForeignKeySeen { from_columns: vec!["id".to_owned()], ..set_null() });
    assert_eq!(elsewhere.len(), 1, "a key over other columns is another key");
}

#[test]
fn foreign_keys_that_are_stricter_than_the_sources_are_told_beforehand() {
    let own = || key("orders", "orders", ActionSeen::NoAction);
    let unlike =
        brings(Code::SinkForeignKeyStrict, "DROP CONSTRAINT \"fk\";", |w| w.sink.foreign_keys.push(own()));
    assert!(!unlike.is_error() && unlike.message.contains("no like from public.orders"), "{unlike}");
    let told = |from: ForeignKeySeen, to: ForeignKeySeen| {
        let mut world = World::sound();
        world.source.foreign_keys.push(from);
        world.sink.foreign_keys.push(to);
        let found = world.findings();
        found.into_iter().map(|f| format!("{}: {}", f.code, f.remedy)).collect::<Vec<_>>()
    };
    let large = told(own(), own());
    assert!(large.len() == 1 && large[0].contains("ALTER CONSTRAINT \"fk\" DEFERRABLE;"), "{large:?}");
    let waits = |key: ForeignKeySeen| ForeignKeySeen { is_deferrable: true, ..key };
    assert_eq!(told(own(), waits(own())), [""; 0]);
    let plain = || key("orders", "customers", ActionSeen::NoAction);
    assert_eq!(told(plain(), plain()), [""; 0]);
    assert_eq!(told(waits(plain()), plain()).len(), 1, "Django's keys at a service that is stricter");
    assert_eq!(told(waits(plain()), waits(plain())), [""; 0]);
}
