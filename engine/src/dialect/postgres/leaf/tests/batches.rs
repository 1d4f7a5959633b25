//! A transaction a batch: a download that is broken off goes on where it stopped.

use syncline::ids::SessionId;
use syncline::value::CanonicalType as T;

use super::kit::{DELTA, Leaf, WHOLE, int, items, refers, scope, table, text, up};
use crate::store::DownloadJob;

fn per_batch(leaf: &Leaf, whole: bool) -> DownloadJob {
    DownloadJob {
        per_batch: true,
        session: SessionId::fresh(),
        ..leaf.job(if whole { WHOLE } else { DELTA })
    }
}

#[tokio::test]
async fn each_batch_is_committed_with_its_number() {
    let mut leaf = Leaf::subscribed(items()).await;
    let s = leaf.schema.clone();
    leaf.run("CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'SELECT * FROM nowhere'; END $$").await;
    leaf.run(
        "CREATE TRIGGER fail BEFORE INSERT ON item FOR EACH ROW WHEN (NEW.id = 3) EXECUTE FUNCTION fail()",
    )
    .await;
    let batch = |id| vec![up(&s, "item", &[[int(id), text("x")]])];
    let batches = vec![batch(1), batch(2), batch(3), batch(4)];
    leaf.try_download(per_batch(&leaf, false), batches.clone()).await.unwrap_err();
    let subscription = leaf.subscription().await;
    assert_eq!((subscription.batches_applied, subscription.applied), (2, false));
    assert!(subscription.knowledge.is_empty() && subscription.download_mark.is_none());
    assert_eq!(leaf.rows("SELECT id FROM item ORDER BY id").await, "1 2");
    leaf.run("DROP TRIGGER fail ON item").await;
    let report = leaf.try_download(per_batch(&leaf, false), batches).await.unwrap();
    assert_eq!(report.upserts, 2);
    let subscription = leaf.subscription().await;
    assert!(subscription.applied);
    assert_eq!(leaf.rows("SELECT id FROM item ORDER BY id").await, "1 2 3 4");
    assert!(leaf.dirty().await.0.is_empty());
}

#[tokio::test]
async fn a_comparison_outlives_the_program() {
    let mut leaf = Leaf::subscribed(items()).await;
    let s = leaf.schema.clone();
    let held = up(&s, "item", &[[int(1), text("a")], [int(2), text("b")], [int(9), text("old")]]);
    leaf.download(DELTA, vec![held]).await;
    leaf.run("ALTER TABLE item ADD CONSTRAINT once CHECK (name <> 'bad')").await;
    let first = vec![up(&s, "item", &[[int(1), text("a")], [int(5), text("bad")]])];
    let second = vec![up(&s, "item", &[[int(2), text("B")]])];
    // The second batch is refused whole: as if the program had been killed after the first.
    leaf.run("CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'SELECT * FROM nowhere'; END $$").await;
    leaf.run(
        "CREATE TRIGGER fail BEFORE INSERT ON item FOR EACH ROW WHEN (NEW.id = 2) EXECUTE FUNCTION fail()",
    )
    .await;
    let batches = vec![first, second];
    leaf.try_download(per_batch(&leaf, true), batches.clone()).await.unwrap_err();
    assert_eq!(leaf.subscription().await.excepted_keys.len(), 1);
    leaf.run("DROP TRIGGER fail ON item").await;
    let report = leaf.try_download(per_batch(&leaf, true), batches).await.unwrap();
    assert_eq!(report.deletes, 1);
    assert_eq!(leaf.rows("SELECT * FROM item ORDER BY id").await, "1|a 2|B");
    assert_eq!(
        leaf.subscription().await.excepted_keys.len(),
        1,
        "the row of the first batch is excepted still"
    );
    assert_eq!(leaf.rows("SELECT to_regclass('syncline.seen_1') IS NULL").await, "true");
}

#[tokio::test]
async fn a_child_may_come_in_an_earlier_batch_than_its_parent() {
    let mut schema = scope(vec![
        table(1, "parent", &[("id", T::Int64)]),
        table(2, "child", &[("id", T::Int64), ("parent", T::Int64)]),
    ]);
    schema.tables[1].foreign_keys = vec![refers(2, 1)];
    let mut leaf = Leaf::subscribed(schema).await;
    let s = leaf.schema.clone();
    let batches = vec![vec![up(&s, "child", &[[int(7), int(1)]])], vec![up(&s, "parent", &[[int(1)]])]];
    let report = leaf.try_download(per_batch(&leaf, false), batches).await.unwrap();
    assert_eq!((report.upserts, report.row_errors.len()), (2, 0), "{report:?}");
    assert_eq!(leaf.rows("SELECT * FROM child").await, "7|1");
    assert!(leaf.subscription().await.excepted_keys.is_empty());
}

#[tokio::test]
async fn an_exception_outlives_a_download_that_is_never_ended() {
    let mut leaf = Leaf::subscribed(items()).await;
    let s = leaf.schema.clone();
    leaf.run("ALTER TABLE item ADD CONSTRAINT once CHECK (name <> 'bad')").await;
    let batch = |id, name: &str| vec![up(&s, "item", &[[int(id), text(name)]])];
    leaf.try_download(per_batch(&leaf, false), vec![batch(1, "a"), batch(2, "bad")]).await.unwrap();
    assert_eq!(leaf.subscription().await.excepted_keys.len(), 1);
    // The second batch, in which the row comes, fails as a whole: as if the program had been killed after the first.
    leaf.run("CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE 'SELECT * FROM nowhere'; END $$").await;
    leaf.run(
        "CREATE TRIGGER fail BEFORE INSERT ON item FOR EACH ROW WHEN (NEW.id = 2) EXECUTE FUNCTION fail()",
    )
    .await;
    let batches = vec![batch(3, "c"), batch(2, "bad")];
    leaf.try_download(per_batch(&leaf, false), batches.clone()).await.unwrap_err();
    let subscription = leaf.subscription().await;
    assert_eq!((subscription.batches_applied, subscription.excepted_keys.len()), (1, 1));
    leaf.run("DROP TRIGGER fail ON item; ALTER TABLE item DROP CONSTRAINT once").await;
    let report = leaf.try_download(per_batch(&leaf, false), batches).await.unwrap();
    assert_eq!((report.upserts, report.row_errors.len()), (1, 0), "{report:?}");
    assert!(leaf.subscription().await.excepted_keys.is_empty());
}
