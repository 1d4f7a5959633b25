//! What a snapshot remembers from an earlier one, and when it does not.

use std::sync::Arc;

use syncline::error::ErrorReason;
use syncline::knowledge::Knowledge;

use super::kit::{Database, Shop, text};
use super::reading::upserts;
use crate::store::HubStore as _;

const ITEMS: &str = "CREATE TYPE mood AS ENUM ('well', 'ill');
     CREATE TABLE item (id mood PRIMARY KEY, name text); INSERT INTO item VALUES ('well', 'one')";

/// Whether the second of two snapshots believes what the first has read.
async fn remembers(shop: &Shop) -> bool {
    let mut known = Vec::new();
    for _ in 0..2 {
        drop(shop.hub.snapshot(&shop.scope).await.unwrap());
        known.push(shop.hub.openings.get(shop.scope.id).unwrap());
    }
    Arc::ptr_eq(&known[0], &known[1])
}

#[tokio::test]
async fn what_did_not_change_is_read_once() {
    let database = Database::with(ITEMS).await;
    let shop = database.scope(&["item"]).await;
    assert!(remembers(&shop).await);
    let before = shop.hub.openings.get(shop.scope.id).unwrap();
    database
        .run("INSERT INTO item VALUES ('ill', 'two'); DELETE FROM item WHERE name = 'one'; ANALYZE item")
        .await;
    assert_eq!(upserts(&shop.changes(&Knowledge::new()).await.1), [[text("ill"), text("two")]]);
    assert!(Arc::ptr_eq(&before, &shop.hub.openings.get(shop.scope.id).unwrap()));
}

#[tokio::test]
async fn what_changed_is_read_anew() {
    let database = Database::with(ITEMS).await;
    let shop = database.scope(&["item"]).await;
    for change in [
        "TRUNCATE item",
        "ALTER TYPE mood ADD VALUE 'so so'",
        "INSERT INTO item VALUES ('well', 'one')",
        "ALTER TABLE item ADD COLUMN more int",
        "ALTER TABLE item ALTER COLUMN name SET NOT NULL",
        "CREATE INDEX ON item (name)",
    ] {
        remembers(&shop).await;
        let before = shop.hub.openings.get(shop.scope.id).unwrap();
        database.run(change).await;
        let snapshot = shop.hub.snapshot(&shop.scope).await.unwrap();
        let state = snapshot.table(shop.id("item")).unwrap();
        let empty = database.cell("SELECT NOT EXISTS (SELECT FROM item)").await == "true";
        assert_eq!(state.empty, empty, "{change}");
        assert!(state.truncated.is_some(), "{change}");
        drop(snapshot);
        let is_data = change.starts_with("INSERT") || change.contains("ADD VALUE");
        let same = Arc::ptr_eq(&before, &shop.hub.openings.get(shop.scope.id).unwrap());
        assert!(!same || is_data, "{change}");
    }
    assert_eq!(upserts(&shop.changes(&Knowledge::new()).await.1), [[text("well"), text("one")]]);
}

#[tokio::test]
async fn harm_is_noticed_by_who_remembers() {
    for harm in [
        "ALTER TABLE item DISABLE TRIGGER syncline_update",
        "DROP TRIGGER syncline_key ON item",
        "ALTER TABLE item ENABLE TRIGGER syncline_insert",
        "ALTER TABLE item RENAME COLUMN name TO title",
        "ALTER TYPE mood RENAME TO feeling",
        "ALTER TABLE item RENAME TO other; CREATE TABLE item (id mood PRIMARY KEY, name text)",
        "ALTER SCHEMA public RENAME TO former; CREATE SCHEMA public; CREATE TABLE public.item (id int PRIMARY KEY, name text)",
        "DROP TABLE item; CREATE TABLE item (id mood PRIMARY KEY, name text)",
        "DROP TABLE item",
    ] {
        let database = Database::with(ITEMS).await;
        let shop = database.scope(&["item"]).await;
        assert!(remembers(&shop).await);
        database.run(harm).await;
        for _ in 0..2 {
            let error = shop.hub.snapshot(&shop.scope).await.err().unwrap();
            assert_eq!(error.reason(), ErrorReason::TrackingBroken, "{harm}: {error}");
        }
    }
}

#[tokio::test]
async fn a_domain_is_never_believed() {
    let domain = "CREATE DOMAIN positive AS int CHECK (VALUE > 0);
         CREATE TABLE item (id positive PRIMARY KEY, name text); INSERT INTO item VALUES (1, 'one')";
    let shop = Database::with(domain).await.scope(&["item"]).await;
    assert!(!remembers(&shop).await);
    assert_eq!(shop.changes(&Knowledge::new()).await.1.len(), 1);
}
