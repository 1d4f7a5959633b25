//! Where the parts of broken-off sessions are kept, by database.

use std::path::{Path, PathBuf};

use syncline_client::PartsDirectory;

use crate::database::DatabaseUrl;
use crate::failure::{Failure, FailureReason};

/// The folder of a database: beside a SQLite file, unless `below` says below which directory.
pub(super) fn directory(database: &DatabaseUrl, below: Option<&Path>) -> Result<PathBuf, Failure> {
    match (database, below) {
        (DatabaseUrl::Sqlite(path), None) => Ok(PartsDirectory::beside(path)),
        (DatabaseUrl::Sqlite(path), Some(below)) => {
            let whole = std::path::absolute(path).map_err(Failure::internal)?;
            Ok(below.join(folder_name(&whole.display().to_string())))
        }
        (DatabaseUrl::Postgres(_), Some(below)) => Ok(below.join(folder_name(&database.to_string()))),
        (DatabaseUrl::Postgres(_), None) => {
            let state = user_state_directory(|name| std::env::var_os(name)).ok_or_else(|| {
                Failure::new(FailureReason::Usage, "there is no home directory to keep parts of transfers in")
                    .with_remedy("name one with --state-dir")
            })?;
            Ok(state.join(folder_name(&database.to_string())))
        }
    }
}

fn user_state_directory(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = set("XDG_STATE_HOME").or_else(|| set("HOME").map(|home| home.join(".local/state")))?;
    Some(state.join("syncline"))
}

/// A name that a file system takes, different for different texts; without anything secret, as the text has nothing.
fn folder_name(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-' {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("_{byte:02x}"));
        }
    }
    name
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn check(url: &str, below: Option<&str>, expected: &str) {
        let found = directory(&url.parse().unwrap(), below.map(Path::new)).unwrap();
        assert_eq!(found, Path::new(expected), "{url}");
    }

    #[test]
    fn every_database_has_a_folder_of_its_own() {
        check("sqlite:a/shop.db", None, "a/shop.db-syncline");
        check("sqlite:/a/shop.db", Some("/state"), "/state/_2fa_2fshop.db");
        check("postgres://me:secret@h/d", Some("/state"), "/state/postgres_3a_2f_2fme_40h_2fd");
        assert_ne!(folder_name("a_b"), folder_name("a/b"));
    }

    #[test]
    fn the_user_s_state_directory_is_where_it_should_be() {
        let from = |set: &'static str| move |name: &str| (name == set).then(|| "/x".into());
        assert_eq!(user_state_directory(from("XDG_STATE_HOME")).unwrap(), Path::new("/x/syncline"));
        assert_eq!(user_state_directory(from("HOME")).unwrap(), Path::new("/x/.local/state/syncline"));
        assert_eq!(user_state_directory(from("OTHER")), None);
    }
}
