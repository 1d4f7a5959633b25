//! Subscribing makes what is missing, refuses what does not fit, and is taken back without a trace.

use syncline::error::ErrorReason;
use syncline::ids::{ColumnId, TableId};
use syncline::schema::{Direction, ForeignKey, ScopeSchema, TableSchema};
use syncline::value::CanonicalType as T;

use super::kit::{DELTA, Leaf, WHOLE, int, items, refers, run, scope, table, text, up};
use crate::store::{LeafStore as _, Subscription};

fn every_type() -> ScopeSchema {
    let mut all = table(
        1,
        "every",
        &[
            ("id", T::Uuid),
            ("b", T::Bool),
            ("i", T::Int64),
            ("f", T::Float64),
            ("d", T::Decimal),
            ("t", T::Text),
            ("y", T::Bytes),
            ("day", T::Date),
            ("at", T::Time),
            ("ts", T::Timestamp),
            ("tz", T::Timestamptz),
            ("j", T::Json),
            ("parent", T::Uuid),
        ],
    );
    all.columns[4].precision_scale = Some((10, 2));
    all.columns[5].not_null = true;
    all.columns[5].default = Some("it's".to_owned());
    all.unique = vec![vec![ColumnId(3)]];
    all.foreign_keys = vec![refers(13, 1)];
    scope(vec![all])
}

#[tokio::test]
async fn missing_tables_are_created_with_types_keys_and_defaults() {
    let mut leaf = Leaf::subscribed(every_type()).await;
    let columns = leaf
        .rows(
            "SELECT attname, format_type(atttypid, atttypmod) AS ty, attnotnull FROM pg_attribute \
             WHERE attrelid = 'public.every'::regclass AND attnum > 0 ORDER BY attnum",
        )
        .await;
    assert_eq!(
        columns,
        "id|uuid|true b|boolean|false i|bigint|false f|double precision|false d|numeric(10,2)|false t|text|true \
         y|bytea|false day|date|false at|time without time zone|false ts|timestamp without time zone|false \
         tz|timestamp with time zone|false j|json|false parent|uuid|false"
    );
    leaf.run("INSERT INTO every (id) VALUES ('00000000-0000-0000-0000-000000000001')").await;
    assert_eq!(leaf.rows("SELECT t FROM every").await, "it's");
    let constraints = leaf
        .rows("SELECT contype FROM pg_constraint WHERE conrelid = 'public.every'::regclass ORDER BY contype")
        .await;
    assert_eq!(constraints, "f p u");
    let indexes = leaf.rows("SELECT count(*) FROM pg_index WHERE indrelid = 'public.every'::regclass").await;
    assert_eq!(indexes, "3", "the key, the unique constraint, and one for the foreign key");
}

#[tokio::test]
async fn subscribing_again_changes_nothing() {
    let leaf = Leaf::subscribed(items()).await;
    let first = leaf.subscription().await;
    assert_eq!(leaf.store.subscribe(&leaf.schema, first.hub).await.unwrap(), first);
    assert_eq!(leaf.store.subscriptions().await.unwrap(), [first]);
}

#[tokio::test]
async fn the_hub_may_take_a_new_id_but_not_be_another() {
    let leaf = Leaf::subscribed(items()).await;
    let first = leaf.subscription().await;
    let hub = syncline::ids::ReplicaId::fresh();
    let renewed = Subscription { hub, ..first.clone() };
    assert_eq!(leaf.store.subscribe(&leaf.schema, hub).await.unwrap(), renewed);
    assert_eq!(leaf.subscription().await, renewed);
    // With another version of the scope, too.
    let hub = syncline::ids::ReplicaId::fresh();
    let next = ScopeSchema { version: 2, ..leaf.schema.clone() };
    assert_eq!(leaf.store.subscribe(&next, hub).await.unwrap().hub, hub);
    assert_eq!(leaf.subscription().await, Subscription { hub, schema: next.clone(), ..first });

    let other = ScopeSchema { incarnation: syncline::ids::Incarnation::fresh(), ..next };
    let error = leaf.store.subscribe(&other, syncline::ids::ReplicaId::fresh()).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::SchemaMismatch);
    assert!(error.message().contains("another hub"), "{error}");
}

#[tokio::test]
async fn one_client_at_a_time_synchronises_a_scope() {
    let mut leaf = Leaf::subscribed(items()).await;
    let elsewhere = crate::dialect::postgres::PostgresDatabase::open(&leaf.url).await.unwrap();
    let held = leaf.store.hold(&leaf.schema.name).await.unwrap();
    let error = elsewhere.hold(&leaf.schema.name).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::LockTimeout);
    assert!(error.message().contains("another client synchronises this database"), "{error}");
    let other_scope = elsewhere.hold(&"other".parse().unwrap()).await.unwrap();
    drop(held);
    let held = elsewhere.hold(&leaf.schema.name).await.unwrap();
    // A process that dies loses its connection: the server frees what it held, though nobody dropped it.
    leaf.run(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted \
         AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
    )
    .await;
    let again = leaf.store.hold(&leaf.schema.name).await.unwrap();
    drop((held, again, other_scope));
}

#[tokio::test]
async fn rows_that_are_there_are_dirty_and_born_here() {
    let sql = "CREATE TABLE item (id integer PRIMARY KEY, name varchar(20)); INSERT INTO item VALUES (1, 'a'), (2, 'b')";
    let leaf = Leaf::unsubscribed(items(), sql).await;
    leaf.subscribe().await.unwrap();
    assert_eq!(leaf.dirty().await.0, ["+item 1,\"a\"*", "+item 2,\"b\"*"]);
    assert_eq!(leaf.store.pending_changes(&leaf.subscription().await).await.unwrap(), 2);
}

#[tokio::test]
async fn every_difference_is_named_and_nothing_is_made() {
    let mut schema = scope(vec![
        table(1, "a", &[("id", T::Int64), ("x", T::Int64), ("y", T::Text), ("z", T::Text)]),
        table(2, "b", &[("id", T::Int64)]),
        table(3, "c", &[("id", T::Int64), ("any", T::Any)]),
        table(4, "d", &[("id", T::Int64)]),
    ]);
    schema.tables[0].columns[1].not_null = true;
    let sql = "CREATE TABLE a (id integer PRIMARY KEY, x text, y text NOT NULL, must integer NOT NULL); \
               CREATE TABLE b (other integer PRIMARY KEY, id bigint); CREATE VIEW d AS SELECT 1 AS id";
    let leaf = Leaf::unsubscribed(schema, sql).await;
    let before = leaf.dump(&["-s"]);
    let error = leaf.subscribe().await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::SchemaMismatch);
    let fields: Vec<_> = error.violations().iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["c.any", "a.x", "a.y", "a.z", "a.must", "b", "b.other", "d", "d"]);
    assert!(error.message().contains("types = { any = \"text\" }"), "{error}");
    assert!(error.message().contains("a.x: is text, and must hold bigint"), "{error}");
    assert_eq!(leaf.dump(&["-s"]), before);
}

#[tokio::test]
async fn what_postgres_does_not_take_is_refused_in_its_own_words() {
    type Change = fn(&mut TableSchema);
    let long = "n".repeat(64);
    let cases: [(&str, Change, &str); 4] = [
        ("xmin", |_| (), "system column"),
        ("j", |table| table.unique = vec![vec![ColumnId(2)]], "json"),
        ("j", |table| table.columns[1].default = Some("{".to_owned()), "json"),
        (&long, |_| (), "63 bytes"),
    ];
    for (column, change, part) in cases {
        let mut odd = table(1, "odd", &[("id", T::Int64), (column, T::Json)]);
        change(&mut odd);
        let mut leaf = Leaf::unsubscribed(scope(vec![odd]), "SELECT 1").await;
        let error = leaf.subscribe().await.unwrap_err();
        assert_eq!(error.reason(), ErrorReason::SchemaMismatch);
        assert!(error.message().contains(part), "{}", error.message());
        assert_eq!(leaf.rows("SELECT count(*) FROM pg_class WHERE relname = 'odd'").await, "0");
    }
}

#[tokio::test]
async fn a_key_that_is_equal_without_being_the_same_is_refused() {
    let mut schema = scope(vec![
        table(1, "a", &[("id", T::Text)]),
        table(2, "b", &[("id", T::Text)]),
        table(3, "c", &[("id", T::Decimal)]),
        table(4, "d", &[("id", T::Decimal)]),
        table(5, "e", &[("id", T::Timestamp)]),
        table(6, "f", &[("id", T::Text)]),
    ]);
    schema.tables[3].columns[0].precision_scale = Some((10, 2));
    let sql = "CREATE EXTENSION citext; CREATE TABLE a (id citext PRIMARY KEY); \
               CREATE TABLE b (id char(5) PRIMARY KEY); CREATE TABLE d (id numeric(12,4) PRIMARY KEY); \
               CREATE TABLE e (id timestamp(0) PRIMARY KEY); CREATE TABLE f (id varchar(9) PRIMARY KEY)";
    let leaf = Leaf::unsubscribed(schema, sql).await;
    let error = leaf.subscribe().await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::SchemaMismatch);
    let fields: Vec<_> = error.violations().iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["c.id", "a.id", "b.id", "d.id", "e.id"]);
    assert!(error.message().contains("must be numeric(10,2): it belongs to the key"), "{error}");
}

#[tokio::test]
async fn a_table_belongs_to_one_scope() {
    let leaf = Leaf::subscribed(items()).await;
    let mut other = items();
    other.name = "other".parse().unwrap();
    let error = leaf.store.subscribe(&other, syncline::ids::ReplicaId::fresh()).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::SchemaMismatch);
    assert!(error.message().contains("belongs to the scope \"shop\""), "{error}");
}

#[tokio::test]
async fn unsubscribing_leaves_the_database_as_it_was() {
    let mut schema = items();
    let part = table(12, "part", &[("id", T::Int64), ("x", T::Text)]);
    schema.tables.push(part);
    let sql = "CREATE TABLE item (id bigint PRIMARY KEY, name text); INSERT INTO item VALUES (1, 'a'); \
               CREATE TABLE part (id bigint, x text, PRIMARY KEY (id)) PARTITION BY RANGE (id); \
               CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (100)";
    let mut leaf = Leaf::unsubscribed(schema, sql).await;
    let before = leaf.dump(&[]);
    leaf.subscribe().await.unwrap();
    leaf.run("UPDATE item SET name = 'b'").await;
    assert!(leaf.store.unsubscribe(&leaf.schema.name).await.unwrap());
    leaf.run("UPDATE item SET name = 'a'").await;
    assert_eq!(leaf.dump(&[]), before);
    assert!(!leaf.store.unsubscribe(&leaf.schema.name).await.unwrap());
    assert!(leaf.store.subscription(&leaf.schema.name).await.unwrap().is_none());
}

#[tokio::test]
async fn a_download_only_table_has_no_triggers() {
    let mut schema = items();
    schema.tables[0].direction = Direction::Download;
    let mut leaf = Leaf::subscribed(schema).await;
    leaf.run("INSERT INTO item VALUES (1, 'a')").await;
    assert_eq!(leaf.rows("SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'syncline%'").await, "0");
    assert!(leaf.dirty().await.0.is_empty());
}

#[tokio::test]
async fn a_scope_that_changes_adds_tables_and_columns_and_keeps_what_is_dirty() {
    let mut leaf = Leaf::subscribed(items()).await;
    leaf.run("INSERT INTO item VALUES (1, 'a')").await;
    let first = leaf.subscription().await;
    leaf.schema.version = 2;
    let added = table(11, "item", &[("id", T::Int64), ("name", T::Text), ("price", T::Decimal)]);
    leaf.schema.tables[0] = added;
    leaf.schema.tables.push(table(12, "extra", &[("id", T::Int64)]));
    let second = leaf.subscribe().await.unwrap();
    assert_eq!(second.replica, first.replica);
    assert_eq!(leaf.dirty().await.0, ["+item 1,\"a\",null*"]);
    leaf.schema.version = 3;
    leaf.schema.tables.remove(0);
    leaf.subscribe().await.unwrap();
    assert_eq!(leaf.rows("SELECT count(*) FROM item").await, "1");
    assert_eq!(leaf.rows("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'item'::regclass").await, "0");
}

#[tokio::test]
async fn a_table_that_was_not_tracked_for_a_while_is_compared_as_a_whole() {
    for (done, pending) in [
        (
            "ALTER TABLE item DISABLE TRIGGER syncline_update; UPDATE item SET name = 'mine'",
            "+item 1,\"mine\"*",
        ),
        (
            "DROP TABLE item; CREATE TABLE item (id bigint PRIMARY KEY, name text); INSERT INTO item VALUES (2, 'new')",
            "+item 2,\"new\"*",
        ),
        ("DROP TABLE item", ""),
    ] {
        let mut leaf = Leaf::subscribed(items()).await;
        leaf.download(DELTA, vec![up(&leaf.schema, "item", &[[int(1), text("a")]])]).await;
        let known = leaf.subscription().await;
        leaf.run(done).await;
        leaf.schema.version = 2;
        let again = leaf.subscribe().await.unwrap();
        assert!(again.diverged && again.reinitialize && again.knowledge.is_empty(), "{done}: {again:?}");
        assert_ne!(again.replica, known.replica);
        assert_eq!(leaf.dirty().await.0.join(" "), pending, "{done}");
    }
}

#[tokio::test]
async fn a_table_that_turns_to_downloads_and_back_loses_and_invents_no_change() {
    let mut leaf = Leaf::subscribed(items()).await;
    leaf.download(DELTA, vec![up(&leaf.schema, "item", &[[int(1), text("a")]])]).await;
    leaf.run("UPDATE item SET name = 'mine'").await;
    leaf.schema.version = 2;
    leaf.schema.tables[0].direction = Direction::Download;
    assert!(leaf.subscribe().await.unwrap().diverged);
    leaf.download(WHOLE, vec![up(&leaf.schema, "item", &[[int(1), text("a")]])]).await;
    assert_eq!(
        leaf.conflicts().await,
        ["update_update remote {\"id\":1}: {\"id\":1,\"name\":\"mine\"} / {\"id\":1,\"name\":\"a\"}"]
    );
    leaf.schema.version = 3;
    leaf.schema.tables[0].direction = Direction::Both;
    assert!(!leaf.subscribe().await.unwrap().diverged);
    assert!(leaf.dirty().await.0.is_empty());
}

#[tokio::test]
async fn a_disabled_trigger_is_noticed() {
    let mut leaf = Leaf::subscribed(items()).await;
    let subscription = leaf.subscription().await;
    assert_eq!(leaf.store.pending_changes(&subscription).await.unwrap(), 0);
    leaf.run("ALTER TABLE item DISABLE TRIGGER syncline_update").await;
    // Nobody takes that for nothing.
    assert_eq!(leaf.store.pending_changes(&subscription).await.unwrap(), 1);
    let upload = crate::store::LeafUpload { block_bytes_max: 1 << 20, row_bytes_max: 1 << 20 };
    let error = leaf.store.enumerate_dirty(&subscription, upload).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::TrackingBroken);
}

#[tokio::test]
async fn tables_refer_to_each_other_in_a_cycle() {
    let mut schema = scope(vec![
        table(1, "a", &[("id", T::Int64), ("b", T::Int64)]),
        table(2, "b", &[("id", T::Int64), ("a", T::Int64)]),
    ]);
    schema.tables[0].foreign_keys = vec![refers(2, 2)];
    schema.tables[1].foreign_keys = vec![ForeignKey { referenced_table: TableId(1), ..refers(2, 1) }];
    let mut leaf = Leaf::subscribed(schema).await;
    assert_eq!(leaf.rows("SELECT count(*) FROM pg_constraint WHERE contype = 'f'").await, "2");
}

#[tokio::test]
async fn triggers_of_the_user_find_what_they_name() {
    let mut leaf = Leaf::subscribed(items()).await;
    let sql = "CREATE TABLE audit (id bigint); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS \
               $$ BEGIN INSERT INTO audit VALUES (NEW.id); RETURN NULL; END $$; \
               CREATE TRIGGER note AFTER INSERT ON item FOR EACH ROW EXECUTE FUNCTION note()";
    run(&mut leaf.application, sql).await;
    let report = leaf.download(DELTA, vec![up(&leaf.schema, "item", &[[int(1), text("a")]])]).await;
    assert_eq!((report.upserts, report.row_errors.len()), (1, 0));
    assert_eq!(leaf.rows("SELECT id FROM audit").await, "1");
}
