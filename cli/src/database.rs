//! Database URLs: what they may be, and how they are shown.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use clap::Args;
use clap::builder::{TypedValueParser, ValueParserFactory};
use syncline::error::{ErrorReason, SyncError};
use syncline_engine::dialect::postgres::PostgresDatabase;
use syncline_engine::dialect::sqlite::SqliteDatabase;
use syncline_engine::store::{HubStore, LeafStore};

use crate::failure::{Failure, FailureReason};
use crate::remedy::remedy;

/// The database of a command.
#[derive(Debug, Args)]
pub(crate) struct DatabaseArg {
    /// The database: sqlite:FILE (relative to the working directory) or postgres://USER@HOST/DATABASE
    #[arg(long, value_name = "URL", env = "SYNCLINE_DATABASE", hide_env_values = true)]
    pub(crate) database: DatabaseUrl,
}

/// Which database, and where. Shown without its password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum DatabaseUrl {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL database, by its whole URL.
    Postgres(String),
}

/// Reads URLs off the command line. clap's own way would repeat a value that it refuses, with the password in it.
#[derive(Debug, Clone)]
pub(crate) struct DatabaseUrlParser;

impl ValueParserFactory for DatabaseUrl {
    type Parser = DatabaseUrlParser;

    fn value_parser() -> Self::Parser {
        DatabaseUrlParser
    }
}

impl TypedValueParser for DatabaseUrlParser {
    type Value = DatabaseUrl;

    fn parse_ref(
        &self,
        command: &clap::Command,
        _: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<DatabaseUrl, clap::Error> {
        let parsed = value.to_str().ok_or_else(|| "the URL is no text".to_owned()).and_then(str::parse);
        parsed.map_err(|problem: String| {
            let kind = clap::error::ErrorKind::ValueValidation;
            clap::Error::raw(kind, format!("--database: {problem}\n")).with_cmd(command)
        })
    }
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            // sqlite:///absolute/path is what other tools write.
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" => Err("the file is missing: sqlite:FILE".into()),
                ":memory:" => Err("a database in memory can't be synchronised: sqlite:FILE".into()),
                path => Ok(Self::Sqlite(PathBuf::from(path))),
            };
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        // The text may hold a password, so only its scheme is repeated.
        let known = "sqlite:FILE and postgres://USER@HOST/DATABASE are known";
        Err(match text.split_once(':') {
            Some((scheme, _)) => format!("{known}, not {scheme}"),
            None => format!("{known}; for a file put sqlite: before its name"),
        })
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => f.write_str(&without_password(url)),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl DatabaseUrl {
    /// The whole URL, password included: for the one who connects.
    pub(crate) fn whole(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite:{}", path.display()),
            Self::Postgres(url) => url.clone(),
        }
    }

    /// Refuses a SQLite file that is not there: a hub's database, or one that is only looked at, is never created.
    pub(crate) fn must_exist(&self) -> Result<(), Failure> {
        match self {
            Self::Sqlite(path) if path.is_file() => Ok(()),
            Self::Sqlite(path) if path.exists() => Err(no_file(path)),
            Self::Sqlite(path) => Err(refused(format!("there is no file {}", path.display()))),
            Self::Postgres(_) => Ok(()),
        }
    }

    /// Whether it is there already. A SQLite file that is not must be one that can be made: its directory is there.
    pub(crate) fn exists_or_can_be_made(&self) -> Result<bool, Failure> {
        let Self::Sqlite(path) = self else { return Ok(true) };
        if path.exists() {
            return self.must_exist().map(|()| true);
        }
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        match directory {
            Some(directory) if !directory.is_dir() => {
                Err(refused(format!("there is no directory {}", directory.display())))
            }
            _ => Ok(false),
        }
    }

    /// Opens a hub's database, and makes our tables in it if they are missing.
    pub(crate) async fn open_hub(&self) -> Result<Arc<dyn HubStore>, Failure> {
        self.must_exist()?;
        let store = self.open().await?;
        store.open_hub().await?;
        Ok(store)
    }

    /// Opens a leaf's database; a SQLite file is made if it is not there.
    pub(crate) async fn open_leaf(&self) -> Result<Arc<dyn LeafStore>, Failure> {
        let store = self.open().await?;
        Ok(store)
    }

    /// Opens a database to look at it: nothing is written.
    pub(crate) async fn look_at(&self) -> Result<Arc<dyn Store>, Failure> {
        self.must_exist()?;
        self.open().await
    }

    async fn open(&self) -> Result<Arc<dyn Store>, Failure> {
        let opened: syncline::error::Result<Arc<dyn Store>> = match self {
            Self::Sqlite(path) => SqliteDatabase::open(path.clone()).await.map(|database| database as _),
            Self::Postgres(url) => PostgresDatabase::open(url).await.map(|database| database as _),
        };
        opened.map_err(|error| self.not_opened(error))
    }

    /// A server that does not answer may do so later; a file that can't be opened, or a server that refuses, will not
    /// be opened by repeating it.
    fn not_opened(&self, error: SyncError) -> Failure {
        let for_good = match self {
            Self::Sqlite(_) => error.reason() != ErrorReason::LockTimeout,
            Self::Postgres(_) => error.reason() == ErrorReason::RequestInvalid,
        };
        let mut failure = Failure::from(error);
        failure.message = format!("{self}: {}", failure.message);
        if for_good {
            failure.reason = FailureReason::DatabaseOpen;
            failure.remedy = remedy(failure.reason).to_owned();
        }
        failure
    }
}

/// A database that may be hub and leaf.
pub(crate) trait Store: HubStore + LeafStore {}

impl<S: HubStore + LeafStore> Store for S {}

fn no_file(path: &Path) -> Failure {
    refused(format!("{} is a directory, or something else that is no file", path.display()))
}

fn refused(message: String) -> Failure {
    Failure::new(FailureReason::DatabaseOpen, message)
}

/// The URL with everything left out that may be secret: the password, and options that hold one.
fn without_password(url: &str) -> String {
    let (before, options) = url.split_once('?').map_or((url, None), |(before, after)| (before, Some(after)));
    let shown = match before.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((user, host)) => {
                let user = user.split_once(':').map_or(user, |(user, _)| user);
                format!("{scheme}://{user}@{host}")
            }
            None => before.to_owned(),
        },
        None => before.to_owned(),
    };
    let options: Vec<&str> =
        options.into_iter().flat_map(|all| all.split('&')).filter(|option| is_public(option)).collect();
    if options.is_empty() { shown } else { format!("{shown}?{}", options.join("&")) }
}

fn is_public(option: &str) -> bool {
    let name = option.split_once('=').map_or(option, |(name, _)| name);
    !name.to_lowercase().contains("password")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn check(url: &str, shown: &str) {
        let parsed: DatabaseUrl = url.parse().unwrap();
        assert_eq!(parsed.to_string(), shown);
        assert_eq!(format!("{parsed:?}"), shown);
    }

    #[test]
    fn urls_are_shown_without_what_is_secret() {
        check("sqlite:a/b.db", "sqlite:a/b.db");
        check("sqlite:///var/a.db", "sqlite:/var/a.db");
        check("postgres://host/db", "postgres://host/db");
        check("postgres://me@host/db", "postgres://me@host/db");
        check("postgresql://me:se:cr@et@host:5433/db", "postgresql://me@host:5433/db");
        check(
            "postgres://me@host/db?sslmode=require&password=secret&sslpassword=x",
            "postgres://me@host/db?sslmode=require",
        );
        check("postgres:///db?host=/tmp&user=me", "postgres:///db?host=/tmp&user=me");
    }

    #[test]
    fn what_is_no_database_is_refused_without_repeating_it() {
        for url in ["", "sqlite:", "sqlite::memory:", "a.db", "mysql://u:secret@h/d"] {
            let refused = url.parse::<DatabaseUrl>().unwrap_err();
            assert!(!refused.contains("secret"), "{refused}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_said() {
        let url: DatabaseUrl = "sqlite:/nowhere/x.db".parse().unwrap();
        let failure = url.must_exist().unwrap_err();
        assert_eq!(failure.reason, FailureReason::DatabaseOpen);
        assert_eq!(failure.message, "there is no file /nowhere/x.db");
        let url: DatabaseUrl = "sqlite:/".parse().unwrap();
        assert!(url.must_exist().unwrap_err().message.starts_with("/ is a directory"));
    }

    #[test]
    fn a_file_is_made_only_where_there_is_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let url = |name: &str| DatabaseUrl::Sqlite(directory.path().join(name));
        assert!(!url("new.db").exists_or_can_be_made().unwrap());
        std::fs::write(directory.path().join("old.db"), "").unwrap();
        assert!(url("old.db").exists_or_can_be_made().unwrap());
        let failure = url("nowhere/new.db").exists_or_can_be_made().unwrap_err();
        assert!(failure.message.starts_with("there is no directory "), "{}", failure.message);
        assert!(DatabaseUrl::Sqlite("new.db".into()).exists_or_can_be_made().is_ok());
    }
}
