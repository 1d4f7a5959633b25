//! The rules of the house that a compiler does not check, as an ordinary test: lengths, layers, where SQL may stand, what
//! tests may not do, and that documents name only what is there. It reads files, and nothing else.
#![allow(clippy::unwrap_used)]

mod documents;
mod source;

use std::path::{Path, PathBuf};

use source::Source;

const FILE_LINES_WARN: usize = 400;
const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The files below the root whose names end so, by path relative to it; what is built or fetched aside.
pub(crate) fn files(extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", "node_modules", ".git"].contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if name.ends_with(extension) {
                found.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let sources = Source::read_all();
    assert!(sources.len() > 50, "the sources were not found: {}", sources.len());
    sources
}

/// Fails with all of them.
pub(crate) fn assert_none(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}\n", broken.join("\n  "));
}

/// Places of a word in code (not in comments or texts) of the sources that are chosen.
fn naming(word: &str, chosen: impl Fn(&Source) -> bool) -> Vec<String> {
    sources().iter().filter(|source| chosen(source)).flat_map(|source| source.places_of(word)).collect()
}

#[test]
fn files_are_short() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test) {
        let lines = source.lines_without_tests();
        if lines > FILE_LINES_MAX {
            broken.push(format!("{} has {lines} lines", source.path));
        } else if lines > FILE_LINES_WARN {
            eprintln!("long: {} has {lines} lines", source.path);
        }
    }
    assert_none("files have at most 600 lines, tests aside", &broken);
}

#[test]
fn functions_fit_on_a_screen() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test) {
        for function in source.functions() {
            if function.lines > FUNCTION_LINES_MAX {
                broken.push(format!(
                    "{}:{} {} has {} lines",
                    source.path, function.at, function.name, function.lines
                ));
            }
        }
    }
    assert_none("functions have at most 70 lines", &broken);
}

#[test]
fn files_say_what_they_are() {
    let broken: Vec<String> = sources()
        .iter()
        .filter(|source| !source.is_test)
        .filter(|source| !source.text.starts_with("//! ") || source.text.starts_with("//! placeholder"))
        .map(|source| source.path.clone())
        .collect();
    assert_none("a file begins with `//!` and what it is", &broken);
}

#[test]
fn the_engine_does_not_know_grpc() {
    let mut broken = naming("tonic", |source| source.path.starts_with("engine/"));
    if std::fs::read_to_string(root().join("engine/Cargo.toml")).unwrap().contains("tonic") {
        broken.push("engine/Cargo.toml".to_owned());
    }
    assert_none("the engine never names tonic", &broken);
}

#[test]
fn only_dialects_know_databases() {
    let outside = |source: &Source| {
        ["src/", "service/", "client-sdk/"].iter().any(|folder| source.path.starts_with(folder))
            && !source.is_test
    };
    let mut broken = Vec::new();
    for word in ["sqlx", "rusqlite"] {
        broken.extend(naming(word, outside));
        broken.extend(naming(word, |source| {
            source.path.starts_with("engine/")
                && !source.is_test
                && !source.path.starts_with("engine/src/dialect/")
        }));
    }
    for manifest in ["Cargo.toml", "service/Cargo.toml", "client-sdk/rust/Cargo.toml"] {
        let text = std::fs::read_to_string(root().join(manifest)).unwrap();
        let dependencies = text.split("[dependencies]").nth(1).unwrap_or("");
        let dependencies = dependencies.split("\n[").next().unwrap_or("");
        for word in ["sqlx", "rusqlite"] {
            if dependencies.lines().any(|line| line.starts_with(word)) {
                broken.push(format!("{manifest} depends on {word}"));
            }
        }
    }
    assert_none("only engine/src/dialect names a database library", &broken);
}

#[test]
fn sql_stands_in_dialects_only() {
    let mut broken = Vec::new();
    // What the demo's application does in its own database is a user's SQL, not ours.
    let exempt =
        |path: &str| path.starts_with("engine/src/dialect/") || path.starts_with("cli/src/commands/demo/");
    for source in sources().iter().filter(|source| !source.is_test && !exempt(&source.path)) {
        if source.path.starts_with("bench/") {
            continue;
        }
        for (line, text) in source.texts_outside_tests() {
            if is_sql(text) {
                broken.push(format!("{}:{line} {text:?}", source.path));
            }
        }
    }
    assert_none("SQL stands below engine/src/dialect only", &broken);
}

fn is_sql(text: &str) -> bool {
    let words: Vec<&str> = text.split_whitespace().collect();
    let has = |first: &str, then: &str| {
        words.iter().position(|word| *word == first).is_some_and(|at| words[at..].contains(&then))
    };
    has("SELECT", "FROM")
        || has("INSERT", "INTO")
        || has("UPDATE", "SET")
        || has("DELETE", "FROM")
        || has("CREATE", "TABLE")
        || has("CREATE", "TRIGGER")
}

#[test]
fn dynamic_sql_is_built_in_statements_only() {
    let broken = naming("AssertSqlSafe", |source| {
        let statements =
            source.path.starts_with("engine/src/dialect/") && source.path.ends_with("/statements.rs");
        !source.is_test && !statements && !source.path.starts_with("bench/")
    });
    assert_none("AssertSqlSafe stands in dialect/*/statements.rs only", &broken);
}

#[test]
fn tests_run_and_do_not_sleep() {
    let mut broken = Vec::new();
    for source in sources() {
        broken.extend(source.places_of("ignore").into_iter().filter(|place| place.contains("#[ignore")));
        for function in source.functions().iter().filter(|function| source.is_test_line(function.at)) {
            // What waits for a condition of another process has to look again and again.
            if function.name.starts_with("wait_") || function.name.starts_with("until_") {
                continue;
            }
            let calls = |call: &str| function.code.contains(call);
            if calls("sleep(") && !calls("sleep()") {
                broken.push(format!("{}:{} {} sleeps", source.path, function.at, function.name));
            }
        }
    }
    assert_none("no test is ignored or sleeps; wait for a condition (wait_...)", &broken);
}

#[test]
fn nothing_is_left_open() {
    let mut broken = Vec::new();
    for word in ["todo!", "unimplemented!", "dbg!"] {
        broken.extend(naming(word, |_| true));
    }
    assert_none("nothing is left open", &broken);
}

#[test]
fn the_heuristics_find_what_they_look_for() {
    assert!(
        is_sql("SELECT 1 FROM t") && is_sql("INSERT OR IGNORE INTO t") && !is_sql("select one from many")
    );
    let text = "//! x\nfn one() {\n    let a = \"fn two() {\"; // fn three() {\n    let b = '{';\n}\n\
                #[cfg(test)]\nmod tests {\n    fn four<'a>() { todo!() }\n}\n";
    let source = Source::new("a/src/x.rs", text.to_owned(), false);
    let found: Vec<_> = source.functions().iter().map(|f| (f.name.clone(), f.at, f.lines)).collect();
    assert_eq!(found, [("one".to_owned(), 2, 4), ("four".to_owned(), 8, 1)]);
    assert_eq!(source.lines_without_tests(), 5);
    assert!(source.is_test_line(8) && !source.is_test_line(5));
    assert_eq!(source.places_of("todo!").len(), 1);
    assert_eq!(source.texts_outside_tests().collect::<Vec<_>>(), [(3, "fn two() {")]);
}
