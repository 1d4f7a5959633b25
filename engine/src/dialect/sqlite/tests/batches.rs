//! A transaction a batch: a download that is broken off goes on where it stopped, and no row is taken for known that is not
//! here.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use syncline::batch::Block;
use syncline::error::{Result, SyncError};
use syncline::ids::{Mark, ReplicaId, SessionId};
use syncline::knowledge::Knowledge;
use syncline::value::Value;

use super::support::*;
use crate::replica::{ChangesBegin, ChangesEnd, ChangesMode};
use crate::store::{
    BatchSource, DownloadJob, DownloadReport, DownloadSource, LeafStore as _, StoredScope, Subscription,
};

/// Batches whose source breaks after the last.
struct Broken(Batches);

#[async_trait::async_trait]
impl BatchSource for Broken {
    async fn blocks(&self, index: usize) -> Result<Option<Vec<Block>>> {
        match self.0.blocks(index).await? {
            Some(blocks) => Ok(Some(blocks)),
            None => Err(SyncError::internal("broken off")),
        }
    }
}

#[async_trait::async_trait]
impl DownloadSource for Broken {
    async fn end(&self) -> Result<ChangesEnd> {
        Err(SyncError::internal("broken off"))
    }
}

/// A leaf that refuses customers of the name `bad`.
struct Leaf {
    file: File,
    scope: StoredScope,
}

impl Leaf {
    async fn new() -> Self {
        let (_, scope) = File::hub(SCHEMA, &["customer", "invoice", "line"]).await;
        let file = File::new("").await;
        file.database.subscribe(&scope.schema, ReplicaId::fresh()).await.unwrap();
        file.run(
            "CREATE TRIGGER refuse BEFORE INSERT ON customer WHEN NEW.name = 'bad' \
             BEGIN SELECT RAISE(ABORT, 'no'); END",
        );
        Self { file, scope }
    }

    fn customer(&self, id: i64, name: &'static str) -> Vec<Block> {
        let cells = vec![int(id), text(name), Value::Null, Value::Null, int(0)];
        blocks(&self.scope.schema.tables, &[upsert("customer", cells)])
    }

    async fn subscription(&self) -> Subscription {
        self.file.database.subscription(&self.scope.schema.name).await.unwrap().unwrap()
    }

    async fn excepted(&self) -> usize {
        self.subscription().await.excepted_keys.len()
    }

    async fn apply(&self, batches: Vec<Vec<Block>>, ends: bool) -> Result<DownloadReport> {
        let job = DownloadJob {
            session: SessionId::fresh(),
            begin: ChangesBegin {
                mode: ChangesMode::Delta { whole_tables: vec![] },
                made_with: learned(&Knowledge::new()),
                resumed: false,
            },
            per_batch: true,
            clock_offset_us: 0,
        };
        let mut subscription = self.subscription().await;
        if subscription.applied {
            // As the driver begins a session.
            subscription = Subscription { applied: false, batches_applied: 0, ..subscription };
            self.file.database.save(&subscription).await.unwrap();
        }
        let end = ChangesEnd {
            learned: learned(&Knowledge::new()),
            download_mark: Mark::fresh(),
            batches: u32::try_from(batches.len()).unwrap(),
            rows: 0,
        };
        let done = Arc::new(AtomicU64::new(0));
        let batches = Batches { batches, end: Some(end) };
        let source: Arc<dyn DownloadSource> =
            if ends { Arc::new(batches) } else { Arc::new(Broken(batches)) };
        self.file.database.apply_download(&subscription, job, source, done).await
    }
}

#[tokio::test]
async fn a_download_by_batches_is_taken_up_where_it_stopped() {
    let leaf = Leaf::new().await;
    leaf.apply(vec![leaf.customer(1, "a")], false).await.unwrap_err();
    let subscription = leaf.subscription().await;
    assert_eq!((subscription.batches_applied, subscription.applied), (1, false));
    leaf.apply(vec![leaf.customer(1, "a"), leaf.customer(2, "b")], true).await.unwrap();
    assert_eq!(leaf.file.ask("SELECT id, name FROM customer"), "1|a\n2|b");
    assert!(leaf.subscription().await.applied);
}

#[tokio::test]
async fn a_row_that_was_refused_is_excepted_whatever_comes_after_its_batch() {
    let leaf = Leaf::new().await;
    let batches = vec![leaf.customer(1, "a"), leaf.customer(2, "bad"), leaf.customer(3, "c")];
    let report = leaf.apply(batches, true).await.unwrap();
    assert_eq!((report.upserts, report.row_errors.len()), (2, 1), "{report:?}");
    assert_eq!(leaf.excepted().await, 1);
    // The only row of the last batch; and the only row of its table.
    let leaf = Leaf::new().await;
    leaf.apply(vec![leaf.customer(2, "bad")], true).await.unwrap();
    assert_eq!(leaf.excepted().await, 1);
    leaf.file.run("DROP TRIGGER refuse");
    leaf.apply(vec![leaf.customer(2, "bad")], true).await.unwrap();
    assert_eq!(leaf.excepted().await, 0);
}

#[tokio::test]
async fn so_is_one_that_a_run_before_the_break_refused() {
    let leaf = Leaf::new().await;
    leaf.apply(vec![leaf.customer(2, "bad")], false).await.unwrap_err();
    assert_eq!(leaf.excepted().await, 1);
    let report = leaf.apply(vec![leaf.customer(2, "bad"), leaf.customer(3, "c")], true).await.unwrap();
    assert_eq!((report.upserts, report.row_errors.len()), (1, 0), "{report:?}");
    assert_eq!(leaf.excepted().await, 1);
}

#[tokio::test]
async fn an_exception_outlives_a_download_that_is_never_ended() {
    let leaf = Leaf::new().await;
    leaf.apply(vec![leaf.customer(1, "a"), leaf.customer(2, "bad")], true).await.unwrap();
    // The row would come in the second batch.
    leaf.apply(vec![leaf.customer(3, "c")], false).await.unwrap_err();
    assert_eq!((leaf.excepted().await, leaf.subscription().await.batches_applied), (1, 1));
    // It did, and was applied: it is excepted until the end is known.
    leaf.file.run("DROP TRIGGER refuse");
    leaf.apply(vec![leaf.customer(3, "c"), leaf.customer(2, "bad")], false).await.unwrap_err();
    assert_eq!((leaf.excepted().await, leaf.subscription().await.batches_applied), (1, 2));
}
