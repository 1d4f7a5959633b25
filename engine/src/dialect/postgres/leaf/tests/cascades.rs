//! Goal: what a download removes takes nothing along that it does not remove itself, and no local change, however the
//! leaf's own foreign keys act. Method: a leaf whose tables have actions that the hub's need not have.

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
    let report = leaf.download(DELTA, vec![gone(&s, "child", &[4]), gone(&s, "parent", &[1, 2])]).await;
    assert_eq!((report.deletes, report.row_errors.len()), (2, 1));
    assert_eq!(report.row_errors[0].key_json, "{\"id\":2}");
    assert_eq!(leaf.rows("SELECT id FROM child ORDER BY id").await, "5");
    let (dirty, blocks, _) = leaf.dirty().await;
    assert_eq!(dirty, ["+child 5,2*"]);
    // Once it went up, the exception is answered with the delete again.
    leaf.acknowledge(blocks, &[]).await;
    let report = leaf.download(DELTA, vec![gone(&s, "child", &[5]), gone(&s, "parent", &[2])]).await;
    assert_eq!((report.deletes, report.row_errors.len()), (2, 0));
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
        let all = [gone(&s, "grandchild", &[21]), gone(&s, "child", &[11, 12]), gone(&s, "parent", &[1, 2])];
        let blocks = if mode == DELTA { all.to_vec() } else { Vec::new() };
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
    let all = vec![gone(&s, "child", &[11]), gone(&s, "parent", &[1])];
    let report = leaf.download(DELTA, all.clone()).await;
    assert_eq!(report.row_errors.len(), 2, "{report:?}");
    assert_eq!(leaf.rows("SELECT * FROM grandchild").await, "21|11|mine");
    // Its own scope removed it.
    leaf.run("SET syncline.writing = 'on'; DELETE FROM grandchild; RESET syncline.writing").await;
    let report = leaf.download(DELTA, all).await;
    assert_eq!((report.deletes, report.row_errors.len()), (2, 0), "{report:?}");
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
    // The clean one keeps it too, until the hub says otherwise.
    let report = leaf.download(DELTA, vec![gone(&s, "parent", &[1, 2])]).await;
    assert_eq!((report.deletes, report.row_errors.len()), (0, 2), "{report:?}");
    assert_eq!(leaf.rows("SELECT * FROM child ORDER BY id").await, "4|1 5|2");
    let cleared = up(&s, "child", &[[int(4), Value::Null]]);
    let report = leaf.download(DELTA, vec![cleared, gone(&s, "parent", &[1, 2])]).await;
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
    let roots = block(&s, "node", syncline::batch::Operation::Delete, &[1, 5, 6].map(|a| vec![int(a), x()]));
    let report = leaf.download(DELTA, vec![roots]).await;
    assert_eq!(report.row_errors.len(), 1, "{report:?}");
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

/// `node (id, up -> node)`: what is above each, with an action.
async fn nodes(action: &str, rows: &[(i64, Option<i64>)]) -> Leaf {
    let mut node = table(1, "node", &[("id", T::Int64), ("up", T::Int64)]);
    node.foreign_keys = vec![refers(2, 1)];
    let sql =
        format!("CREATE TABLE node (id bigint PRIMARY KEY, up bigint REFERENCES node ON DELETE {action})");
    let leaf = subscribed(scope(vec![node]), &sql).await;
    let s = leaf.schema.clone();
    let rows: Vec<_> = rows.iter().map(|(id, up)| [int(*id), up.map_or(Value::Null, int)]).collect();
    let report = leaf.download(DELTA, vec![up(&s, "node", &rows)]).await;
    assert!(report.row_errors.is_empty(), "{report:?}");
    leaf
}

#[tokio::test]
async fn a_row_that_stands_at_the_hub_does_not_go_along() {
    for mode in [DELTA, WHOLE] {
        let cascade = "ON DELETE CASCADE";
        let mut leaf = three_levels(three_tables(), cascade, cascade).await;
        leaf.run("DELETE FROM syncline.dirty_3; DELETE FROM syncline.log_3").await;
        let s = leaf.schema.clone();
        let named = [up(&s, "grandchild", &[[int(22), int(12), text("clean")]])];
        let blocks = if mode == DELTA {
            vec![gone(&s, "child", &[11, 12]), gone(&s, "parent", &[1, 2])]
        } else {
            named.to_vec()
        };
        let report = leaf.download(mode.clone(), blocks).await;
        let errors: Vec<_> = report.row_errors.iter().map(|error| error.key_json.as_str()).collect();
        let (expected, left) = if mode == DELTA {
            (vec!["{\"id\":1}", "{\"id\":2}", "{\"id\":11}", "{\"id\":12}"], "4")
        } else {
            (vec!["{\"id\":2}", "{\"id\":12}"], "2")
        };
        assert_eq!(errors, expected, "{mode:?}");
        let message = &report.row_errors[0].message;
        assert!(message.contains("rows that stay refer to it (tables: public.child)"), "{message}");
        let count = "SELECT (SELECT count(*) FROM parent) + (SELECT count(*) FROM child)";
        assert_eq!(leaf.rows(count).await, left, "{mode:?}");
        let rest =
            [gone(&s, "grandchild", &[21, 22]), gone(&s, "child", &[11, 12]), gone(&s, "parent", &[1, 2])];
        let report = leaf.download(DELTA, rest.to_vec()).await;
        assert!(report.row_errors.is_empty(), "{report:?}");
        assert_eq!(leaf.rows(count).await, "0");
    }
}

#[tokio::test]
async fn chains_and_circles_go_at_once() {
    for action in ["CASCADE", "SET NULL"] {
        let chain: Vec<_> = (1..=100).map(|id| (id, (id > 1).then_some(id - 1))).collect();
        let mut leaf = nodes(action, &chain).await;
        let s = leaf.schema.clone();
        // In two blocks, parents first.
        let blocks = [(1..=50).collect::<Vec<_>>(), (51..=100).collect()].map(|keys| gone(&s, "node", &keys));
        let report = leaf.download(DELTA, blocks.to_vec()).await;
        assert!(report.row_errors.is_empty(), "{action}: {:?}", report.row_errors);
        assert_eq!(leaf.rows("SELECT count(*) FROM node").await, "0");

        let mut leaf = nodes(action, &[(1, Some(3)), (2, Some(1)), (3, Some(2)), (4, None)]).await;
        let report = leaf.download(DELTA, vec![gone(&s, "node", &[1, 2, 3])]).await;
        assert!(report.row_errors.is_empty(), "{action}: {:?}", report.row_errors);
        assert_eq!(leaf.rows("SELECT id FROM node").await, "4");
    }
}

#[tokio::test]
async fn the_rest_of_a_chain_holds_all_above_it() {
    // One more than is followed: all of them wait, the last too, which nothing holds.
    for length in [10, i64::from(crate::limits::POSTGRES_CASCADE_ROUNDS_MAX) + 1] {
        let mut chain: Vec<_> = (1..=length).map(|id| (id, (id > 1).then_some(id - 1))).collect();
        chain.extend([(1001, None), (1002, Some(1001))]);
        let mut leaf = nodes("CASCADE", &chain).await;
        let s = leaf.schema.clone();
        let keys: Vec<_> = (1..length).chain([1001, 1002]).collect();
        let report = leaf.download(DELTA, vec![gone(&s, "node", &keys)]).await;
        assert_eq!(report.row_errors.len() as i64, length - 1, "{:?}", report.row_errors);
        assert_eq!(leaf.rows("SELECT count(*) FROM node").await, length.to_string());
    }
}

#[tokio::test]
async fn a_parent_under_a_new_key_keeps_its_children() {
    for (action, on_id) in
        [("ON DELETE CASCADE", ""), ("ON DELETE SET NULL ON UPDATE CASCADE", "ON UPDATE CASCADE")]
    {
        let mut schema = scope(vec![
            table(1, "parent", &[("id", T::Int64), ("code", T::Text), ("name", T::Text)]),
            table(2, "child", &[("id", T::Int64), ("code", T::Text)]),
        ]);
        schema.tables[1].foreign_keys.clear();
        let sql = format!(
            "CREATE TABLE parent (id bigint PRIMARY KEY, code text UNIQUE, name text); \
             CREATE TABLE child (id bigint PRIMARY KEY, code text REFERENCES parent (code) {action}); \
             CREATE TABLE notes (parent bigint REFERENCES parent {on_id})"
        );
        let mut leaf = subscribed(schema, &sql).await;
        let s = leaf.schema.clone();
        let row = |id, code, name| [int(id), text(code), text(name)];
        let parents = up(&s, "parent", &[row(4, "d", "old"), row(6, "f", "old"), row(7, "g", "old")]);
        let children = up(&s, "child", &[[int(3), text("d")], [int(2), text("f")]]);
        leaf.download(DELTA, vec![parents, children]).await;
        let parents = up(&s, "parent", &[row(5, "d", "new"), row(8, "f", "new"), row(9, "g", "new")]);
        let report = leaf.download(DELTA, vec![parents, gone(&s, "parent", &[4, 6, 7])]).await;
        if on_id.is_empty() {
            assert!(report.row_errors.is_empty(), "{report:?}");
            let parents = "5|\"d\"|\"new\" 8|\"f\"|\"new\" 9|\"g\"|\"new\"".replace('"', "");
            assert_eq!(leaf.rows("SELECT * FROM parent ORDER BY id").await, parents);
        } else {
            // Other rows follow the key.
            assert_eq!(report.row_errors.len(), 4, "{report:?}");
            assert_eq!(leaf.rows("SELECT id FROM parent ORDER BY id").await, "4 6 9");
        }
        assert_eq!(leaf.rows("SELECT * FROM child ORDER BY id").await, "2|f 3|d");
        assert!(leaf.dirty().await.0.is_empty());
    }
}

#[tokio::test]
async fn a_key_that_changed_is_not_changed_for_a_row_that_is_refused() {
    let mut schema = scope(vec![
        table(1, "parent", &[("id", T::Int64), ("code", T::Text), ("name", T::Text)]),
        table(2, "child", &[("id", T::Int64), ("code", T::Text)]),
    ]);
    schema.tables[1].foreign_keys.clear();
    let sql = "CREATE TABLE parent (id bigint PRIMARY KEY, code text UNIQUE, name text CHECK (name <> 'bad')); \
               CREATE TABLE child (id bigint PRIMARY KEY, code text REFERENCES parent (code) ON DELETE CASCADE)";
    let mut leaf = subscribed(schema, sql).await;
    let s = leaf.schema.clone();
    let row = |id, code, name| [int(id), text(code), text(name)];
    let before = vec![up(&s, "parent", &[row(4, "d", "old")]), up(&s, "child", &[[int(3), text("d")]])];
    leaf.download(DELTA, before).await;
    let rows = vec![up(&s, "parent", &[row(5, "d", "bad")]), gone(&s, "parent", &[4])];
    let report = leaf.download(DELTA, rows).await;
    assert_eq!(report.row_errors.len(), 2, "{report:?}");
    assert_eq!(leaf.rows("SELECT * FROM parent").await, "4|d|old");
    assert_eq!(leaf.rows("SELECT * FROM child").await, "3|d");
    // A local change goes up first.
    leaf.run("UPDATE parent SET name = 'mine'").await;
    let rows = vec![up(&s, "parent", &[row(5, "d", "new")])];
    let report = leaf.download(DELTA, rows).await;
    assert_eq!(report.row_errors.len(), 1, "{report:?}");
    assert_eq!(leaf.rows("SELECT * FROM parent").await, "4|d|mine");
}

#[tokio::test]
async fn tables_of_the_users_own_go_along() {
    let sql = "CREATE TABLE parent (id bigint PRIMARY KEY, up bigint REFERENCES parent); \
               CREATE TABLE child (id bigint PRIMARY KEY, parent bigint REFERENCES parent); \
               CREATE TABLE notes (parent bigint REFERENCES parent ON DELETE CASCADE)";
    let mut leaf = subscribed(family(), sql).await;
    let s = leaf.schema.clone();
    leaf.download(DELTA, vec![up(&s, "parent", &[[int(1), Value::Null]])]).await;
    leaf.run("INSERT INTO notes VALUES (1)").await;
    let report = leaf.download(DELTA, vec![gone(&s, "parent", &[1])]).await;
    assert_eq!((report.deletes, report.row_errors.len()), (1, 0), "{report:?}");
    assert_eq!(leaf.rows("SELECT count(*) FROM notes").await, "0");
}

#[tokio::test]
async fn swapped_values_that_others_follow_change_no_other_row() {
    for action in ["CASCADE", "SET NULL", "SET DEFAULT"] {
        let mut schema = scope(vec![
            table(1, "parent", &[("id", T::Int64), ("code", T::Text)]),
            table(2, "child", &[("id", T::Int64), ("code", T::Text)]),
        ]);
        schema.tables[1].foreign_keys.clear();
        let sql = format!(
            "CREATE TABLE parent (id bigint PRIMARY KEY, code text UNIQUE); \
             CREATE TABLE child (id bigint PRIMARY KEY, code text REFERENCES parent (code) ON UPDATE {action})"
        );
        let mut leaf = subscribed(schema, &sql).await;
        let s = leaf.schema.clone();
        let before = vec![
            up(&s, "parent", &[[int(1), text("a")], [int(2), text("b")]]),
            up(&s, "child", &[[int(3), text("a")], [int(4), text("b")]]),
        ];
        leaf.download(DELTA, before).await;
        let swapped = up(&s, "parent", &[[int(1), text("b")], [int(2), text("a")]]);
        let report = leaf.download(DELTA, vec![swapped]).await;
        assert_eq!(report.row_errors.len(), 2, "{action}: {report:?}");
        assert_eq!(leaf.rows("SELECT code FROM child ORDER BY id").await, "a b", "{action}");
    }
}
