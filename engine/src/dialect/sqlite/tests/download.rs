//! Goal: a leaf knows what changed, sends it, and takes what comes without losing anything of its own. Method: a hub's
//! file and a leaf's file, blocks carried by hand.

use syncline::batch::Block;
use syncline::error::ErrorReason;
use syncline::ids::{Mark, ReplicaId, Tick};
use syncline::knowledge::{Knowledge, RowKey};
use syncline::schema::{ConflictPolicy, Direction, ScopeSchema};
use syncline::value::Value;

use super::support::*;
use crate::replica::{ChangesMode, ExceptedKey};
use crate::store::{DownloadReport, HubStore, LeafStore, LeafUpload, PendingUpload, StoredScope};

const TABLES: &[&str] = &["customer", "invoice", "line"];
const NAMES: &str = "SELECT id, name, email FROM customer ORDER BY id";

struct Pair {
    hub: File,
    leaf: File,
    scope: StoredScope,
    known: Knowledge,
}

impl Pair {
    /// A hub with rows, and a leaf that has them.
    async fn new() -> Self {
        Self::with("", |_| ()).await
    }

    async fn with(leaf_schema: &str, change: impl FnOnce(&mut crate::scope::ScopeDefinition)) -> Self {
        let hub = File::new(SCHEMA).await;
        hub.database.open_hub().await.unwrap();
        let mut definition = definition(TABLES);
        change(&mut definition);
        let scope = hub.define(&definition).await;
        hub.run(
            "INSERT INTO customer (id, name, email) VALUES (1, 'Ada', 'a@x'), (2, 'Bob', 'b@x'), (3, 'Cyd', 'c@x'); \
             INSERT INTO invoice VALUES (10, 1, 1.5); INSERT INTO line VALUES (10, 1, 'x')",
        );
        let leaf = File::new(leaf_schema).await;
        leaf.database.subscribe(&scope.schema, ReplicaId::fresh()).await.unwrap();
        let mut pair = Self { hub, leaf, scope, known: Knowledge::new() };
        pair.sync().await.unwrap();
        pair
    }

    /// Everything that the leaf lacks, applied there.
    async fn sync(&mut self) -> Result<DownloadReport, syncline::error::SyncError> {
        let sent = self.hub.changes(&self.scope, &self.known, None).await;
        let mode = if self.known.is_empty() {
            ChangesMode::WholeView
        } else {
            ChangesMode::Delta { whole_tables: vec![] }
        };
        let blocks: Vec<Block> = sent.blocks.into_iter().map(|block| block.block).collect();
        let report = download(&self.leaf, &self.scope, mode, vec![blocks], &sent.knowledge).await?;
        self.known = sent.knowledge;
        Ok(report)
    }

    async fn blocks_of(&mut self, mode: ChangesMode) -> Result<DownloadReport, syncline::error::SyncError> {
        let sent = self.hub.changes(&self.scope, &Knowledge::new(), None).await;
        let blocks: Vec<Block> = sent.blocks.into_iter().map(|block| block.block).collect();
        download(&self.leaf, &self.scope, mode, vec![blocks], &sent.knowledge).await
    }

    async fn dirty(&self) -> Vec<String> {
        dirty(&self.leaf, &self.scope).await.1
    }
}

#[tokio::test]
async fn a_first_download_creates_fills_and_marks_nothing() {
    let pair = Pair::new().await;
    assert_eq!(pair.leaf.ask(NAMES), pair.hub.ask(NAMES));
    assert_eq!(pair.leaf.ask("SELECT * FROM invoice"), "10|1|1.5");
    assert!(pair.dirty().await.is_empty());
    assert_eq!(pair.leaf.ask("PRAGMA foreign_key_check"), "");
    let subscription = pair.leaf.database.subscription(&pair.scope.schema.name).await.unwrap().unwrap();
    assert!(subscription.applied && subscription.download_mark.is_some());
    assert_eq!(subscription.knowledge, learned(&pair.known));
}

/// Blocks that are large enough for triggers to go and come back; `leaf_schema` may refuse some of the rows.
async fn fill_from_many_rows(leaf_schema: &str) -> (Pair, DownloadReport) {
    let (hub, scope) = File::hub(SCHEMA, &["customer"]).await;
    hub.run(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
         INSERT INTO customer (id, name, email) SELECT i, 'c' || i, i || '@x' FROM n",
    );
    let leaf = File::new(leaf_schema).await;
    leaf.database.subscribe(&scope.schema, ReplicaId::fresh()).await.unwrap();
    let triggers = "SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY name";
    let before = leaf.ask(triggers);
    assert!(before.contains("syncline_insert"), "{before}");
    let mut pair = Pair { hub, leaf, scope, known: Knowledge::new() };
    let report = pair.sync().await.unwrap();
    assert_eq!(pair.leaf.ask(triggers), before);
    assert!(pair.dirty().await.is_empty());
    pair.leaf.run("UPDATE customer SET name = 'x' WHERE id = 7");
    assert_eq!(pair.dirty().await.len(), 1);
    (pair, report)
}

#[tokio::test]
async fn a_large_first_download_leaves_the_triggers_as_they_were() {
    let (_, report) = fill_from_many_rows("").await;
    assert_eq!((report.upserts, report.row_errors.len()), (1_000, 0));
    let refuses = "CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL CHECK (name <> 'c500'), email TEXT \
         UNIQUE, boss INTEGER REFERENCES customer (id), points INTEGER DEFAULT 0)";
    let (_, report) = fill_from_many_rows(refuses).await;
    assert_eq!((report.upserts, report.row_errors.len()), (999, 1), "the fill began anew, row by row");
}

#[tokio::test]
async fn changes_and_deletes_come_down() {
    let mut pair = Pair::new().await;
    pair.hub.run(
        "UPDATE customer SET name = 'Bo' WHERE id = 2; DELETE FROM customer WHERE id = 3; \
                  DELETE FROM invoice; INSERT INTO customer (id, name) VALUES (4, 'Dan')",
    );
    let report = pair.sync().await.unwrap();
    assert_eq!((report.upserts, report.deletes), (2, 3));
    assert_eq!(pair.leaf.ask(NAMES), pair.hub.ask(NAMES));
    assert!(pair.dirty().await.is_empty());
    let report = pair.sync().await.unwrap();
    assert_eq!((report.upserts, report.deletes), (0, 0));
}

#[tokio::test]
async fn the_leaf_sends_what_changed_and_says_what_was_born_there() {
    let pair = Pair::new().await;
    pair.leaf.run(
        "INSERT INTO customer (id, name) VALUES (5, 'Eve'); UPDATE customer SET name = 'Bo' WHERE id = 2; \
         DELETE FROM customer WHERE id = 3; INSERT INTO customer (id, name) VALUES (6, 'x'); \
         DELETE FROM customer WHERE id = 6; DELETE FROM line; INSERT INTO line VALUES (10, 1, 'again')",
    );
    assert_eq!(
        pair.dirty().await,
        [
            "+customer(2,Bo,b@x,~,0)",
            "+customer(5,Eve,~,~,0)*",
            "+line(10,1,again)",
            "-customer(3)",
            "-customer(6)*",
        ]
    );
    let subscription = pair.leaf.database.subscription(&pair.scope.schema.name).await.unwrap().unwrap();
    assert_eq!(pair.leaf.database.pending_changes(&subscription).await.unwrap(), 5);
}

async fn acknowledge(pair: &Pair, blocks: Vec<Block>, failed: &[syncline::conflict::RowError]) {
    let mut after = pair.leaf.database.subscription(&pair.scope.schema.name).await.unwrap().unwrap();
    after.upload_mark_answered = Some(Mark::fresh());
    let batches = Batches { batches: vec![blocks], end: None };
    pair.leaf.database.acknowledge_upload(&after, std::sync::Arc::new(batches), failed).await.unwrap();
    assert_eq!(pair.leaf.database.subscription(&pair.scope.schema.name).await.unwrap().unwrap(), after);
}

#[tokio::test]
async fn acknowledged_rows_are_clean_unless_they_were_edited_since_or_failed() {
    let pair = Pair::new().await;
    pair.leaf.run(
        "UPDATE customer SET name = 'one'; DELETE FROM line; DELETE FROM invoice; \
         INSERT INTO customer (id, name) VALUES (7, 'born')",
    );
    let (blocks, rows, _) = dirty(&pair.leaf, &pair.scope).await;
    assert_eq!(rows.len(), 6, "{rows:?}");
    pair.leaf
        .run("UPDATE customer SET name = 'two' WHERE id IN (2, 7); INSERT INTO invoice VALUES (10, 2, 3)");
    let failed = syncline::conflict::RowError {
        row: syncline::knowledge::RowKey {
            table: table_id(&pair.scope, "customer"),
            key: syncline::value::key_bytes([syncline::value::Cell::Int64(3)]).unwrap(),
        },
        table_name: "customer".into(),
        key_json: String::new(),
        operation: syncline::batch::Operation::Upsert,
        reason: syncline::conflict::RowErrorReason::Check,
        message: String::new(),
    };
    acknowledge(&pair, blocks, &[failed]).await;
    // 7 was born before, and the hub has it now; invoice 10 was deleted at the hub, and is born again.
    assert_eq!(
        pair.dirty().await,
        [
            "+customer(2,two,b@x,~,0)",
            "+customer(3,one,c@x,~,0)",
            "+customer(7,two,~,~,0)",
            "+invoice(10,2,3.00)*"
        ]
    );
}

#[tokio::test]
async fn a_row_that_failed_is_known_by_the_form_of_key_that_the_hub_has() {
    let schema = "CREATE TABLE price (amount DECIMAL(10,2) NOT NULL PRIMARY KEY, n INTEGER)";
    let (hub, scope) = File::hub(schema, &["price"]).await;
    let leaf = File::new("").await;
    leaf.database.subscribe(&scope.schema, ReplicaId::fresh()).await.unwrap();
    let known = hub.changes(&scope, &Knowledge::new(), None).await.knowledge;
    let pair = Pair { hub, leaf, scope, known };
    pair.leaf.run("INSERT INTO price VALUES (1.005, 1), (2.5, 2)");
    let (blocks, rows, _) = dirty(&pair.leaf, &pair.scope).await;
    assert_eq!(rows.len(), 2);
    // A PostgreSQL hub refuses the digits that its column would drop, of the number that it made of ours.
    let key = syncline::value::key_bytes([syncline::value::Cell::Decimal("1.005")]).unwrap();
    let failed = syncline::conflict::RowError {
        row: RowKey { table: table_id(&pair.scope, "price"), key },
        table_name: "price".into(),
        key_json: String::new(),
        operation: syncline::batch::Operation::Upsert,
        reason: syncline::conflict::RowErrorReason::Type,
        message: String::new(),
    };
    acknowledge(&pair, blocks, &[failed]).await;
    assert_eq!(pair.dirty().await.len(), 1);
    assert_eq!(pair.leaf.ask("SELECT k1 FROM syncline_dirty_1"), "1.005");
}

#[tokio::test]
async fn tables_that_were_not_edited_since_the_upload_are_cleared_at_once() {
    let pair = Pair::new().await;
    pair.leaf.run("UPDATE customer SET name = 'one'; DELETE FROM line; DELETE FROM invoice");
    let (blocks, _, leaf_clock) = dirty(&pair.leaf, &pair.scope).await;
    let mut before = pair.leaf.database.subscription(&pair.scope.schema.name).await.unwrap().unwrap();
    before.upload = Some(PendingUpload {
        batches: Vec::new(),
        made_with: bytes::Bytes::new(),
        excepted_keys: Vec::new(),
        leaf_clock,
        mark: Mark::fresh(),
    });
    pair.leaf.database.save(&before).await.unwrap();
    pair.leaf.run("UPDATE customer SET name = 'two' WHERE id = 2");
    // Only those of the table that was edited are looked at.
    let customers = blocks.into_iter().filter(|block| block.table == table_id(&pair.scope, "customer"));
    acknowledge(&pair, customers.collect(), &[]).await;
    assert_eq!(pair.dirty().await, ["+customer(2,two,b@x,~,0)"]);
}

#[tokio::test]
async fn a_change_that_meets_a_dirty_row_is_a_conflict_at_the_leaf() {
    // (hub, leaf, kind, names under server_wins and client_wins)
    let matrix = [
        (
            "UPDATE customer SET name = 'hub' WHERE id = 2",
            "UPDATE customer SET name = 'leaf' WHERE id = 2",
            "update_update",
            "hub",
            "leaf",
        ),
        (
            "UPDATE customer SET name = 'hub' WHERE id = 2",
            "DELETE FROM customer WHERE id = 2",
            "delete_update",
            "hub",
            "~",
        ),
        (
            "DELETE FROM customer WHERE id = 2",
            "UPDATE customer SET name = 'leaf' WHERE id = 2",
            "update_delete",
            "~",
            "leaf",
        ),
        ("DELETE FROM customer WHERE id = 2", "DELETE FROM customer WHERE id = 2", "", "~", "~"),
        (
            "INSERT INTO customer (id, name) VALUES (2, 'hub') ON CONFLICT (id) DO UPDATE SET name = 'same'",
            "UPDATE customer SET name = 'same' WHERE id = 2",
            "",
            "same",
            "same",
        ),
    ];
    for (hub, leaf, kind, server, client) in matrix {
        for policy in [ConflictPolicy::ServerWins, ConflictPolicy::ClientWins] {
            let mut pair = Pair::with("", |definition| definition.conflict_policy = policy).await;
            pair.hub.run(hub);
            pair.leaf.run(leaf);
            let (_, _, before) = dirty(&pair.leaf, &pair.scope).await;
            let report = pair.sync().await.unwrap();
            let expected = if policy == ConflictPolicy::ServerWins { server } else { client };
            let name = pair.leaf.ask("SELECT coalesce((SELECT name FROM customer WHERE id = 2), '~')");
            assert_eq!(name, expected, "{hub} meets {leaf}");
            let kinds: Vec<_> =
                pair.leaf.conflicts().await.iter().map(|entry| entry.summary.kind.name()).collect();
            assert_eq!(kinds.join(","), kind, "{hub} meets {leaf}");
            assert_eq!(report.conflicts, u64::from(!kind.is_empty()));
            let (blocks, rows, _) = dirty(&pair.leaf, &pair.scope).await;
            let kept = policy == ConflictPolicy::ClientWins && !kind.is_empty();
            assert_eq!(rows.len(), usize::from(kept), "{rows:?}");
            if kept {
                assert!(blocks[0].ticks[0] > before.tick(), "a row that is kept has a new tick");
                assert_eq!(blocks[0].births[0] != Tick(0), kind == "update_delete");
            }
        }
    }
}

#[tokio::test]
async fn a_whole_view_removes_clean_rows_that_it_does_not_name_and_keeps_dirty_ones() {
    let mut pair = Pair::new().await;
    pair.leaf.run("INSERT INTO customer (id, name) VALUES (8, 'mine')");
    // Without tracking, as a disk that lied would: the row is clean, and the hub has never heard of it.
    pair.leaf.run(
        "UPDATE syncline_state SET writing = 1; INSERT INTO customer (id, name) VALUES (9, 'stray'); \
                   UPDATE syncline_state SET writing = 0",
    );
    pair.blocks_of(ChangesMode::WholeView).await.unwrap();
    assert_eq!(pair.leaf.ask("SELECT id FROM customer ORDER BY id"), "1\n2\n3\n8");
    assert_eq!(pair.dirty().await, ["+customer(8,mine,~,~,0)*"]);
    assert!(pair.leaf.conflicts().await.is_empty());
}

#[tokio::test]
async fn a_replica_that_diverged_keeps_what_is_replaced_in_its_log() {
    let mut pair = Pair::new().await;
    let before = pair.leaf.database.subscription(&pair.scope.schema.name).await.unwrap().unwrap();
    pair.leaf.run(
        "UPDATE syncline_state SET writing = 1; INSERT INTO customer (id, name) VALUES (9, 'stray'); \
                   UPDATE customer SET name = 'lost' WHERE id = 2; UPDATE syncline_state SET writing = 0",
    );
    pair.leaf.run("UPDATE customer SET name = 'dirty' WHERE id = 3");
    let diverged = pair.leaf.database.diverge(&pair.scope.schema.name).await.unwrap();
    assert!(diverged.replica != before.replica && diverged.reinitialize && diverged.knowledge.is_empty());
    pair.blocks_of(ChangesMode::WholeView).await.unwrap();
    let mut lost: Vec<_> = pair
        .leaf
        .conflicts()
        .await
        .into_iter()
        .map(|entry| entry.local_row.unwrap()["name"].as_str().unwrap().to_owned())
        .collect();
    lost.sort();
    assert_eq!(lost, ["dirty", "lost", "stray"]);
    assert_eq!(pair.leaf.ask(NAMES), pair.hub.ask(NAMES));
    let after = pair.leaf.database.subscription(&pair.scope.schema.name).await.unwrap().unwrap();
    assert!(!after.diverged && !after.reinitialize);
}

#[tokio::test]
async fn rows_that_the_leaf_refuses_are_excepted_until_they_apply() {
    let mut pair = Pair::with("", |_| ()).await;
    pair.leaf.run("CREATE TRIGGER t BEFORE INSERT ON customer WHEN NEW.name = 'bad' BEGIN SELECT RAISE(ABORT, 'no'); END");
    pair.hub.run(
        "INSERT INTO customer (id, name) VALUES (20, 'bad'); INSERT INTO invoice VALUES (21, 20, 1); \
                  INSERT INTO customer (id, name) VALUES (22, 'good')",
    );
    let before = pair.known.clone();
    let report = pair.sync().await.unwrap();
    assert_eq!(report.row_errors.len(), 2, "{:?}", report.row_errors);
    assert_eq!(pair.leaf.ask("SELECT group_concat(id) FROM customer WHERE id > 3"), "22");
    let subscription = pair.leaf.database.subscription(&pair.scope.schema.name).await.unwrap().unwrap();
    assert_eq!(subscription.excepted_keys.len(), 2);
    assert!(subscription.excepted_keys.iter().all(|key| key.knowledge_before == learned(&before)));
    pair.leaf.run("DROP TRIGGER t");
    let keys = |table: &str, id: i64| crate::store::Part::Keys {
        table: table_id(&pair.scope, table),
        keys: vec![syncline::value::key_bytes([syncline::value::Cell::Int64(id)]).unwrap()],
    };
    let parts = plan(vec![keys("customer", 20), keys("invoice", 21)], pair.known.clone(), None);
    let sent = pair.hub.enumerate(&pair.scope, parts).await.unwrap();
    let blocks = sent.blocks.into_iter().map(|block| block.block).collect();
    let mode = ChangesMode::Delta { whole_tables: vec![] };
    download(&pair.leaf, &pair.scope, mode, vec![blocks], &sent.knowledge).await.unwrap();
    let subscription = pair.leaf.database.subscription(&pair.scope.schema.name).await.unwrap().unwrap();
    assert!(subscription.excepted_keys.is_empty());
    assert_eq!(pair.leaf.ask("SELECT count(*) FROM invoice"), "2");
}

#[tokio::test]
async fn side_effects_of_a_download_are_no_local_changes() {
    let mut pair = Pair::new().await;
    pair.leaf.run("CREATE TRIGGER t AFTER INSERT ON line BEGIN UPDATE customer SET points = points + 1; END");
    pair.hub.run("INSERT INTO line VALUES (10, 2, 'y')");
    pair.sync().await.unwrap();
    assert_eq!(pair.leaf.ask("SELECT points FROM customer WHERE id = 1"), "1");
    assert!(pair.dirty().await.is_empty());
    pair.leaf.run("INSERT INTO line VALUES (10, 3, 'z')");
    assert_eq!(pair.dirty().await.len(), 4);
}

#[tokio::test]
async fn a_download_of_swapped_unique_values_is_applied() {
    let mut pair = Pair::new().await;
    pair.hub.run(
        "UPDATE customer SET email = NULL WHERE id = 1; UPDATE customer SET email = 'a@x' WHERE id = 2; \
                  UPDATE customer SET email = 'b@x' WHERE id = 1",
    );
    let report = pair.sync().await.unwrap();
    assert!(report.row_errors.is_empty(), "{:?}", report.row_errors);
    assert_eq!(pair.leaf.ask(NAMES), pair.hub.ask(NAMES));
}

#[tokio::test]
async fn rows_that_were_there_before_are_sent_as_born_there() {
    let leaf_schema = "CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT UNIQUE, \
                       boss INTEGER, points INTEGER); INSERT INTO customer VALUES (50, 'old', NULL, NULL, 0)";
    let pair = Pair::with(leaf_schema, |_| ()).await;
    assert_eq!(pair.leaf.ask("SELECT count(*) FROM customer"), "4");
    assert_eq!(pair.dirty().await, ["+customer(50,old,~,~,0)*"]);
}

#[tokio::test]
async fn columns_that_differ_in_case_alone_are_refused_by_name() {
    let (_, mut scope) = File::hub(SCHEMA, TABLES).await;
    let customer = scope.schema.tables.iter_mut().find(|table| table.name == "customer").unwrap();
    customer.columns.iter_mut().find(|column| column.name == "email").unwrap().name = "Name".to_owned();
    // Into a table that is there, and one that would be made.
    for there in
        ["CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL, boss INT, points INT)", ""]
    {
        let leaf = File::new(there).await;
        let error = leaf.database.subscribe(&scope.schema, ReplicaId::fresh()).await.unwrap_err();
        assert_eq!(error.reason(), ErrorReason::SchemaMismatch);
        assert!(error.message().contains("differ in case alone"), "{}", error.message());
    }
}

#[tokio::test]
async fn tables_that_do_not_fit_are_refused_with_every_difference() {
    let (_, scope) = File::hub(SCHEMA, TABLES).await;
    let leaf = File::new(
        "CREATE TABLE customer (id TEXT PRIMARY KEY, name REAL, points INTEGER, boss INTEGER, extra INT NOT NULL); \
         CREATE VIEW invoice AS SELECT 1",
    )
    .await;
    let error = leaf.database.subscribe(&scope.schema, ReplicaId::fresh()).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::SchemaMismatch);
    for part in [
        "column \"email\" is missing",
        "\"id\" is declared TEXT",
        "\"name\" is declared REAL",
        "extra",
        "a view",
    ] {
        assert!(error.message().contains(part), "{part}: {}", error.message());
    }
    assert!(leaf.database.subscription(&scope.schema.name).await.unwrap().is_none());
}

#[tokio::test]
async fn subscribing_again_changes_nothing_and_unsubscribing_leaves_the_tables() {
    let pair = Pair::new().await;
    let before = pair.leaf.ask("SELECT name, sql FROM sqlite_master ORDER BY name");
    let known = pair.leaf.database.subscription(&pair.scope.schema.name).await.unwrap().unwrap();
    let again = pair.leaf.database.subscribe(&pair.scope.schema, known.hub).await.unwrap();
    assert_eq!(again, known);
    assert_eq!(pair.leaf.ask("SELECT name, sql FROM sqlite_master ORDER BY name"), before);
    let mut other = pair.scope.schema.clone();
    other.name = "other".parse().unwrap();
    let error = pair.leaf.database.subscribe(&other, known.hub).await.unwrap_err();
    assert!(error.message().contains("belongs to scope \"shop\""), "{}", error.message());
    assert!(pair.leaf.database.unsubscribe(&pair.scope.schema.name).await.unwrap());
    let ours = pair.leaf.ask("SELECT count(*) FROM sqlite_master WHERE name LIKE 'syncline%'");
    assert_eq!((ours.as_str(), pair.leaf.ask("SELECT count(*) FROM customer").as_str()), ("0", "3"));
}

#[tokio::test]
async fn a_table_that_was_made_anew_is_compared_as_a_whole() {
    let rebuilt = "CREATE TABLE other AS SELECT * FROM line; DROP TABLE line; CREATE TABLE line (invoice_id INTEGER \
                   NOT NULL, number INTEGER NOT NULL, text TEXT, PRIMARY KEY (invoice_id, number)); \
                   INSERT INTO line SELECT * FROM other; DROP TABLE other; UPDATE line SET text = 'mine'; \
                   INSERT INTO line VALUES (10, 2, 'new')";
    // What was done, and what is pending then: all that is there, or nothing.
    for (done, pending) in [
        (rebuilt, &["+line(10,1,mine)*", "+line(10,2,new)*"][..]),
        ("UPDATE line SET text = 'mine'; DROP TABLE line", &[]),
        ("UPDATE line SET text = 'mine'; ALTER TABLE line RENAME TO old_line", &[]),
    ] {
        let pair = Pair::new().await;
        let known = pair.leaf.database.subscription(&pair.scope.schema.name).await.unwrap().unwrap();
        pair.leaf.run(done);
        // Nobody takes that for nothing.
        assert!(pair.leaf.database.pending_changes(&known).await.unwrap() > 0);
        let again = pair.leaf.database.subscribe(&pair.scope.schema, known.hub).await.unwrap();
        assert!(again.diverged && again.reinitialize && again.knowledge.is_empty(), "{done}: {again:?}");
        assert_ne!(again.replica, known.replica);
        assert_eq!(pair.dirty().await, pending, "{done}");
        // Once is enough.
        let third = pair.leaf.database.subscribe(&pair.scope.schema, known.hub).await.unwrap();
        assert_eq!(third, again);
    }
}

#[tokio::test]
async fn a_change_that_may_not_be_uploaded_any_more_is_kept_in_the_log() {
    let mut pair = Pair::new().await;
    pair.leaf.run("UPDATE customer SET name = 'mine' WHERE id = 1");
    let known = pair.leaf.database.subscription(&pair.scope.schema.name).await.unwrap().unwrap();
    let turned = |schema: &ScopeSchema, direction| {
        let mut schema = schema.clone();
        schema.tables.iter_mut().for_each(|table| table.direction = direction);
        schema
    };
    let down = turned(&pair.scope.schema, Direction::Download);
    assert!(pair.leaf.database.subscribe(&down, known.hub).await.unwrap().diverged);
    let both = pair.scope.clone();
    let sent = pair.hub.changes(&both, &Knowledge::new(), None).await;
    pair.scope.schema = down;
    let blocks = sent.blocks.into_iter().map(|block| block.block).collect();
    download(&pair.leaf, &pair.scope, ChangesMode::WholeView, vec![blocks], &sent.knowledge).await.unwrap();
    assert_eq!(pair.leaf.ask("SELECT name FROM customer WHERE id = 1"), "Ada");
    let conflicts = pair.leaf.conflicts().await;
    assert_eq!(conflicts[0].local_row.as_ref().unwrap()["name"], "mine");
    // And back: what came from the hub is no change of ours.
    let again = pair.leaf.database.subscribe(&both.schema, known.hub).await.unwrap();
    assert!(!again.diverged);
    pair.scope = both;
    assert!(pair.dirty().await.is_empty());
}

#[tokio::test]
async fn what_a_former_hub_holds_is_sent_as_born_there() {
    let pair = Pair::new().await;
    let former = File::new(SCHEMA).await;
    former.database.open_hub().await.unwrap();
    let (mut first, mut second) = (definition(&["customer"]), definition(&["invoice"]));
    (first.name, second.name) = ("first".parse().unwrap(), "second".parse().unwrap());
    let first = former.define(&first).await;
    former.define(&second).await;
    former.run("INSERT INTO customer (id, name) VALUES (9, 'own')");
    assert!(former.database.drop_scope(&first.schema.name).await.unwrap());
    let mut schema = pair.scope.schema.clone();
    schema.tables.retain(|table| table.name == "customer");
    schema.tables[0].foreign_keys.clear();
    former.database.subscribe(&schema, ReplicaId::fresh()).await.unwrap();
    let scope = StoredScope { schema, ..pair.scope.clone() };
    assert_eq!(dirty(&former, &scope).await.1, ["+customer(9,own,~,~,0)*"]);
}

#[tokio::test]
async fn of_a_table_that_left_the_scope_no_row_is_excepted() {
    let pair = Pair::new().await;
    let mut known = pair.leaf.database.subscription(&pair.scope.schema.name).await.unwrap().unwrap();
    let excepted = |name| {
        let row = RowKey { table: table_id(&pair.scope, name), key: bytes::Bytes::from_static(b"k") };
        ExceptedKey { row, knowledge_before: bytes::Bytes::new() }
    };
    known.excepted_keys = vec![excepted("line"), excepted("customer")];
    let mut schema = pair.scope.schema.clone();
    schema.tables.retain(|table| table.name != "line");
    assert_eq!(known.renewed(&schema, known.hub).unwrap().excepted_keys, [excepted("customer")]);
}

#[tokio::test]
async fn a_scope_that_calls_a_table_by_another_case_keeps_it() {
    let pair = Pair::new().await;
    pair.leaf.run("UPDATE line SET text = 'mine'");
    let known = pair.leaf.database.subscription(&pair.scope.schema.name).await.unwrap().unwrap();
    let mut schema = pair.scope.schema.clone();
    schema.tables.iter_mut().find(|table| table.name == "line").unwrap().name = "Line".to_owned();
    let again = pair.leaf.database.subscribe(&schema, known.hub).await.unwrap();
    assert!(!again.diverged);
    let scope = StoredScope { schema, ..pair.scope.clone() };
    assert_eq!(dirty(&pair.leaf, &scope).await.1, ["+Line(10,1,mine)"]);
}

#[tokio::test]
async fn the_hub_may_take_a_new_id_but_not_be_another() {
    let pair = Pair::new().await;
    let name = &pair.scope.schema.name;
    let first = pair.leaf.database.subscription(name).await.unwrap().unwrap();
    for version in [1, 2] {
        let hub = ReplicaId::fresh();
        let mut schema = pair.scope.schema.clone();
        schema.version = version;
        assert_eq!(pair.leaf.database.subscribe(&schema, hub).await.unwrap().hub, hub);
        let stored = pair.leaf.database.subscription(name).await.unwrap().unwrap();
        assert_eq!(stored, crate::store::Subscription { hub, schema, ..first.clone() });
    }
    let mut other = pair.scope.schema.clone();
    other.incarnation = syncline::ids::Incarnation::fresh();
    let error = pair.leaf.database.subscribe(&other, ReplicaId::fresh()).await.unwrap_err();
    assert_eq!(error.reason(), ErrorReason::SchemaMismatch);
    assert!(error.message().contains("another hub"), "{error}");
}

#[tokio::test]
async fn each_time_that_a_row_conflicts_in_a_session_its_loser_is_logged() {
    let mut pair = Pair::with("", |definition| definition.conflict_policy = ConflictPolicy::ClientWins).await;
    pair.leaf.run("UPDATE customer SET name = 'mine' WHERE id = 1");
    // As from an enumeration that went on under a later snapshot: the row came, and comes again as it is by then.
    let mut batches = Vec::new();
    for name in ["v2", "v3"] {
        pair.hub.run(&format!("UPDATE customer SET name = '{name}' WHERE id = 1"));
        let sent = pair.hub.changes(&pair.scope, &pair.known, None).await;
        batches.push(sent.blocks.into_iter().map(|block| block.block).collect::<Vec<Block>>());
        pair.known = sent.knowledge;
    }
    let mode = ChangesMode::Delta { whole_tables: vec![] };
    let report = download(&pair.leaf, &pair.scope, mode, batches, &pair.known).await.unwrap();
    assert_eq!(report.conflicts, 2);
    let mut lost: Vec<_> = pair
        .leaf
        .conflicts()
        .await
        .iter()
        .map(|entry| entry.remote_row.as_ref().unwrap()["name"].to_string())
        .collect();
    lost.sort();
    assert_eq!(lost, ["\"v2\"", "\"v3\""]);
    assert_eq!(pair.leaf.ask("SELECT name FROM customer WHERE id = 1"), "mine");
}

/// As from an enumeration that went on under a later snapshot: the row came, and comes again as it is by then.
#[tokio::test]
async fn a_row_that_comes_twice_is_as_it_came_last_though_it_had_to_wait() {
    let mut pair = Pair::new().await;
    let row = |id, name: &str, email: &str| {
        upsert("customer", vec![int(id), text(name), text(email), Value::Null, int(0)])
    };
    let first = blocks(&pair.scope.schema.tables, &[row(1, "v2", "a@x")]);
    // The second one of the row waits until another has given its address away.
    let again = blocks(&pair.scope.schema.tables, &[row(1, "v3", "b@x"), row(2, "Bob", "new@x")]);
    pair.known = pair.hub.changes(&pair.scope, &pair.known, None).await.knowledge;
    let mode = ChangesMode::Delta { whole_tables: vec![] };
    let report = download(&pair.leaf, &pair.scope, mode, vec![first, again], &pair.known).await.unwrap();
    assert!(report.row_errors.is_empty());
    assert_eq!(pair.leaf.ask("SELECT name, email FROM customer WHERE id = 1"), "v3|b@x");
}

/// The hub never had the row: there is nothing to tell it, and nothing waits for ever.
#[tokio::test]
async fn a_key_that_can_not_travel_is_forgotten_with_its_row() {
    let (_hub, scope) = File::hub("CREATE TABLE word (k TEXT PRIMARY KEY NOT NULL, v TEXT)", &["word"]).await;
    let leaf = File::new("").await;
    let known = leaf.database.subscribe(&scope.schema, ReplicaId::fresh()).await.unwrap();
    leaf.run("INSERT INTO word VALUES (CAST(x'ff' AS TEXT), 'x'), ('b', 'y')");
    let bounds = LeafUpload { block_bytes_max: 1 << 20, row_bytes_max: 1 << 20 };
    let mut snapshot = leaf.database.enumerate_dirty(&known, bounds).await.unwrap();
    let error = loop {
        if let Err(error) = snapshot.blocks.recv().await.unwrap() {
            break error;
        }
    };
    assert_eq!(error.reason(), ErrorReason::RowInvalid);
    leaf.run("DELETE FROM word WHERE k <> 'b'");
    assert_eq!(dirty(&leaf, &scope).await.1, ["+word(b,y)*"]);
    assert_eq!(leaf.database.pending_changes(&known).await.unwrap(), 1);
}
