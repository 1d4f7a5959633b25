//! Backups of databases as tools make them: a copy of a SQLite file, a dump of a PostgreSQL database; and with a leaf's
//! the directory of its parts, or not.

use std::path::{Path, PathBuf};

use syncline_engine::throwaway::ThrowawayCluster;

use crate::database::{Database, open};
use crate::leaf::state_directory;

/// A backup of one database.
#[derive(Debug)]
pub struct Backup {
    /// The copied file, or the archive.
    file: PathBuf,
    /// A copy of the directory beside the database, if it was copied.
    parts: Option<PathBuf>,
}

impl Backup {
    /// Takes one: `VACUUM INTO` a file of this name in `directory`, or `pg_dump`.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn take(database: &Database, directory: &Path, name: &str) -> Self {
        let file = match database {
            Database::Sqlite(from) => {
                let to = directory.join(format!("{name}.backup"));
                let _ = std::fs::remove_file(&to);
                open(from).execute("VACUUM INTO ?1", [to.to_str().unwrap()]).unwrap();
                to
            }
            Database::Postgres(url) => ThrowawayCluster::shared().archive(url),
        };
        Self { file, parts: None }
    }

    /// Takes one of a leaf, with the directory where its parts wait.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn take_with_parts(database: &Database, directory: &Path, name: &str) -> Self {
        let copy = directory.join(format!("{name}.parts"));
        copy_directory(&parts_directory(database).expect("the leaf has parts"), &copy);
        Self { parts: Some(copy), ..Self::take(database, directory, name) }
    }

    /// Puts it in the place of the database. A leaf's parts become those that were copied; without any they are gone.
    ///
    /// # Panics
    /// If it fails.
    pub fn restore(&self, database: &Database) {
        match database {
            Database::Sqlite(path) => {
                for suffix in ["-wal", "-shm"] {
                    let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
                }
                std::fs::copy(&self.file, path).unwrap();
            }
            Database::Postgres(url) => {
                let cluster = ThrowawayCluster::shared();
                cluster.recreate(url);
                cluster.restore_archive(&self.file, url);
            }
        }
        let Some(place) = parts_directory(database) else { return };
        std::fs::remove_dir_all(&place).unwrap();
        if let Some(parts) = &self.parts {
            copy_directory(parts, &place);
        }
    }

    /// Restores a PostgreSQL database under another name, beside the one that it was taken of.
    ///
    /// # Panics
    /// If it fails, or is one of SQLite.
    #[must_use]
    pub fn restore_elsewhere(&self) -> Database {
        let cluster = ThrowawayCluster::shared();
        let url = cluster.fresh_database();
        cluster.restore_archive(&self.file, &url);
        Database::Postgres(url)
    }
}

/// Where a leaf's parts are, if it has any.
fn parts_directory(database: &Database) -> Option<PathBuf> {
    match database {
        Database::Sqlite(path) => {
            let beside = PathBuf::from(format!("{}-syncline", path.display()));
            beside.exists().then_some(beside)
        }
        Database::Postgres(url) => {
            // The folder is named after the URL; a test's database has a name like no other. `_` is written `_5f`.
            let name = url.rsplit('/').next().unwrap().replace('_', "_5f");
            let folders = std::fs::read_dir(state_directory()).ok()?;
            folders
                .flatten()
                .map(|folder| folder.path())
                .find(|path| path.display().to_string().contains(&name))
        }
    }
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The stored bytes of the upload that waits in a leaf's parts.
///
/// # Panics
/// If the directory can't be read.
#[must_use]
pub fn upload_bytes(database: &Database) -> u64 {
    let Some(place) = parts_directory(database) else { return 0 };
    let mut bytes = 0;
    for session in std::fs::read_dir(place).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        for file in std::fs::read_dir(session.path()).unwrap().flatten() {
            let name = file.file_name().to_string_lossy().into_owned();
            if name.starts_with("up-") && name.ends_with(".batch") {
                bytes += file.metadata().unwrap().len();
            }
        }
    }
    bytes
}
