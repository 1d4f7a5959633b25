//! What is measured: a file for each case.

mod delta;
mod download;
mod memory;
mod poll;
mod upload;

use anyhow::Result;
use clap::ValueEnum;

use crate::bench::{Bench, Kind};
use crate::report::CaseReport;

/// A case, by the name that it has on the command line and in reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Case {
    /// First download of all rows, PostgreSQL to SQLite; limit: COPY out and prepared insert
    DownloadPgSqlite,
    /// First download of all rows, SQLite to SQLite; limit: scan and prepared insert
    DownloadSqliteSqlite,
    /// A tenth of the rows changed at the leaf, up to PostgreSQL; limit: staged COPY and upsert
    UploadUpdatePg,
    /// A tenth of the rows changed at the leaf, up to SQLite; limit: prepared update
    UploadUpdateSqlite,
    /// A session with 100 changed rows among all; limit: COPY out of these rows and upsert
    Delta,
    /// The same among all rows over the same among a hundredth; limit: the same of the limits
    DeltaScale,
    /// A session that finds nothing; limit: a health check of the same service
    PollEmpty,
    /// Peak memory in the first download of all rows; limit: the same with a tenth of them
    Memory,
}

impl Case {
    /// Every case.
    pub(crate) fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    /// Measures it.
    pub(crate) async fn run(self, bench: &Bench) -> Result<Vec<CaseReport>> {
        Ok(match self {
            Self::DownloadPgSqlite => vec![download::run(bench, "download_pg_sqlite", Kind::Postgres).await?],
            Self::DownloadSqliteSqlite => {
                vec![download::run(bench, "download_sqlite_sqlite", Kind::Sqlite).await?]
            }
            Self::UploadUpdatePg => vec![upload::run(bench, "upload_update_pg", Kind::Postgres).await?],
            Self::UploadUpdateSqlite => vec![upload::run(bench, "upload_update_sqlite", Kind::Sqlite).await?],
            Self::Delta => vec![delta::run(bench).await?],
            Self::DeltaScale => vec![delta::run_scale(bench).await?],
            Self::PollEmpty => vec![poll::run(bench).await?],
            Self::Memory => memory::run(bench).await?,
        })
    }
}
