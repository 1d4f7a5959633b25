//! The command line: wrong files, URLs, flags and names. Goal: exit status and JSON error as documented, a message that
//! names the thing, a remedy, and nothing made or changed. Method: one directory with all that is wrong in it, compared
//! byte by byte after every command.

use std::path::Path;
use std::process::Command;

use syncline_engine::throwaway::ThrowawayCluster;
use syncline_tests::database::{Database, Kind};
use syncline_tests::service::Service;
use syncline_tests::{binary, shop};

use super::run::{files_below, run_with};

/// All that is wrong, and `plain.db`, which nothing of ours is in.
fn fill(directory: &Path) {
    let connection = rusqlite::Connection::open(directory.join("plain.db")).unwrap();
    connection.execute_batch(shop::SCHEMA).unwrap();
    connection.execute_batch("CREATE TABLE keyless (a INTEGER)").unwrap();
    let scope = |table: &str| format!("name = \"shop\"\n[[tables]]\n{table}\n");
    let files: [(&str, Vec<u8>); 15] = [
        ("good.toml", scope("name = \"product\"").into()),
        ("unknown_key.toml", format!("versoin = 2\n{}", scope("name = \"product\"")).into()),
        ("unknown_table.toml", scope("name = \"produkt\"").into()),
        ("bad_column.toml", scope("name = \"product\"\ncolumns = [\"id\", \"prise\"]").into()),
        ("no_key.toml", scope("name = \"keyless\"").into()),
        ("wrong_type.toml", "name = 7\n[[tables]]\nname = \"product\"\n".into()),
        ("twice.toml", scope("name = \"product\"\n[[tables]]\nname = \"product\"").into()),
        ("not_toml.toml", "<scope name='shop'/>".into()),
        ("empty.toml", Vec::new()),
        ("huge.toml", [b"# ".repeat(4 << 20), scope("name = \"product\"").into()].concat()),
        ("not_text.toml", vec![0xff; 100]),
        ("not_a.db", b"this is no database, however long it is looked at".repeat(40)),
        ("config_key.toml", "lissen = \"127.0.0.1:1\"\n[sesion]\nlease = \"1h\"\n".into()),
        ("config_type.toml", "listen = 7\n[session]\nlease = \"soon\"\n".into()),
        ("token.txt", b"  \n".to_vec()),
    ];
    for (name, content) in files {
        std::fs::write(directory.join(name), content).unwrap();
    }
    std::fs::create_dir(directory.join("folder")).unwrap();
}

type CommandCase = (&'static str, i32, &'static str, &'static str);

#[rustfmt::skip] // A case a line.
const SCOPE: &[CommandCase] = &[
    ("scope apply unknown_key.toml --database sqlite:plain.db", 1, "SCOPE_FILE_INVALID", "versoin"),
    ("scope apply unknown_table.toml --database sqlite:plain.db", 1, "SCOPE_FILE_INVALID", "produkt"),
    ("scope apply bad_column.toml --database sqlite:plain.db", 1, "SCOPE_FILE_INVALID", "prise"),
    ("scope apply no_key.toml --database sqlite:plain.db", 1, "SCOPE_FILE_INVALID", "primary key"),
    ("scope apply wrong_type.toml --database sqlite:plain.db", 1, "SCOPE_FILE_INVALID", "wrong_type.toml"),
    ("scope apply twice.toml --database sqlite:plain.db", 1, "SCOPE_FILE_INVALID", "product"),
    ("scope apply not_toml.toml --database sqlite:plain.db", 1, "SCOPE_FILE_INVALID", "not_toml.toml"),
    ("scope apply empty.toml --database sqlite:plain.db", 1, "SCOPE_FILE_INVALID", "name"),
    ("scope apply huge.toml --database sqlite:plain.db", 1, "SCOPE_FILE_INVALID", "huge.toml has more than"),
    ("scope apply /dev/zero --database sqlite:plain.db", 1, "SCOPE_FILE_INVALID", "/dev/zero has more than"),
    ("scope apply not_text.toml --database sqlite:plain.db", 1, "SCOPE_FILE_INVALID", "not_text.toml"),
    ("scope apply none.toml --database sqlite:plain.db", 1, "SCOPE_FILE_INVALID", "none.toml"),
    ("scope apply folder --database sqlite:plain.db", 1, "SCOPE_FILE_INVALID", "folder"),
    ("scope apply good.toml --database sqlite:none.db", 1, "DATABASE_OPEN", "there is no file none.db"),
    ("scope apply good.toml --database sqlite:folder", 1, "DATABASE_OPEN", "folder is a directory"),
    ("scope apply good.toml --database sqlite:not_a.db", 1, "DATABASE_OPEN", "not_a.db"),
    ("scope apply good.toml", 2, "USAGE", "--database"),
    ("scope apply --database sqlite:plain.db", 2, "USAGE", "FILE"),
    ("scope show nope --database sqlite:plain.db", 1, "SCOPE_NOT_FOUND", "\"nope\""),
    ("scope drop nope --database sqlite:plain.db", 1, "SCOPE_NOT_FOUND", "\"nope\""),
    ("scope show no/pe --database sqlite:plain.db", 2, "USAGE", "no/pe"),
    ("scope list --database sqlite:none.db", 1, "DATABASE_OPEN", "none.db"),
    ("scope list --database sqlite:not_a.db", 1, "DATABASE_OPEN", "not_a.db"),
    ("scope list --database oracle:x", 2, "USAGE", "oracle"),
    ("scope list --database", 2, "USAGE", "--database"),
];

#[rustfmt::skip] // A case a line.
const LOOKING: &[CommandCase] = &[
    ("status --database sqlite:none.db", 1, "DATABASE_OPEN", "none.db"),
    ("status --database sqlite:folder", 1, "DATABASE_OPEN", "folder"),
    ("status --database sqlite:not_a.db", 1, "DATABASE_OPEN", "not_a.db"),
    ("status --database sqlite:", 2, "USAGE", "sqlite:FILE"),
    ("status", 2, "USAGE", "--database"),
    ("status --admin http://127.0.0.1:1", 1, "FEATURE_UNSUPPORTED", "service"),
    ("status --database {postgres}_no_such_database", 1, "DATABASE_OPEN", "no database of that name"),
    ("status --database {nobody}", 1, "DATABASE_OPEN", "refuses the role or its password"),
    ("status --database postgres://me@127.0.0.1:1/d", 4, "DATABASE_UNAVAILABLE", "postgres://me@127.0.0.1:1/d"),
    ("conflicts list --database sqlite:none.db", 1, "DATABASE_OPEN", "none.db"),
    ("conflicts list --database sqlite:plain.db --limit 0", 2, "USAGE", "--limit"),
    ("conflicts list --database sqlite:plain.db --limit many", 2, "USAGE", "many"),
    ("conflicts show 0193d7c0-0000-7000-8000-000000000001 --database sqlite:plain.db", 1, "REQUEST_INVALID", "0193d7c0-0000-7000-8000-000000000001"),
    ("conflicts show 7 --database sqlite:plain.db", 2, "USAGE", "UUID"),
    ("conflicts resolve 0193d7c0-0000-7000-8000-000000000001 --keep both --database sqlite:plain.db", 2, "USAGE", "both"),
    ("conflicts resolve 0193d7c0-0000-7000-8000-000000000001 --keep local --database sqlite:plain.db", 1, "FEATURE_UNSUPPORTED", "settling conflict"),
    ("health --server ftp://h", 2, "USAGE", "ftp://h"),
    ("health --server http://127.0.0.1:1 --timeout soon", 2, "USAGE", "soon"),
    ("frobnicate", 2, "USAGE", "frobnicate"),
];

#[rustfmt::skip] // A case a line.
const SERVE: &[CommandCase] = &[
    ("serve", 1, "CONFIG_INVALID", "no database"),
    ("serve --config none.toml", 1, "CONFIG_INVALID", "can't be read"),
    ("serve --config folder", 1, "CONFIG_INVALID", "can't be read"),
    ("serve --config config_key.toml --database sqlite:plain.db", 1, "CONFIG_INVALID", "lissen"),
    ("serve --config config_type.toml --database sqlite:plain.db", 1, "CONFIG_INVALID", "listen"),
    ("serve --config not_toml.toml --database sqlite:plain.db", 1, "CONFIG_INVALID", "configuration"),
    ("serve --config not_text.toml --database sqlite:plain.db", 1, "CONFIG_INVALID", "configuration"),
    ("serve --config huge.toml --database sqlite:plain.db", 1, "CONFIG_INVALID", "configuration"),
    ("serve --database sqlite:none.db --listen 127.0.0.1:0", 1, "DATABASE_OPEN", "none.db"),
    ("serve --database sqlite:not_a.db --listen 127.0.0.1:0", 1, "DATABASE_OPEN", "not_a.db"),
    ("serve --database sqlite:plain.db --listen 0.0.0.0:0", 1, "CONFIG_INVALID", "TLS"),
    ("serve --database sqlite:plain.db --listen {taken}", 1, "CONFIG_INVALID", "can't listen on"),
    ("serve --database sqlite:plain.db --listen 127.0.0.1:0 --spool not_a.db", 1, "CONFIG_INVALID", "spool"),
    ("serve --database sqlite:plain.db --listen nowhere", 2, "USAGE", "nowhere"),
    ("serve --database sqlite:plain.db --batch-bytes 5", 2, "USAGE", "64KiB to 64MiB"),
    ("serve --database sqlite:plain.db --lease never", 2, "USAGE", "never"),
    ("serve --database postgres://me@127.0.0.1:1/d --listen 127.0.0.1:0", 4, "DATABASE_UNAVAILABLE", "127.0.0.1:1"),
];

#[rustfmt::skip] // A case a line.
const SYNC: &[CommandCase] = &[
    ("sync --server {server} --scope nope --database sqlite:new.db", 1, "SCOPE_NOT_FOUND", "\"nope\""),
    ("sync --server {server} --scope nope --database sqlite:plain.db", 1, "SCOPE_NOT_FOUND", "\"nope\""),
    ("sync --server {server} --scope nope --database {postgres} --state-dir state", 1, "SCOPE_NOT_FOUND", "\"nope\""),
    ("sync --server {server} --scope no/pe --database sqlite:new.db", 2, "USAGE", "no/pe"),
    ("sync --server {server} --scope shop --database sqlite:folder", 1, "DATABASE_OPEN", "folder"),
    ("sync --server {server} --scope shop --database sqlite:nowhere/new.db", 1, "DATABASE_OPEN", "no directory nowhere"),
    ("sync --server {server} --scope shop --database sqlite:not_a.db", 1, "DATABASE_OPEN", "not_a.db"),
    ("sync --server {server} --scope shop --database {nobody} --state-dir state", 1, "DATABASE_OPEN", "refuses the role"),
    ("sync --server http://127.0.0.1:1 --scope shop --database sqlite:new.db --retry-for 0s", 4, "DATABASE_UNAVAILABLE", "http://127.0.0.1:1"),
    ("sync --server http://no.such.host.invalid:1 --scope shop --database sqlite:new.db --retry-for 0s", 4, "DATABASE_UNAVAILABLE", "no.such.host.invalid"),
    ("sync --server ftp://127.0.0.1 --scope shop --database sqlite:new.db", 2, "USAGE", "ftp://127.0.0.1"),
    ("sync --server 127.0.0.1:1 --scope shop --database sqlite:new.db", 2, "USAGE", "http://host:50051"),
    ("sync --scope shop --database sqlite:new.db", 2, "USAGE", "--server"),
    ("sync --server {server} --database sqlite:new.db", 2, "USAGE", "--scope"),
    ("sync --server {server} --scope shop", 2, "USAGE", "--database"),
    ("sync --server {server} --scope shop --database sqlite:new.db --retry-for soon", 2, "USAGE", "soon"),
    ("sync --server {server} --scope shop --database sqlite:new.db --every now", 2, "USAGE", "now"),
    ("sync --server {server} --scope shop --database sqlite:new.db --batch-bytes 1KiB", 2, "USAGE", "64KiB to 64MiB"),
    ("sync --server {server} --scope shop --database sqlite:new.db --batch-bytes big", 2, "USAGE", "big"),
    ("sync --server {server} --scope shop --database sqlite:new.db --direction sideways", 2, "USAGE", "sideways"),
    ("sync --server {server} --scope shop --database sqlite:new.db --apply never", 2, "USAGE", "never"),
    ("sync --server {server} --scope shop --database sqlite:new.db --param x", 2, "USAGE", "NAME=VALUE"),
    ("sync --server {server} --scope shop --database sqlite:new.db --param x=y", 1, "FEATURE_UNSUPPORTED", "--param"),
    ("sync --peer {server} --scope shop --database sqlite:new.db", 1, "FEATURE_UNSUPPORTED", "--peer"),
    ("sync --server {server} --scope shop --database sqlite:new.db --token-file none.txt", 2, "USAGE", "none.txt"),
    ("sync --server {server} --scope shop --database sqlite:new.db --token-file token.txt", 2, "USAGE", "empty"),
    ("sync --server {server} --scope shop --database sqlite:new.db --ca none.pem", 2, "USAGE", "https"),
    ("sync --server {server} --scope shop --database sqlite:new.db --cert a.pem", 2, "USAGE", "--key"),
];

#[tokio::test]
async fn wrong_commands_say_what_is_wrong_and_change_nothing() {
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let hub = Database::new(Kind::Sqlite, there.path(), "hub").await;
    shop::fill(&hub, 2).await;
    let service = Service::start(&hub, shop::SCOPE, there.path()).await;
    fill(here.path());
    // A table that the hub has too, but not as it is there.
    let connection = rusqlite::Connection::open(here.path().join("plain.db")).unwrap();
    connection.execute_batch("ALTER TABLE product RENAME COLUMN price TO prize").unwrap();
    drop(connection);
    let postgres = ThrowawayCluster::shared().fresh_database();
    let at = postgres.find('@').unwrap();
    let nobody = format!("postgres://nobody_at_all{}", &postgres[at..]);
    let before = files_below(here.path());
    let names = |files: &[(String, _)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let mut faults = Vec::new();
    for (words, status, reason, says) in [SCOPE, LOOKING, SERVE, SYNC].into_iter().flatten() {
        let words = words
            .replace("{server}", &service.url())
            .replace("{taken}", service.url().trim_start_matches("http://"))
            .replace("{nobody}", &nobody)
            .replace("{postgres}", &postgres);
        let ended = run_with(here.path(), &words, &[]);
        if let Err(fault) = ended.check_error(*status, reason, says) {
            faults.push(format!("{words} {fault}: {ended:?}"));
        }
        let after = files_below(here.path());
        if names(&after) != names(&before) {
            faults.push(format!("{words} left something behind: {:?}", names(&after)));
        } else if after != before {
            faults.push(format!("{words} changed a file"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    let query = "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')";
    assert_eq!(Database::Postgres(postgres).count(query).await, 0, "something was made in PostgreSQL");
}

#[tokio::test]
async fn tables_that_do_not_fit_are_named_and_left_as_they_are() {
    let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let hub = Database::new(Kind::Sqlite, there.path(), "hub").await;
    shop::fill(&hub, 2).await;
    let service = Service::start(&hub, shop::SCOPE, there.path()).await;
    let file = here.path().join("own.db");
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection.execute_batch(shop::SCHEMA).unwrap();
    connection.execute_batch("ALTER TABLE product RENAME COLUMN price TO prize").unwrap();
    let theirs = || -> Vec<String> {
        let query = "SELECT coalesce(sql, name) FROM sqlite_master";
        let mut statement = connection.prepare(query).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let before = theirs();
    let words = format!("sync --server {} --scope shop --database sqlite:own.db", service.url());
    run_with(here.path(), &words, &[]).assert_error(&words, 1, "SCHEMA_MISMATCH", "price");
    assert_eq!(theirs(), before);
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "delete");
}

#[tokio::test]
async fn without_json_the_same_is_said_to_people() {
    let here = tempfile::tempdir().unwrap();
    let output = Command::new(binary())
        .args(["status", "--database", "sqlite:none.db"])
        .current_dir(here.path())
        .output()
        .unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("error: there is no file none.db (DATABASE_OPEN)"), "{errors}");
    assert!(errors.contains("what to do: check the URL"), "{errors}");
}
