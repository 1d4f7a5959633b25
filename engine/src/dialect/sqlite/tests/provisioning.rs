//! Goal: provisioning says all problems at once, touches nothing of the user's, can be repeated and taken back; and
//! what changed behind its back is found. Method: definitions against files.

use syncline::error::ErrorReason;
use syncline::knowledge::Knowledge;
use syncline::schema::Direction;
use syncline::value::CanonicalType;

use super::support::*;
use crate::scope::{DefineError, Problem, ScopeDefinition, Spanned};
use crate::store::HubStore;

const MASTER: &str = "SELECT type, name, sql FROM sqlite_master ORDER BY type, name";

async fn problems(file: &File, definition: &ScopeDefinition) -> Vec<Problem> {
    match file.database.define_scope(definition, false).await {
        Err(DefineError::Problems(problems)) => problems,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn all_problems_are_told_at_once_and_nothing_is_changed() {
    let file = File::new(
        "CREATE TABLE keyless (a); CREATE VIEW v AS SELECT 1; CREATE TABLE t (id INTEGER PRIMARY KEY, a); \
         CREATE TABLE e (id INTEGER PRIMARY KEY, a TEXT); CREATE UNIQUE INDEX ea ON e (lower(a)); \
         CREATE TABLE n (k TEXT PRIMARY KEY); INSERT INTO n VALUES (NULL)",
    )
    .await;
    file.database.open_hub().await.unwrap();
    let before = file.ask(MASTER);
    let mut definition = definition(&["keyless", "v", "missing", "t", "e", "n", "T", "syncline_state"]);
    let named = |name: &str, at: usize| Spanned { value: name.to_owned(), span: at..at + 1 };
    definition.tables[3].columns = Some(vec![named("a", 7), named("zzz", 8)]);
    let problems = problems(&file, &definition).await;
    let messages: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    for part in [
        "\"keyless\" has no primary key",
        "\"v\" is a view",
        "no table \"missing\"",
        "no column \"zzz\"",
        "\"id\" belongs to the primary key",
        "unique index over an expression",
        "NULL in their primary key",
        "stands in the scope twice",
        "\"syncline_state\" is not a user's table",
    ] {
        assert!(messages.iter().any(|message| message.contains(part)), "{part}: {messages:?}");
    }
    assert!(problems.iter().any(|problem| problem.span == (8..9)));
    assert!(problems.iter().all(|problem| !problem.remedy.is_empty()));
    assert_eq!(file.ask(MASTER), before);
}

#[tokio::test]
async fn the_schema_says_what_clients_need() {
    let (_, scope) = File::hub(SCHEMA, &["line", "invoice", "customer"]).await;
    let names: Vec<_> = scope.schema.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["customer", "invoice", "line"]);
    let customer = &scope.schema.tables[0];
    assert_eq!((customer.unique.len(), customer.foreign_keys.len()), (1, 1));
    assert_eq!(customer.columns[4].default.as_deref(), Some("0"));
    let invoice = &scope.schema.tables[1];
    assert_eq!(invoice.columns[2].ty, CanonicalType::Decimal);
    assert_eq!(invoice.columns[2].precision_scale, Some((10, 2)));
    assert_eq!(invoice.foreign_keys[0].referenced_table, customer.id);
    assert_eq!(scope.schema.tables[2].key.len(), 2);
}

#[tokio::test]
async fn defining_again_changes_nothing_and_a_dry_run_never_does() {
    let file = File::new(SCHEMA).await;
    let definition = definition(&["customer"]);
    let before = file.ask(MASTER);
    let change = file.database.define_scope(&definition, true).await.unwrap();
    assert!(change.changed && change.statements.iter().any(|sql| sql.contains("CREATE TRIGGER")));
    assert_eq!(file.ask(MASTER), before);
    assert_eq!(file.database.scope_names().await.unwrap(), []);
    file.database.open_hub().await.unwrap();
    let first = file.database.define_scope(&definition, false).await.unwrap();
    assert!(first.changed);
    let second = file.database.define_scope(&definition, false).await.unwrap();
    assert!(!second.changed && second.statements.is_empty());
    assert_eq!(second.scope, first.scope);
    assert_eq!(file.database.scope(&definition.name).await.unwrap(), Some(first.scope));
}

#[tokio::test]
async fn a_column_or_table_that_joins_is_new_since_a_fresh_tick() {
    let (file, first) = File::hub(SCHEMA, &["customer", "invoice"]).await;
    file.run("ALTER TABLE customer ADD COLUMN city TEXT");
    let second = file.define(&definition(&["customer", "invoice", "line"])).await;
    assert_eq!(second.schema.version, first.schema.version + 1);
    assert_eq!(second.schema.incarnation, first.schema.incarnation);
    let [customer, invoice, line] = &second.tables[..] else { panic!() };
    assert!(customer.since.tick > first.tables[0].since.tick);
    assert_eq!(customer.reshaped, first.tables[0].reshaped);
    assert_eq!(customer.baseline, first.tables[0].baseline);
    assert_eq!(invoice, &first.tables[1]);
    assert!(line.since.tick > first.tables[1].since.tick && line.reshaped == line.since);
    let ids = |scope: &crate::store::StoredScope| -> Vec<_> {
        scope.schema.tables[0].columns.iter().map(|column| column.id.0).collect()
    };
    assert_eq!((ids(&first), ids(&second)), (vec![1, 2, 3, 4, 5], vec![1, 2, 3, 4, 5, 6]));
    // A column that left gives its number to nobody.
    file.run("ALTER TABLE customer DROP COLUMN city; ALTER TABLE customer ADD COLUMN town TEXT");
    let third = file.define(&definition(&["customer", "invoice", "line"])).await;
    assert_eq!(ids(&third), [1, 2, 3, 4, 5, 7]);
    assert_eq!(third.tables[0].reshaped, third.tables[0].since);
    // A column that is added afterwards does not hide that.
    file.run("ALTER TABLE customer ADD COLUMN fax TEXT");
    let fourth = file.define(&definition(&["customer", "invoice", "line"])).await;
    assert!(fourth.tables[0].since.tick > third.tables[0].since.tick);
    assert_eq!(fourth.tables[0].reshaped, third.tables[0].reshaped);
}

#[tokio::test]
async fn dropping_a_scope_leaves_the_database_as_it_was() {
    let file = File::new(SCHEMA).await;
    file.run("INSERT INTO customer (id, name) VALUES (1, 'Ada')");
    // What a user called as if it were ours.
    file.run(
        "CREATE TABLE syncline_notes (n); CREATE TRIGGER syncline_audit AFTER UPDATE ON customer BEGIN \
         INSERT INTO syncline_notes VALUES (NEW.id); END",
    );
    let before = file.ask(MASTER);
    file.database.open_hub().await.unwrap();
    let mut other = definition(&["customer"]);
    other.name = "other".parse().unwrap();
    let scope = file.define(&definition(&["customer", "invoice"])).await;
    let kept = file.define(&other).await;
    assert!(file.database.drop_scope(&scope.schema.name).await.unwrap());
    assert!(!file.database.drop_scope(&scope.schema.name).await.unwrap());
    // The other scope has the customers still.
    file.run("UPDATE customer SET name = 'Bo'");
    let known = Knowledge::from_clocks(
        [(kept.tables[0].since.replica, syncline::knowledge::Clock::up_to(kept.tables[0].since.tick))].into(),
    );
    assert_eq!(file.changes(&kept, &known, None).await.rows(), ["+customer(1,Bo,~,~,0)"]);
    assert!(file.database.drop_scope(&kept.schema.name).await.unwrap());
    assert_eq!(file.ask(MASTER), before);
    assert_eq!(file.ask("SELECT * FROM customer"), "1|Bo|~|~|0");
}

#[tokio::test]
async fn what_is_not_as_provisioned_is_found_and_mended_by_defining_again() {
    for damage in [
        "DROP TRIGGER syncline_update_1",
        "CREATE UNIQUE INDEX late ON customer (name)",
        "ALTER TABLE customer RENAME COLUMN name TO title",
        "CREATE TABLE c AS SELECT * FROM customer; DROP TABLE customer; ALTER TABLE c RENAME TO customer",
    ] {
        let (file, scope) = File::hub(SCHEMA, &["customer"]).await;
        file.run(&format!("PRAGMA foreign_keys = OFF; {damage}"));
        let error = file.database.snapshot(&scope).await.err().unwrap();
        assert_eq!(error.reason(), ErrorReason::TrackingBroken, "{damage}");
        assert!(error.message().contains("customer"), "{damage}: {}", error.message());
        if damage.contains("DROP TABLE") {
            continue;
        }
        let mended = file.define(&definition(&["customer"])).await;
        assert!(mended.tables[0].since.tick > scope.tables[0].since.tick, "{damage}");
        file.database.snapshot(&mended).await.unwrap();
    }
}

#[tokio::test]
async fn a_table_whose_tracking_is_made_anew_is_compared_in_every_scope_that_has_it() {
    let (file, scope) = File::hub(SCHEMA, &["customer", "invoice"]).await;
    let mut other = definition(&["customer"]);
    other.name = "other".parse().unwrap();
    let before = file.define(&other).await;
    file.run(
        "DROP TRIGGER syncline_insert_1; INSERT INTO customer (id, name) VALUES (1, 'unseen'); \
         CREATE TABLE spare (id INTEGER PRIMARY KEY)",
    );
    let mended = file.define(&definition(&["customer", "invoice"])).await;
    let after = file.database.scope(&before.schema.name).await.unwrap().unwrap();
    let (own, others) = (mended.tables[0].clone(), after.tables[0].clone());
    assert_eq!((others.since, others.reshaped), (own.since, own.reshaped));
    assert!(others.since.tick > before.tables[0].since.tick);
    // Nothing else was touched.
    assert_eq!(mended.tables[1], scope.tables[1]);
    assert_eq!(after.schema, before.schema);
}

#[tokio::test]
async fn a_null_that_appears_in_a_key_breaks_no_application_and_is_named() {
    let (file, scope) = File::hub("CREATE TABLE n (k TEXT PRIMARY KEY, v)", &["n"]).await;
    file.run("INSERT INTO n VALUES (NULL, 1), ('a', 2)");
    file.database.fold(&scope).await.unwrap();
    let error = file.database.snapshot(&scope).await.err().unwrap();
    assert_eq!(error.reason(), ErrorReason::TrackingBroken);
    assert!(error.message().contains("NULL in its key"), "{}", error.message());
    file.run("DELETE FROM n WHERE k IS NULL");
    file.database.snapshot(&scope).await.unwrap();
}

#[tokio::test]
async fn generated_columns_are_not_carried_and_types_can_be_chosen() {
    let file = File::new(
        "CREATE TABLE g (id INTEGER PRIMARY KEY, a INTEGER, b INTEGER AS (a + 1), c INTEGER AS (a + 2) STORED, n NUMERIC)",
    )
    .await;
    file.database.open_hub().await.unwrap();
    let mut definition = definition(&["g"]);
    definition.tables[0].types.insert("n".into(), Spanned { value: CanonicalType::Text, span: 0..1 });
    definition.tables[0].direction = Direction::Download;
    let change = file.database.define_scope(&definition, false).await.unwrap();
    let columns: Vec<_> = change.scope.schema.tables[0]
        .columns
        .iter()
        .map(|column| (column.name.as_str(), column.ty))
        .collect();
    assert_eq!(
        columns,
        [("id", CanonicalType::Int64), ("a", CanonicalType::Int64), ("n", CanonicalType::Text)]
    );
    assert_eq!(change.notes.len(), 2, "{:?}", change.notes);
    file.run("INSERT INTO g (id, a, n) VALUES (1, 5, 'x')");
    assert_eq!(file.changes(&change.scope, &Knowledge::new(), None).await.rows(), ["+g(1,5,x)"]);
}

#[tokio::test]
async fn a_key_can_not_be_carried_as_what_it_is_not_stored_as() {
    for (declared, ty, fits) in [
        ("INTEGER", CanonicalType::Text, false),
        ("INTEGER", CanonicalType::Bool, true),
        ("TEXT", CanonicalType::Int64, false),
        ("TEXT", CanonicalType::Uuid, true),
        ("TEXT", CanonicalType::Any, true),
    ] {
        let file = File::new(&format!("CREATE TABLE k (id {declared} PRIMARY KEY NOT NULL)")).await;
        file.database.open_hub().await.unwrap();
        let mut definition = definition(&["k"]);
        definition.tables[0].types.insert("id".into(), Spanned { value: ty, span: 0..1 });
        let defined = file.database.define_scope(&definition, false).await;
        assert_eq!(defined.is_ok(), fits, "{declared} {ty:?}: {defined:?}");
    }
}

#[tokio::test]
async fn a_column_that_joins_again_reshapes_its_table_and_one_that_is_new_does_not() {
    let file = File::new("CREATE TABLE c (id INTEGER PRIMARY KEY, a, b)").await;
    let columns = |names: &[&str]| {
        let mut definition = definition(&["c"]);
        let named = names.iter().map(|name| Spanned { value: (*name).to_owned(), span: 0..0 });
        definition.tables[0].columns = Some(named.collect());
        definition
    };
    let table = async |names: &[&str]| file.define(&columns(names)).await.tables[0].clone();
    let first = table(&["id", "a"]).await;
    let wider = table(&["id", "a", "b"]).await;
    assert_eq!((wider.reshaped, wider.since > first.since), (first.reshaped, true));
    let narrower = table(&["id", "a"]).await;
    assert!(narrower.reshaped > wider.reshaped);
    let again = table(&["id", "a", "b"]).await;
    assert!(again.reshaped > narrower.reshaped);
    let mut compare = columns(&["id", "a", "b"]);
    assert!(compare.compare("c") && !compare.compare("d"));
    assert!(file.define(&compare).await.tables[0].reshaped > again.reshaped);
}

/// A download that goes on under a later snapshot reads by the scope that it began with.
#[tokio::test]
async fn a_snapshot_is_refused_to_whoever_read_the_scope_before_it_changed() {
    let (file, scope) = File::hub(SCHEMA, &["customer"]).await;
    assert!(file.database.folded_snapshot(&scope).await.is_ok());
    let wider = file.database.define_scope(&definition(&["customer", "invoice"]), false).await.unwrap().scope;
    let refused = file.database.folded_snapshot(&scope).await.err().unwrap();
    assert_eq!(refused.reason(), ErrorReason::SessionExpired);
    assert!(file.database.folded_snapshot(&wider).await.is_ok());
}
