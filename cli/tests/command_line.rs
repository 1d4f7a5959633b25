//! The real binary, as a script meets it: exit status, one JSON document on standard output, and nothing secret anywhere.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

struct Ended {
    status: i32,
    output: String,
    errors: String,
}

impl Ended {
    /// The only line of standard output.
    fn document(&self) -> Value {
        assert_eq!(self.output.lines().count(), 1, "{}\n{}", self.output, self.errors);
        serde_json::from_str(&self.output).unwrap()
    }

    fn reason(&self) -> String {
        self.document()["error"]["reason"].as_str().unwrap().to_owned()
    }
}

/// Runs the binary in a directory, with these words.
fn syncline(directory: &Path, words: &str) -> Ended {
    let output = Command::new(env!("CARGO_BIN_EXE_syncline"))
        .args(words.split_whitespace())
        .current_dir(directory)
        .env_remove("SYNCLINE_DATABASE")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ended {
        status: output.status.code().unwrap(),
        output: String::from_utf8(output.stdout).unwrap(),
        errors: String::from_utf8(output.stderr).unwrap(),
    }
}

fn check(words: &str, status: i32, reason: &str) {
    let directory = tempfile::tempdir().unwrap();
    let ended = syncline(directory.path(), &format!("{words} --json"));
    assert_eq!((ended.status, ended.reason().as_str()), (status, reason), "{words}: {}", ended.output);
    assert!(ended.errors.is_empty(), "{words}: {}", ended.errors);
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert!(left.is_empty(), "{words} left {left:?}");
}

#[test]
fn failures_have_their_reason_and_status_and_leave_nothing() {
    check("frobnicate", 2, "USAGE");
    check("scope list", 2, "USAGE");
    check("scope list --database sqlite:none.db", 1, "DATABASE_OPEN");
    check("scope show shop --database sqlite:none.db", 1, "DATABASE_OPEN");
    check("scope drop shop --database sqlite:none.db", 1, "DATABASE_OPEN");
    check("scope apply none.toml --database sqlite:none.db", 1, "SCOPE_FILE_INVALID");
    check("status --database sqlite:none.db", 1, "DATABASE_OPEN");
    check("status --admin http://127.0.0.1:1", 1, "FEATURE_UNSUPPORTED");
    check("conflicts list --database sqlite:none.db", 1, "DATABASE_OPEN");
    let id = "0193d7c0-0000-7000-8000-000000000001";
    check(
        &format!("conflicts resolve {id} --keep local --database sqlite:none.db"),
        1,
        "FEATURE_UNSUPPORTED",
    );
    check("serve", 1, "CONFIG_INVALID");
    check("serve --config none.toml", 1, "CONFIG_INVALID");
    check("serve --database sqlite:none.db", 1, "DATABASE_OPEN");
    check("serve --database sqlite:none.db --listen 0.0.0.0:0", 1, "CONFIG_INVALID");
    let sync = "sync --scope shop --database sqlite:none.db";
    check(&format!("{sync} --server http://127.0.0.1:1 --param a=b"), 1, "FEATURE_UNSUPPORTED");
    check(&format!("{sync} --peer http://127.0.0.1:1"), 1, "FEATURE_UNSUPPORTED");
}

#[test]
fn a_service_that_is_not_there_is_not_healthy() {
    let directory = tempfile::tempdir().unwrap();
    let ended = syncline(directory.path(), "health --server http://127.0.0.1:1 --json");
    assert_eq!((ended.status, ended.document()["status"].as_str()), (1, Some("UNREACHABLE")));
}

#[test]
fn problems_of_a_scope_file_are_shown_with_their_lines() {
    let directory = tempfile::tempdir().unwrap();
    let text = "name = \"shop\"\n\n[[tables]]\nname = \"customer\"\nfilter = \"a = 1\"\ndirektion = \"up\"\n";
    std::fs::write(directory.path().join("shop.toml"), text).unwrap();
    let words = "scope apply shop.toml --database sqlite:none.db";
    let ended = syncline(directory.path(), &format!("{words} --json"));
    assert_eq!((ended.status, ended.reason().as_str()), (1, "SCOPE_FILE_INVALID"));
    let problems = &ended.document()["error"]["problems"];
    assert_eq!((&problems[0]["line"], &problems[0]["column"]), (&5.into(), &1.into()), "{problems}");
    assert_eq!((&problems[1]["line"], &problems[1]["file"]), (&6.into(), &"shop.toml".into()));
    assert_eq!(problems[1]["remedy"], "did you mean `direction`?");

    let ended = syncline(directory.path(), words);
    assert_eq!((ended.status, ended.output.as_str()), (1, ""));
    assert!(
        ended.errors.contains("direktion = \"up\"") && ended.errors.contains("did you mean `direction`?")
    );
    assert!(
        ended.errors.contains("error: shop.toml has 2 problems (SCOPE_FILE_INVALID)"),
        "{}",
        ended.errors
    );
    assert!(ended.errors.contains("what to do: correct the scope file"), "{}", ended.errors);
}

#[test]
fn a_wrong_configuration_is_said_key_by_key() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("s.toml"), "lissen = \"127.0.0.1:1\"\n").unwrap();
    let ended = syncline(directory.path(), "serve --config s.toml --json");
    assert_eq!((ended.status, ended.reason().as_str()), (1, "CONFIG_INVALID"));
    let problem = &ended.document()["error"]["problems"][0];
    assert!(problem["message"].as_str().unwrap().contains("did you mean `listen`?"), "{problem}");
}

#[test]
fn a_password_is_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    for words in [
        "status --database postgres://me:hunter2@127.0.0.1:1/d",
        "serve --database postgres://me:hunter2@127.0.0.1:1/d",
        "sync --server http://127.0.0.1:1 --scope s --retry-for 0s --database postgres://me:hunter2@127.0.0.1:1/d",
        "scope list --database mysql://me:hunter2@127.0.0.1:1/d",
    ] {
        for form in ["", "--json", "-vv"] {
            let state = directory.path().join("state").display().to_string();
            let state =
                if words.starts_with("sync") { format!("--state-dir {state}") } else { String::new() };
            let ended = syncline(directory.path(), &format!("{words} {form} {state}"));
            assert_ne!(ended.status, 0, "{words}");
            assert!(!ended.output.contains("hunter2"), "{words} {form}: {}", ended.output);
            assert!(!ended.errors.contains("hunter2"), "{words} {form}: {}", ended.errors);
        }
    }
}

#[test]
fn help_is_an_answer() {
    let directory = tempfile::tempdir().unwrap();
    for words in ["--help", "sync --help", "scope apply --help", "help conflicts"] {
        let ended = syncline(directory.path(), words);
        assert_eq!((ended.status, ended.errors.as_str()), (0, ""), "{words}");
        assert!(ended.output.contains("Usage: syncline"), "{words}: {}", ended.output);
    }
}

#[test]
fn the_demo_ends_with_three_equal_databases() {
    let directory = tempfile::tempdir().unwrap();
    let ended = syncline(directory.path(), "demo");
    assert_eq!(ended.status, 0, "{}{}", ended.output, ended.errors);
    assert!(
        ended.output.contains("batches kept") && ended.output.contains("conflicts settled: 1"),
        "{}",
        ended.output
    );
    assert!(ended.output.ends_with("hold the same 7,886 rows.\n"), "{}", ended.output);
}

#[test]
fn a_scope_is_defined_listed_shown_and_dropped() {
    let directory = tempfile::tempdir().unwrap();
    syncline(directory.path(), "demo --keep shop");
    let database = "--database sqlite:shop/hub.db";
    let run = |words: &str| syncline(directory.path(), &format!("{words} --json"));
    assert_eq!(run(&format!("scope list {database}")).document()["scopes"][0]["name"], "shop");
    let shown = run(&format!("scope show shop {database}")).document();
    assert_eq!(shown["tables"].as_array().unwrap().len(), 4, "{shown}");
    let status = run(&format!("status {database}")).document();
    assert_eq!(status["hub"][0]["replicas"].as_array().unwrap().len(), 2, "{status}");
    let status = run("status --database sqlite:shop/phone.db").document();
    assert_eq!(
        (&status["leaf"][0]["scope"], &status["leaf"][0]["pending_changes"]),
        (&"shop".into(), &0.into())
    );
    let listed = run(&format!("conflicts list {database}")).document();
    assert_eq!(listed["conflicts"][0]["table"], "customer", "{listed}");
    let id = listed["conflicts"][0]["id"].as_str().unwrap();
    assert_eq!(run(&format!("conflicts show {id} {database}")).document()["policy"], "last_writer_wins");
    assert_eq!(run(&format!("scope show none {database}")).reason(), "SCOPE_NOT_FOUND");
    let left = run("scope drop shop --database sqlite:shop/phone.db").document();
    assert_eq!((&left["dropped"], &left["pending_changes"]), (&true.into(), &0.into()));
    assert_eq!(run("status --database sqlite:shop/phone.db").document()["leaf"], serde_json::json!([]));
    let again = run("scope drop shop --database sqlite:shop/phone.db");
    assert_eq!(again.reason(), "SCOPE_NOT_FOUND");
    assert_eq!(run(&format!("scope drop shop {database}")).document()["dropped"], true);
    assert_eq!(run(&format!("scope list {database}")).document()["scopes"], serde_json::json!([]));
    assert_eq!(run(&format!("status {database}")).document()["hub"], serde_json::json!([]));
    assert_eq!(run(&format!("conflicts list {database}")).document()["conflicts"], serde_json::json!([]));
}

#[test]
fn looking_at_a_database_puts_nothing_into_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.db");
    rusqlite::Connection::open(&file)
        .unwrap()
        .execute_batch("CREATE TABLE t (id INTEGER PRIMARY KEY)")
        .unwrap();
    std::fs::write(directory.path().join("s.toml"), "name = \"s\"\n[[tables]]\nname = \"t\"\n").unwrap();
    for words in ["status", "scope list", "conflicts list", "scope apply s.toml --dry-run"] {
        let ended = syncline(directory.path(), &format!("{words} --database sqlite:a.db"));
        assert_eq!(ended.status, 0, "{words}: {}", ended.errors);
        let tables: u32 = rusqlite::Connection::open(&file)
            .unwrap()
            .query_row("SELECT count(*) FROM sqlite_master", [], |row| row.get(0))
            .unwrap();
        assert_eq!(tables, 1, "{words}");
    }
    let ended = syncline(directory.path(), "scope apply s.toml --compare u --database sqlite:a.db --json");
    assert_eq!((ended.status, ended.reason().as_str()), (2, "USAGE"), "{}", ended.output);
    assert_eq!(ended.document()["error"]["remedy"], "name one of its tables: t", "{}", ended.output);
    std::fs::write(directory.path().join("s.toml"), "name = \"s\"\n[[tables]]\nname = \"tt\"\n").unwrap();
    let ended = syncline(directory.path(), "scope apply s.toml --database sqlite:a.db --json");
    assert_eq!((ended.status, ended.reason().as_str()), (1, "SCOPE_FILE_INVALID"), "{}", ended.output);
    assert_eq!(ended.document()["error"]["problems"][0]["line"], 3, "{}", ended.output);
}
