//! Goal: what a download removes takes no local change along, however the leaf's own foreign keys act. Method: a leaf
//! whose tables have actions that the hub's need not have.

use syncline::ids::ColumnId;
use syncline::schema::{ForeignKey, ScopeSchema};
use syncline::value::{CanonicalType as T, Value};

use super::kit::{DELTA, Leaf, WHOLE, block, gone, int, refers, scope, table, text, up};
use crate::store::LeafStore as _;

/// `parent (id, up -> parent)`, `child (id, parent -> parent)`.
fn family() -> ScopeSchema {
    let mut schema = scope(vec![
        table(1, "parent", &[("id", T::Int64), ("up", T::Int64)]),
        table(2, "child", &[("id", T::Int64), ("parent", T::Int64)]),
    ]);
    schema.tables[0].foreign_keys = vec![refers(2, 1)];
    schema.tables[1].foreign_keys = vec![refers(2, 1)];
    schema
}

async fn subscribed(schema: ScopeSchema, sql: &str) -> Leaf {
    let leaf = Leaf::unsubscribed(schema, sql).await;
    leaf.subscribe().await.unwrap();
    leaf
}

#[tokio::test]
async fn a_cascade_does_not_take_local_changes_along() {
    let sql = "CREATE TABLE parent (id bigint PRIMARY KEY, up bigint REFERENCES parent); \
               CREATE TABLE child (id bigint PRIMARY KEY, parent bigint REFERENCES parent ON DELETE CASCADE)";
    let mut leaf = Leaf::unsubscribed(family(), sql).await;
    leaf.subscribe().await.unwrap();
    let s = leaf.schema.clone();
    let parents = up(&s, "parent", &[[int(1), Value::Null], [int(2), Value::Null]]);
    leaf.download(DELTA, vec![parents, up(&s, "child", &[[int(4), int(1)]])]).await;
    leaf.run("INSERT INTO child VALUES (5, 2)").await;
    let report = leaf.download(DELTA, vec![gone(&s, "parent", &[1, 2])]).await;
    assert_eq!((report.deletes, report.row_errors.len()), (1, 1));
    assert_eq!(report.row_errors[0].key_json, "{\"id\":2}");
    assert_eq!(leaf.rows("SELECT id FROM child ORDER BY id").await, "5");
    let (dirty, blocks, _) = leaf.dirty().await;
    assert_eq!(dirty, ["+child 5,2*"]);
    // Once it went up, the exception is answered with the delete again.
    leaf.acknowledge(blocks, &[]).await;
    let report = leaf.download(DELTA, vec![gone(&s, "parent", &[2])]).await;
    assert_eq!((report.deletes, report.row_errors.len()), (1, 0));
    assert!(leaf.subscription().await.excepted_keys.is_empty());
}

/// Parents 1 and 2 with the clean children 11 and 12, which have the grandchildren 21 and 22; 22 was edited here.
async fn three_levels(schema: ScopeSchema, child: &str, grandchild: &str) -> Leaf {
    let sql = format!(
        "CREATE TABLE parent (id bigint PRIMARY KEY); \
         CREATE TABLE child (id bigint PRIMARY KEY, parent bigint REFERENCES parent {child}); \
         CREATE TABLE grandchild (id bigint PRIMARY KEY, child bigint REFERENCES child {grandchild}, name text)"
    );
    let mut leaf = subscribed(schema, &sql).await;
    let s = leaf.schema.clone();
    let blocks = vec![
        up(&s, "parent", &[[int(1)], [int(2)]]),
        up(&s, "child", &[[int(11), int(1)], [int(12), int(2)]]),
    ];
    leaf.download(DELTA, blocks).await;
    leaf.run(
        "SET syncline.writing = 'on'; \
         INSERT INTO grandchild VALUES (21, 11, 'clean'), (22, 12, 'clean'); RESET syncline.writing; \
         UPDATE grandchild SET name = 'mine' WHERE id = 22",
    )
    .await;
    leaf
}

fn three_tables() -> ScopeSchema {
    let mut schema = scope(vec![
        table(1, "parent", &[("id", T::Int64)]),
        table(2, "child", &[("id", T::Int64), ("parent", T::Int64)]),
        table(3, "grandchild", &[("id", T::Int64), ("child", T::Int64), ("name", T::Text)]),
    ]);
    schema.tables[1].foreign_keys = vec![refers(2, 1)];
    schema.tables[2].foreign_keys = vec![refers(2, 2)];
    schema
}

#[tokio::test]
async fn a_cascade_over_two_levels_stops_before_a_local_change() {
    let cascade = "ON DELETE CASCADE";
    for mode in [DELTA, WHOLE] {
        let mut leaf = three_levels(three_tables(), cascade, cascade).await;
        let s = leaf.schema.clone();
        let blocks = if mode == DELTA { vec![gone(&s, "parent", &[1, 2])] } else { Vec::new() };
        let report = leaf.download(mode.clone(), blocks).await;
        let errors: Vec<_> = report.row_errors.iter().map(|error| error.key_json.as_str()).collect();
        assert!(errors.contains(&"{\"id\":2}"), "{mode:?}: {report:?}");
        assert_eq!(leaf.rows("SELECT id FROM parent").await, "2", "{mode:?}");
        assert_eq!(leaf.rows("SELECT * FROM grandchild").await, "22|12|mine", "{mode:?}");
        assert_eq!(leaf.dirty().await.0, ["+grandchild 22,12,\"mine\""]);
    }
}

#[tokio::test]
async fn a_local_change_of_another_scope_does_not_go_along() {
    let mut own = three_tables();
    let mut other = scope(vec![own.tables.pop().unwrap()]);
    other.name = "other".parse().unwrap();
    other.tables[0].foreign_keys.clear();
    let cascade = "ON DELETE CASCADE";
    let sql = format!(
        "CREATE TABLE parent (id bigint PRIMARY KEY); \
         CREATE TABLE child (id bigint PRIMARY KEY, parent bigint REFERENCES parent {cascade}); \
         CREATE TABLE grandchild (id bigint PRIMARY KEY, child bigint REFERENCES child {cascade}, name text)"
    );
    let mut leaf = subscribed(own, &sql).await;
    leaf.store.subscribe(&other, syncline::ids::ReplicaId::fresh()).await.unwrap();
    let s = leaf.schema.clone();
    leaf.download(DELTA, vec![up(&s, "parent", &[[int(1)]]), up(&s, "child", &[[int(11), int(1)]])]).await;
    leaf.run("INSERT INTO grandchild VALUES (21, 11, 'mine')").await;
    let report = leaf.download(DELTA, vec![gone(&s, "parent", &[1])]).await;
    assert_eq!(report.row_errors.len(), 1, "{report:?}");
    assert_eq!(leaf.rows("SELECT * FROM grandchild").await, "21|11|mine");
    // It went up in its own scope, and is clean.
    leaf.run("DELETE FROM syncline.dirty_3; DELETE FROM syncline.log_3").await;
    let report = leaf.download(DELTA, vec![gone(&s, "parent", &[1])]).await;
    assert_eq!((report.deletes, report.row_errors.len()), (1, 0), "{report:?}");
    assert_eq!(leaf.rows("SELECT * FROM grandchild").await, "");
}

#[tokio::test]
async fn a_local_change_keeps_its_reference() {
    let sql = "CREATE TABLE parent (id bigint PRIMARY KEY, up bigint REFERENCES parent); \
               CREATE TABLE child (id bigint PRIMARY KEY, parent bigint REFERENCES parent ON DELETE SET NULL)";
    let mut leaf = subscribed(family(), sql).await;
    let s = leaf.schema.clone();
    let parents = up(&s, "parent", &[[int(1), Value::Null], [int(2), Value::Null]]);
    leaf.download(DELTA, vec![parents, up(&s, "child", &[[int(4), int(1)]])]).await;
    leaf.run("INSERT INTO child VALUES (5, 2)").await;
    let report = leaf.download(DELTA, vec![gone(&s, "parent", &[1, 2])]).await;
    assert_eq!((report.deletes, report.row_errors.len()), (1, 1), "{report:?}");
    assert_eq!(leaf.rows("SELECT * FROM child ORDER BY id").await, "4|NULL 5|2");
}

#[tokio::test]
async fn composite_keys_that_refer_to_their_own_table() {
    let mut node =
        table(1, "node", &[("a", T::Int64), ("b", T::Text), ("up_a", T::Int64), ("up_b", T::Text)]);
    node.key = vec![ColumnId(1), ColumnId(2)];
    node.columns[1].not_null = true;
    node.foreign_keys = vec![ForeignKey {
        columns: vec![ColumnId(3), ColumnId(4)],
        referenced_table: node.id,
        referenced_columns: vec![ColumnId(1), ColumnId(2)],
    }];
    let sql = "CREATE TABLE node (a bigint, b text, up_a bigint, up_b text, PRIMARY KEY (a, b), \
               FOREIGN KEY (up_a, up_b) REFERENCES node ON DELETE CASCADE)";
    let mut leaf = subscribed(scope(vec![node]), sql).await;
    let s = leaf.schema.clone();
    let (none, x) = (Value::Null, || text("x"));
    let rows = [
        [int(1), x(), none.clone(), none.clone()],
        [int(2), x(), int(1), x()],
        [int(5), x(), none.clone(), none],
        [int(6), x(), int(5), x()],
    ];
    leaf.download(DELTA, vec![up(&s, "node", &rows)]).await;
    leaf.run("INSERT INTO node VALUES (3, 'x', 2, 'x')").await;
    let roots =
        block(&s, "node", syncline::batch::Operation::Delete, &[vec![int(1), x()], vec![int(5), x()]]);
    let report = leaf.download(DELTA, vec![roots]).await;
    assert_eq!((report.deletes, report.row_errors.len()), (1, 1), "{report:?}");
    assert_eq!(leaf.rows("SELECT a FROM node ORDER BY a").await, "1 2 3");
}

#[tokio::test]
async fn a_local_change_that_loses_by_itself_makes_way() {
    let sql = "CREATE TABLE parent (id bigint PRIMARY KEY, up bigint REFERENCES parent); \
               CREATE TABLE child (id bigint PRIMARY KEY, parent bigint REFERENCES parent ON DELETE CASCADE)";
    let mut leaf = subscribed(family(), sql).await;
    let s = leaf.schema.clone();
    leaf.download(
        DELTA,
        vec![up(&s, "parent", &[[int(1), Value::Null]]), up(&s, "child", &[[int(4), int(1)]])],
    )
    .await;
    leaf.run("UPDATE child SET parent = 1 WHERE id = 4").await;
    let report = leaf.download(DELTA, vec![gone(&s, "child", &[4]), gone(&s, "parent", &[1])]).await;
    assert_eq!((report.deletes, report.row_errors.len(), report.conflicts), (2, 0, 1), "{report:?}");
    assert_eq!(leaf.conflicts().await, ["update_delete remote {\"id\":4}: {\"id\":4,\"parent\":1} / gone"]);
}
