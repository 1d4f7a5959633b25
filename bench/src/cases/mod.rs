//! What is measured: a file for each case.

pub(crate) mod delta;
pub(crate) mod download;
pub(crate) mod fan_out;
mod fold;
mod knowledge_size;
mod live;
mod memory;
mod poll;
mod poll_idle;
mod resume_cost;
mod upload;
mod wire;
mod write_tax;

use anyhow::Result;
use clap::ValueEnum;

pub(crate) use upload::Change;

use crate::bench::Bench;
use crate::bench::Kind::{Postgres, Sqlite};
use crate::report::CaseReport;

/// A case, by the name that it has on the command line and in reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Case {
    /// First download of all rows, PostgreSQL to SQLite; limit: COPY out and prepared insert
    DownloadPgSqlite,
    /// First download of all rows, SQLite to SQLite; limit: scan and prepared insert
    DownloadSqliteSqlite,
    /// First download of all rows, PostgreSQL to PostgreSQL; limit: COPY out into COPY in
    DownloadPgPg,
    /// Rows that are new at the leaf, a fifth of all, up to PostgreSQL; limit: staged COPY, upsert, records
    UploadSqlitePg,
    /// Rows changed at the leaf, a fifth of all, up to PostgreSQL; limit: staged COPY, update, records
    UploadUpdatePg,
    /// Rows changed at the leaf, a fifth of all, up to SQLite; limit: prepared upsert, records
    UploadUpdateSqlite,
    /// A session with 100 changed rows among all; limit: COPY out of these rows and upsert
    Delta,
    /// A session with 1,000 changes among ten times the rows, over the same among a hundredth of them; limit: the same
    /// of COPY out of these rows and upsert
    DeltaScale,
    /// A session that finds nothing; limit: a health check of the same service
    PollEmpty,
    /// Polls that find nothing, over 64 connections; limit: health checks of the same service
    PollIdle,
    /// From the commit of a row at the hub until a leaf that watches has it; beside it: NOTIFY and a bare insert
    Live,
    /// 200 clients that download the same 500 changed rows at the same time; limit: one that downloads as many as all
    /// of them, and as many bare commits
    FanOut,
    /// What tracking costs an application's own writes to PostgreSQL; limit: without tracking
    WriteTaxPg,
    /// The same of SQLite, at a hub and at a leaf
    WriteTaxSqlite,
    /// Folding logs with an entry for each row, and single writes meanwhile; limit: an upsert of the same records
    Fold,
    /// Bytes on the wire of a first download; limit: the rows as CSV under zstd -3
    WireBytes,
    /// Peak memory in the first download of five times the rows, PostgreSQL to SQLite; limit: a tenth of them
    Memory,
    /// The same, SQLite to SQLite
    MemorySqlite,
    /// What a leaf must know once many leaves have synchronised; limit: the same after 100
    KnowledgeSize,
    /// Bytes that are received twice after kills of a first download of a tenth of the rows; limit: one batch
    ResumeCost,
}

impl Case {
    /// Every case.
    pub(crate) fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    /// Measures it.
    pub(crate) async fn run(self, bench: &Bench) -> Result<Vec<CaseReport>> {
        let (insert, update) = (Change::Insert, Change::Update);
        let report = match self {
            Self::DownloadPgSqlite => {
                download::run(bench, "download_pg_sqlite", (Postgres, Sqlite), 1.5).await
            }
            Self::DownloadSqliteSqlite => {
                download::run(bench, "download_sqlite_sqlite", (Sqlite, Sqlite), 1.8).await
            }
            Self::DownloadPgPg => download::run(bench, "download_pg_pg", (Postgres, Postgres), 1.5).await,
            Self::UploadSqlitePg => upload::run(bench, "upload_sqlite_pg", (Postgres, insert), 1.7).await,
            Self::UploadUpdatePg => upload::run(bench, "upload_update_pg", (Postgres, update), 1.7).await,
            Self::UploadUpdateSqlite => {
                upload::run(bench, "upload_update_sqlite", (Sqlite, update), 1.7).await
            }
            Self::Delta => delta::run(bench).await,
            Self::DeltaScale => delta::run_scale(bench).await,
            Self::PollEmpty => poll::run(bench).await,
            Self::PollIdle => poll_idle::run(bench).await,
            Self::Live => return live::run(bench).await,
            Self::FanOut => fan_out::run(bench).await,
            Self::Fold => return fold::run(bench).await,
            Self::KnowledgeSize => return knowledge_size::run(bench).await,
            Self::ResumeCost => return resume_cost::run(bench).await,
            Self::WireBytes => wire::run(bench).await,
            Self::WriteTaxPg => return write_tax::run(bench, Postgres).await,
            Self::WriteTaxSqlite => return write_tax::run(bench, Sqlite).await,
            Self::Memory => memory::run(bench, "memory", Postgres).await,
            Self::MemorySqlite => memory::run(bench, "memory_sqlite", Sqlite).await,
        };
        Ok(vec![report?])
    }
}
