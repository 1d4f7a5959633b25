//! Goal: what a download removes takes nothing along that it does not remove itself, and no local change, however the
//! leaf's own foreign keys act. Method: a leaf whose tables have actions that the hub's have not, blocks made by hand.

use syncline::batch::Block;
use syncline::ids::ReplicaId;
use syncline::knowledge::Knowledge;
use syncline::value::Value;

use super::support::*;
use crate::replica::ChangesMode;
use crate::store::{DownloadReport, LeafStore, StoredScope};

const HUB: &str = "CREATE TABLE parent (id INTEGER PRIMARY KEY); \
    CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER); \
    CREATE TABLE grandchild (id INTEGER PRIMARY KEY, child INTEGER, name TEXT)";
const TABLES: &[&str] = &["parent", "child", "grandchild"];

struct Family {
    leaf: File,
    scope: StoredScope,
}

impl Family {
    async fn new(hub: &str, tables: &[&str], leaf: &str) -> Self {
        let (_, scope) = File::hub(hub, tables).await;
        let leaf = File::new(leaf).await;
        leaf.database.subscribe(&scope.schema, ReplicaId::fresh()).await.unwrap();
        Self { leaf, scope }
    }

    /// With these actions of `child` and `grandchild`, parents 1 and 2, children 11 and 12, grandchildren 21 and 22.
    async fn three_levels(child: &str, grandchild: &str) -> Self {
        let schema = format!(
            "CREATE TABLE parent (id INTEGER PRIMARY KEY); \
             CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent {child}); \
             CREATE TABLE grandchild (id INTEGER PRIMARY KEY, child INTEGER REFERENCES child {grandchild}, name TEXT)"
        );
        let family = Self::new(HUB, TABLES, &schema).await;
        let clean = || text("clean");
        let rows = [
            insert("parent", vec![int(1)]),
            insert("parent", vec![int(2)]),
            insert("child", vec![int(11), int(1)]),
            insert("child", vec![int(12), int(2)]),
            insert("grandchild", vec![int(21), int(11), clean()]),
            insert("grandchild", vec![int(22), int(12), clean()]),
        ];
        let report = family.download(&rows).await;
        assert_eq!((report.upserts, report.row_errors.len()), (6, 0));
        family
    }

    async fn download(&self, rows: &[Row]) -> DownloadReport {
        let mode = ChangesMode::Delta { whole_tables: vec![] };
        let batches = vec![blocks(&self.scope.schema.tables, rows)];
        download(&self.leaf, &self.scope, mode, batches, &Knowledge::new()).await.unwrap()
    }

    /// A download that names nothing: all clean rows go.
    async fn compare_with_nothing(&self) -> DownloadReport {
        let batches: Vec<Vec<Block>> = Vec::new();
        download(&self.leaf, &self.scope, ChangesMode::WholeView, batches, &Knowledge::new()).await.unwrap()
    }

    async fn dirty(&self) -> Vec<String> {
        dirty(&self.leaf, &self.scope).await.1
    }
}

fn gone(rows: &[(&'static str, i64)]) -> Vec<Row> {
    rows.iter().map(|(table, id)| delete(table, vec![int(*id)])).collect()
}

fn keys(report: &DownloadReport) -> Vec<String> {
    report.row_errors.iter().map(|error| format!("{} {}", error.table_name, error.key_json)).collect()
}

#[tokio::test]
async fn a_cascade_over_two_levels_stops_before_a_local_change() {
    let cascade = "ON DELETE CASCADE";
    let family = Family::three_levels(cascade, cascade).await;
    family.leaf.run("UPDATE grandchild SET name = 'mine' WHERE id = 22");
    // Parents first: their children are known to go all the same.
    let all = gone(&[("parent", 1), ("parent", 2), ("child", 11), ("child", 12), ("grandchild", 21)]);
    let report = family.download(&all).await;
    assert_eq!(report.deletes, 1);
    assert_eq!(keys(&report), ["parent {\"id\":2}", "child {\"id\":12}"]);
    assert_eq!(family.leaf.ask("SELECT id FROM parent"), "2");
    assert_eq!(family.leaf.ask("SELECT id FROM child"), "12");
    assert_eq!(family.leaf.ask("SELECT * FROM grandchild"), "22|12|mine");
    assert_eq!(family.dirty().await, ["+grandchild(22,12,mine)"]);
    let subscription = family.leaf.database.subscription(&family.scope.schema.name).await.unwrap().unwrap();
    assert_eq!(subscription.excepted_keys.len(), 2);

    // Once it went up, the exception is answered with the delete again.
    let (blocks, _, _) = dirty(&family.leaf, &family.scope).await;
    let upload = Batches { batches: vec![blocks], end: None };
    family.leaf.database.acknowledge_upload(&subscription, std::sync::Arc::new(upload), &[]).await.unwrap();
    let report = family.download(&gone(&[("grandchild", 22), ("child", 12), ("parent", 2)])).await;
    assert_eq!((report.deletes, report.row_errors.len()), (3, 0));
    assert_eq!(family.leaf.ask("SELECT * FROM grandchild"), "");
    let subscription = family.leaf.database.subscription(&family.scope.schema.name).await.unwrap().unwrap();
    assert!(subscription.excepted_keys.is_empty());
}

#[tokio::test]
async fn nor_does_a_comparison_take_one_along() {
    let family = Family::three_levels("ON DELETE CASCADE", "ON DELETE CASCADE").await;
    family.leaf.run("UPDATE grandchild SET name = 'mine' WHERE id = 22");
    let report = family.compare_with_nothing().await;
    assert_eq!(keys(&report), ["child {\"id\":12}", "parent {\"id\":2}"]);
    assert_eq!(family.leaf.ask("SELECT id FROM parent"), "2");
    assert_eq!(family.leaf.ask("SELECT * FROM grandchild"), "22|12|mine");
}

#[tokio::test]
async fn a_local_change_keeps_its_reference() {
    for action in ["SET NULL", "SET DEFAULT"] {
        let family = Family::three_levels(&format!("ON DELETE {action}"), "").await;
        family.leaf.run("UPDATE child SET parent = 2 WHERE id = 12");
        let cleared = upsert("child", vec![int(11), Value::Null]);
        let report = family.download(&[vec![cleared], gone(&[("parent", 1), ("parent", 2)])].concat()).await;
        assert_eq!((report.deletes, keys(&report)), (1, vec!["parent {\"id\":2}".to_owned()]), "{action}");
        assert_eq!(family.leaf.ask("SELECT * FROM child ORDER BY id"), "11|~\n12|2", "{action}");
        assert_eq!(family.dirty().await, ["+child(12,2)"]);
    }
}

#[tokio::test]
async fn a_row_that_stands_at_the_hub_does_not_go_along() {
    let family = Family::three_levels("ON DELETE CASCADE", "ON DELETE CASCADE").await;
    let report = family.download(&gone(&[("parent", 1), ("parent", 2), ("child", 12)])).await;
    assert_eq!(keys(&report), ["parent {\"id\":1}", "parent {\"id\":2}", "child {\"id\":12}"]);
    let message = &report.row_errors[2].message;
    assert!(message.contains("rows of table \"grandchild\" that stay"), "{message}");
    assert_eq!(family.leaf.ask("SELECT count(*) FROM parent, child, grandchild"), "8");
    // What stood in the way goes too.
    let rest = gone(&[
        ("parent", 1),
        ("parent", 2),
        ("child", 12),
        ("grandchild", 22),
        ("child", 11),
        ("grandchild", 21),
    ]);
    let report = family.download(&rest).await;
    assert!(report.row_errors.is_empty(), "{report:?}");
    assert_eq!(
        family.leaf.ask("SELECT count(*) FROM (SELECT id FROM parent UNION ALL SELECT id FROM child)"),
        "0"
    );
    assert!(family.dirty().await.is_empty());
}

#[tokio::test]
async fn nor_does_it_lose_its_reference() {
    for action in ["SET NULL", "SET DEFAULT"] {
        let family = Family::three_levels(&format!("ON DELETE {action}"), "").await;
        let report = family.download(&gone(&[("parent", 1)])).await;
        assert_eq!(keys(&report), ["parent {\"id\":1}"], "{action}");
        assert_eq!(family.leaf.ask("SELECT parent FROM child ORDER BY id"), "1\n2", "{action}");
        // As the hub has it: its own foreign key did the same, or the application.
        let rows = [vec![upsert("child", vec![int(11), Value::Null])], gone(&[("parent", 1)])].concat();
        let report = family.download(&rows).await;
        assert_eq!((report.deletes, report.row_errors.len()), (1, 0), "{report:?}");
        assert_eq!(family.leaf.ask("SELECT parent FROM child ORDER BY id"), "~\n2", "{action}");
        // Nothing that removes: a reference that leads nowhere may be cleared.
        family.leaf.run("PRAGMA foreign_keys = OFF; DELETE FROM parent");
        let report = family.download(&[upsert("child", vec![int(12), Value::Null])]).await;
        assert_eq!((report.upserts, report.row_errors.len()), (1, 0), "{report:?}");
    }
}

#[tokio::test]
async fn a_parent_under_a_new_key_keeps_its_children() {
    let hub = "CREATE TABLE parent (id INTEGER PRIMARY KEY, code TEXT UNIQUE); \
        CREATE TABLE child (id INTEGER PRIMARY KEY, code TEXT)";
    for action in ["CASCADE", "SET NULL"] {
        let leaf = format!(
            "CREATE TABLE parent (id INTEGER PRIMARY KEY, code TEXT UNIQUE); \
             CREATE TABLE child (id INTEGER PRIMARY KEY, code TEXT REFERENCES parent (code) ON DELETE {action})"
        );
        let family = Family::new(hub, &["parent", "child"], &leaf).await;
        let before = [insert("parent", vec![int(4), text("d")]), insert("child", vec![int(3), text("d")])];
        family.download(&before).await;
        let rows = [vec![insert("parent", vec![int(5), text("d")])], gone(&[("parent", 4)])].concat();
        let report = family.download(&rows).await;
        assert!(report.row_errors.is_empty(), "{action}: {report:?}");
        assert_eq!(family.leaf.ask("SELECT * FROM parent"), "5|d", "{action}");
        assert_eq!(family.leaf.ask("SELECT * FROM child"), "3|d", "{action}");
        assert!(family.dirty().await.is_empty());
    }
}

#[tokio::test]
async fn long_chains_go_at_once() {
    let columns = "id INTEGER PRIMARY KEY, up INTEGER";
    for action in ["CASCADE", "SET NULL"] {
        for descends in [false, true] {
            let leaf = format!("CREATE TABLE node ({columns} REFERENCES node ON DELETE {action})");
            let family = Family::new(&format!("CREATE TABLE node ({columns})"), &["node"], &leaf).await;
            let up = |id: i64| match (descends, id) {
                (false, 1) | (true, 40) => Value::Null,
                (false, id) => int(id - 1),
                (true, id) => int(id + 1),
            };
            let rows: Vec<_> = (1..=40).map(|id| insert("node", vec![int(id), up(id)])).collect();
            family.download(&rows).await;
            let all: Vec<_> = (1..=40).map(|id| ("node", id)).collect();
            let report = family.download(&gone(&all)).await;
            assert!(report.row_errors.is_empty(), "{action}, {descends}: {:?}", report.row_errors);
            assert_eq!(family.leaf.ask("SELECT count(*) FROM node"), "0");
            family.download(&rows).await;
            let report = family.compare_with_nothing().await;
            assert!(report.row_errors.is_empty(), "{action}, {descends}: {:?}", report.row_errors);
            assert_eq!(family.leaf.ask("SELECT count(*) FROM node"), "0");
        }
    }
}

#[tokio::test]
async fn a_row_that_comes_again_after_it_went_does_not_go_along() {
    let family = Family::three_levels("ON DELETE CASCADE", "").await;
    family.leaf.run("DELETE FROM grandchild");
    family.leaf.run("DELETE FROM syncline_log_3; DELETE FROM syncline_dirty_3");
    let rows = [gone(&[("child", 11)]), vec![upsert("child", vec![int(11), int(1)])], gone(&[("parent", 1)])];
    let report = family.download(&rows.concat()).await;
    assert_eq!(keys(&report), ["parent {\"id\":1}"]);
    assert_eq!(family.leaf.ask("SELECT id FROM child ORDER BY id"), "11\n12");
}

#[tokio::test]
async fn what_a_diverged_leaf_loses_is_logged_row_by_row() {
    let columns = "id INTEGER PRIMARY KEY, up INTEGER";
    let leaf = format!("CREATE TABLE node ({columns} REFERENCES node ON DELETE CASCADE)");
    let family = Family::new(&format!("CREATE TABLE node ({columns})"), &["node"], &leaf).await;
    family.download(&[insert("node", vec![int(1), Value::Null]), insert("node", vec![int(2), int(1)])]).await;
    family.leaf.database.diverge(&family.scope.schema.name).await.unwrap();
    let report = family.compare_with_nothing().await;
    assert_eq!((report.deletes, report.row_errors.len()), (2, 0), "{report:?}");
    assert_eq!(family.leaf.conflicts().await.len(), 2);
}

#[tokio::test]
async fn triggers_and_tables_of_the_users_own_have_their_way() {
    let family = Family::three_levels("ON DELETE CASCADE", "ON DELETE SET NULL").await;
    family.leaf.run(
        "CREATE TRIGGER mine AFTER INSERT ON parent BEGIN DELETE FROM child WHERE parent = 2; END; \
         CREATE TABLE notes (parent INTEGER REFERENCES parent ON DELETE CASCADE); INSERT INTO notes VALUES (1)",
    );
    let rows = gone(&[("grandchild", 21), ("child", 11), ("parent", 1)]);
    let report = family.download(&[vec![insert("parent", vec![int(3)])], rows].concat()).await;
    assert!(report.row_errors.is_empty(), "{report:?}");
    assert_eq!(family.leaf.ask("SELECT count(*) FROM notes"), "0");
    assert_eq!(family.leaf.ask("SELECT count(*) FROM child"), "0");
    assert_eq!(family.leaf.ask("SELECT * FROM grandchild"), "22|~|clean");
}

#[tokio::test]
async fn composite_keys_that_refer_to_their_own_table() {
    let columns = "a INTEGER, b TEXT COLLATE NOCASE, up_a INTEGER, up_b TEXT, PRIMARY KEY (a, b)";
    let leaf = format!(
        "CREATE TABLE node ({columns}, FOREIGN KEY (up_a, up_b) REFERENCES node (a, b) ON DELETE CASCADE)"
    );
    let family = Family::new(&format!("CREATE TABLE node ({columns})"), &["node"], &leaf).await;
    let node = |a: i64, up: Option<i64>| {
        let up = up.map_or([Value::Null, Value::Null], |up| [int(up), text("x")]);
        insert("node", [vec![int(a), text("x")], up.to_vec()].concat())
    };
    family.download(&[node(1, None), node(2, Some(1)), node(5, None), node(6, Some(5))]).await;
    family.leaf.run("INSERT INTO node VALUES (3, 'x', 2, 'x')");
    let roots = [delete("node", vec![int(1), text("x")]), delete("node", vec![int(5), text("x")])];
    let six = delete("node", vec![int(6), text("x")]);
    let report = family.download(&[roots.to_vec(), vec![six]].concat()).await;
    assert_eq!((report.deletes, report.row_errors.len()), (1, 1), "{report:?}");
    assert_eq!(family.leaf.ask("SELECT a FROM node ORDER BY a"), "1\n2\n3");
}

#[tokio::test]
async fn a_local_change_that_loses_by_itself_makes_way() {
    let family = Family::three_levels("ON DELETE CASCADE", "ON DELETE CASCADE").await;
    family
        .leaf
        .run("UPDATE child SET parent = 2 WHERE id = 12; UPDATE grandchild SET name = 'mine' WHERE id = 22");
    let report = family.download(&gone(&[("grandchild", 22), ("child", 12), ("parent", 2)])).await;
    assert_eq!((report.deletes, report.row_errors.len(), report.conflicts), (3, 0, 2), "{report:?}");
    assert_eq!(family.leaf.conflicts().await.len(), 2);
    assert!(family.dirty().await.is_empty());
    // The order of a download does not matter: what stood in the way is gone by its end.
    let family = Family::three_levels("ON DELETE CASCADE", "ON DELETE CASCADE").await;
    family.leaf.run("UPDATE grandchild SET name = 'mine' WHERE id = 22");
    let report = family.download(&gone(&[("parent", 2), ("child", 12), ("grandchild", 22)])).await;
    assert_eq!((report.row_errors.len(), report.conflicts), (0, 1), "{report:?}");
    assert_eq!(family.leaf.ask("SELECT id FROM grandchild"), "21");
}

#[tokio::test]
async fn a_local_change_of_another_scope_does_not_go_along() {
    let cascade = "ON DELETE CASCADE";
    let schema = format!(
        "CREATE TABLE parent (id INTEGER PRIMARY KEY); \
         CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent {cascade}); \
         CREATE TABLE grandchild (id INTEGER PRIMARY KEY, child INTEGER REFERENCES child {cascade}, name TEXT)"
    );
    let family = Family::new(HUB, &["parent", "child"], &schema).await;
    let (_, mut other) = File::hub(HUB, &["grandchild"]).await;
    other.schema.name = "other".parse().unwrap();
    family.leaf.database.subscribe(&other.schema, ReplicaId::fresh()).await.unwrap();
    family.download(&[insert("parent", vec![int(1)]), insert("child", vec![int(11), int(1)])]).await;
    family.leaf.run("INSERT INTO grandchild VALUES (21, 11, 'mine')");
    let report = family.download(&[delete("parent", vec![int(1)])]).await;
    assert_eq!(keys(&report), ["parent {\"id\":1}"]);
    assert_eq!(family.leaf.ask("SELECT * FROM grandchild"), "21|11|mine");
}

#[tokio::test]
async fn a_key_that_changes_takes_its_children_along_as_it_did() {
    let hub = "CREATE TABLE parent (id INTEGER PRIMARY KEY, code TEXT UNIQUE); \
        CREATE TABLE child (id INTEGER PRIMARY KEY, code TEXT)";
    let leaf = "CREATE TABLE parent (id INTEGER PRIMARY KEY, code TEXT UNIQUE); \
        CREATE TABLE child (id INTEGER PRIMARY KEY, \
          code TEXT REFERENCES parent (code) ON UPDATE CASCADE ON DELETE SET NULL)";
    let family = Family::new(hub, &["parent", "child"], leaf).await;
    family.download(&[insert("parent", vec![int(1), text("a")])]).await;
    family.leaf.run("INSERT INTO child VALUES (5, 'a')");
    let report = family.download(&[upsert("parent", vec![int(1), text("b")])]).await;
    assert_eq!((report.upserts, report.row_errors.len()), (1, 0), "{report:?}");
    assert_eq!(family.leaf.ask("SELECT * FROM child"), "5|b");
}

#[tokio::test]
async fn guards_are_gone_after_a_download() {
    let family = Family::three_levels("ON DELETE CASCADE", "ON DELETE CASCADE").await;
    family.leaf.run("UPDATE grandchild SET name = 'mine' WHERE id = 22");
    family.download(&[delete("parent", vec![int(1)])]).await;
    let left = family.leaf.database.connections().writer().await;
    let left: i64 = left
        .query_row("SELECT count(*) FROM temp.sqlite_master WHERE type = 'trigger'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 0);
}
