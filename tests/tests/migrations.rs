//! What a migration changes past the triggers of a hub: columns that leave a scope and come back, values that DDL converts.

use syncline_tests::database::{Kind, PAIRINGS};
use syncline_tests::leaf::Leaf;
use syncline_tests::service::{apply_scope, apply_scope_with};

use crate::upgrades::{COLUMN, Setup, row, scope};

/// While the column was out of the scope, the leaf's copy of it grew old. Its edit of another column must not bring that
/// back without a word.
#[tokio::test]
async fn a_column_that_joins_again_brings_back_nothing_old_in_silence() {
    for (hub, leaf) in PAIRINGS {
        for (policy, colour, name) in [("server_wins", "red", "item 1"), ("client_wins", "blue", "edited")] {
            let what = format!("{hub:?} {leaf:?} {policy}");
            let setup = Setup::new(hub, leaf, policy).await;
            setup.hub.execute(COLUMN).await;
            apply_scope(&setup.hub, &scope(policy), setup.directory.path()).await;
            setup.hub.execute("UPDATE item SET colour = 'blue' WHERE id <= 2").await;
            setup.assert_same(&what).await;
            let narrow = format!("{}columns = [\"id\", \"name\"]\n", scope(policy));
            apply_scope(&setup.hub, &narrow, setup.directory.path()).await;
            setup.leaf.sync().await;
            setup.hub.execute("UPDATE item SET colour = 'red' WHERE id <= 2").await;
            // It knows the version of the row from here on, but not what the column holds.
            setup.leaf.sync().await;
            setup.leaf.database.execute("UPDATE item SET name = 'edited' WHERE id = 1").await;
            apply_scope(&setup.hub, &scope(policy), setup.directory.path()).await;
            let run = setup.leaf.sync().await;
            assert_eq!(run.number("/conflicts"), 1, "{what}: {}", run.report);
            assert_eq!(crate::everyday::conflicts(&setup.hub).await.len(), 1, "{what}");
            setup.assert_same(&what).await;
            let rows = Setup::rows(&setup.hub).await;
            assert_eq!(row(&rows, 1), (name.into(), Some(colour.into())), "{what}");
            assert_eq!(row(&rows, 2), ("item 2".into(), Some("red".into())), "{what}");
        }
    }
}

/// No trigger sees what ALTER TABLE makes of a column's values.
#[tokio::test]
async fn what_ddl_changed_reaches_the_leaves_where_a_comparison_is_asked_for() {
    for (hub, leaf) in PAIRINGS {
        let what = format!("{hub:?} {leaf:?}");
        let setup = Setup::new(hub, leaf, "server_wins").await;
        setup.hub.execute(COLUMN).await;
        apply_scope(&setup.hub, &scope("server_wins"), setup.directory.path()).await;
        setup.assert_same(&what).await;
        setup.leaf.database.execute("UPDATE item SET name = 'edited' WHERE id = 1").await;
        let convert = match hub {
            Kind::Sqlite => {
                "ALTER TABLE item DROP COLUMN colour; ALTER TABLE item ADD COLUMN colour VARCHAR(20) DEFAULT 'pink'"
            }
            Kind::Postgres => "ALTER TABLE item ALTER COLUMN colour TYPE varchar(20) USING 'pink'",
        };
        setup.hub.execute(convert).await;
        apply_scope_with(&setup.hub, &scope("server_wins"), setup.directory.path(), &["--compare", "item"])
            .await;
        // The edit was made in sight of other values: it is a conflict, and kept in the log.
        let run = setup.leaf.sync().await;
        assert_eq!(run.number("/conflicts"), 1, "{what}: {}", run.report);
        setup.assert_same(&what).await;
        assert_eq!(row(&Setup::rows(&setup.leaf.database).await, 5).1, Some("pink".into()), "{what}");
    }
}

/// Nobody takes them any more, so they are written down; once, however often the run has to try.
#[tokio::test]
async fn changes_of_a_table_that_leaves_are_kept_in_the_leafs_conflict_log() {
    for (hub, leaf) in PAIRINGS {
        let what = format!("{hub:?} {leaf:?}");
        let setup = Setup::new(hub, leaf, "server_wins").await;
        let notes = "CREATE TABLE note (id INTEGER PRIMARY KEY, text VARCHAR(80))";
        setup.hub.execute(&format!("{notes}; INSERT INTO note VALUES (1, 'a'), (2, 'b'), (3, 'c')")).await;
        let wider = format!("{}[[tables]]\nname = \"note\"\n", scope("server_wins"));
        apply_scope(&setup.hub, &wider, setup.directory.path()).await;
        setup.leaf.sync().await;
        let edits = "UPDATE note SET text = 'mine' WHERE id = 1; DELETE FROM note WHERE id = 2; \
                     INSERT INTO note VALUES (4, 'born')";
        setup.leaf.database.execute(edits).await;
        setup.leaf.database.execute("UPDATE item SET name = 'edited' WHERE id = 1").await;
        // In place of it comes a table that the leaf has in another form.
        setup.hub.execute("CREATE TABLE spare (id INTEGER PRIMARY KEY, size INTEGER)").await;
        setup.leaf.database.execute("CREATE TABLE spare (id INTEGER PRIMARY KEY)").await;
        let other = format!("{}[[tables]]\nname = \"spare\"\n", scope("server_wins"));
        apply_scope(&setup.hub, &other, setup.directory.path()).await;
        for _ in 0..2 {
            let run = setup.leaf.run().await;
            assert_eq!(run.report["error"]["reason"], "SCHEMA_MISMATCH", "{what}: {}", run.report);
        }
        setup.leaf.database.execute("DROP TABLE spare").await;
        assert_eq!(setup.leaf.sync().await.number("/conflicts"), 3, "{what}");
        let mut kept: Vec<_> = crate::everyday::conflicts(&setup.leaf.database)
            .await
            .iter()
            .map(|entry| format!("{} {}", entry["kind"].as_str().unwrap(), entry["key"]))
            .collect();
        kept.sort();
        let expected = ["delete_update {\"id\":2}", "update_delete {\"id\":1}", "update_delete {\"id\":4}"];
        assert_eq!(kept, expected, "{what}");
        assert_eq!(setup.leaf.database.count("SELECT count(*) FROM note").await, 3, "{what}");
        assert_eq!(setup.hub.count("SELECT count(*) FROM item WHERE name = 'edited'").await, 1, "{what}");
    }
}

/// The hub refuses changes, and knows them by the table's id; under the next one it must not take them for known.
#[tokio::test]
async fn what_was_refused_is_sent_again_after_its_table_has_left_and_joined() {
    for (hub, leaf) in PAIRINGS {
        let what = format!("{hub:?} {leaf:?}");
        let setup = Setup::new(hub, leaf, "server_wins").await;
        let tables = "CREATE TABLE note (id INTEGER PRIMARY KEY, text VARCHAR(80) UNIQUE); \
                      CREATE TABLE pinned (note INTEGER REFERENCES note)";
        setup.hub.execute(&format!("{tables}; INSERT INTO note VALUES (1, 'a'), (2, 'b'), (3, 'c')")).await;
        let wider = format!("{}[[tables]]\nname = \"note\"\n", scope("server_wins"));
        apply_scope(&setup.hub, &wider, setup.directory.path()).await;
        setup.leaf.sync().await;
        setup.hub.execute("INSERT INTO note VALUES (8, 'x'), (9, 'y'); INSERT INTO pinned VALUES (2)").await;
        let edits = "UPDATE note SET text = 'x' WHERE id = 1; DELETE FROM note WHERE id = 2; \
                     INSERT INTO note VALUES (4, 'y')";
        setup.leaf.database.execute(edits).await;
        let run = setup.leaf.run().await;
        assert_eq!((run.status, run.number("/row_errors")), (Some(3), 5), "{what}: {}", run.report);
        for toml in [scope("server_wins"), wider] {
            apply_scope(&setup.hub, &toml, setup.directory.path()).await;
        }
        setup.hub.execute("DELETE FROM note WHERE id > 7; DELETE FROM pinned").await;
        assert_eq!(setup.leaf.sync().await.number("/conflicts"), 2, "{what}");
        let mut kept: Vec<_> = crate::everyday::conflicts(&setup.hub)
            .await
            .iter()
            .map(|entry| format!("{} {}", entry["key"], entry["remote"]["row"]["text"]))
            .collect();
        kept.sort();
        assert_eq!(kept, ["{\"id\":1} \"x\"", "{\"id\":2} null"], "{what}");
        let notes = setup.hub.rows("note", &["id"], &["text"]).await;
        assert_eq!(notes.len(), 4, "{what}");
        assert_eq!(setup.leaf.database.rows("note", &["id"], &["text"]).await, notes, "{what}");
        assert_eq!(setup.hub.count("SELECT count(*) FROM note WHERE text = 'y'").await, 1, "{what}");
    }
}

/// Nothing tracks a table that only comes down, but what stood in it before was the leaf's own; also if it has turned to
/// both directions by the time of the first download.
#[tokio::test]
async fn rows_of_a_table_that_joins_for_downloads_only_are_kept_in_the_leafs_conflict_log() {
    for (hub, leaf) in PAIRINGS {
        for turns in [false, true] {
            let what = format!("{hub:?} {leaf:?}, turns {turns}");
            let setup = Setup::new(hub, leaf, "server_wins").await;
            let notes = "CREATE TABLE note (id INTEGER PRIMARY KEY, text VARCHAR(80))";
            setup
                .hub
                .execute(&format!("{notes}; INSERT INTO note VALUES (1, 'a'), (2, 'b'), (3, 'c')"))
                .await;
            let own = format!("{notes}; INSERT INTO note VALUES (1, 'mine'), (2, 'b'), (5, 'only here')");
            setup.leaf.database.execute(&own).await;
            let wider = format!("{}[[tables]]\nname = \"note\"\n", scope("server_wins"));
            let download = format!("{wider}direction = \"download\"\n");
            apply_scope(&setup.hub, &download, setup.directory.path()).await;
            if turns {
                setup.leaf.database.execute("UPDATE item SET name = 'edited' WHERE id = 1").await;
                let uploads = Leaf::new(&setup.leaf.database, setup.service.url());
                uploads.with(&["--direction", "upload"]).sync().await;
                apply_scope(&setup.hub, &wider, setup.directory.path()).await;
            }
            assert_eq!(setup.leaf.sync().await.number("/conflicts"), 2, "{what}");
            let mut kept: Vec<_> = crate::everyday::conflicts(&setup.leaf.database)
                .await
                .iter()
                .map(|entry| format!("{} {}", entry["key"], entry["local"]["row"]["text"]))
                .collect();
            kept.sort();
            assert_eq!(kept, ["{\"id\":1} \"mine\"", "{\"id\":5} \"only here\""], "{what}");
            let notes = setup.hub.rows("note", &["id"], &["text"]).await;
            assert_eq!(setup.leaf.database.rows("note", &["id"], &["text"]).await, notes, "{what}");
            // From here on it is the hub's.
            setup.hub.execute("UPDATE note SET text = 'new' WHERE id = 1").await;
            assert_eq!(setup.leaf.sync().await.number("/conflicts"), 0, "{what}");
        }
    }
}
