//! What a migration changes past the triggers of a hub: columns that leave a scope and come back, values that DDL converts.

use syncline_tests::database::{Kind, PAIRINGS};
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
