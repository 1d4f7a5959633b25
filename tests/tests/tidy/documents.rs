//! README and docs name only what is there: links, files, commands, options.

use std::collections::BTreeSet;
use std::path::Path;

use crate::{assert_none, files, root};

fn documents() -> Vec<(String, String)> {
    files(".md")
        .into_iter()
        .map(|path| (path.display().to_string(), std::fs::read_to_string(root().join(path)).unwrap()))
        .collect()
}

/// The parts of a text between marks: every second one.
fn between<'t>(text: &'t str, mark: &str) -> Vec<&'t str> {
    text.split(mark).skip(1).step_by(2).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for (path, text) in documents() {
        let folder = Path::new(&path).parent().unwrap();
        for part in text.split("](").skip(1) {
            let target = part.split(')').next().unwrap_or("");
            let file = target.split('#').next().unwrap_or("");
            if file.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if !root().join(folder).join(file).exists() {
                broken.push(format!("{path}: {target}"));
            }
        }
    }
    assert_none("links lead to files that are there", &broken);
}

#[test]
fn files_that_are_named_are_there() {
    const FOLDERS: [&str; 11] = [
        "src/",
        "engine/",
        "service/",
        "client-sdk/",
        "cli/",
        "tests/",
        "bench/",
        "proto/",
        "docs/",
        "scripts/",
        ".ci/",
    ];
    let mut broken = Vec::new();
    for (path, text) in documents() {
        for name in between(&text, "`") {
            let is_path = FOLDERS.iter().any(|folder| name.starts_with(folder))
                && !name.contains([' ', '<', '*', '{', '\n']);
            if is_path && !root().join(name).exists() {
                broken.push(format!("{path}: {name}"));
            }
        }
    }
    assert_none("files that documents name are there", &broken);
}

#[test]
fn commands_and_options_that_are_named_are_there() {
    let commands = commands();
    assert!(commands.contains("demo") && commands.contains("scope apply"), "{commands:?}");
    let options = options();
    assert!(options.contains("database") && options.contains("dry-run"), "{options:?}");
    let mut broken = Vec::new();
    for (path, text) in documents() {
        let blocks = between(&text, "```");
        let code = blocks.iter().flat_map(|block| block.lines()).chain(between(&text, "`"));
        for line in code.filter_map(|line| line.trim().trim_start_matches("$ ").strip_prefix("syncline ")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let one = words.first().copied().unwrap_or("");
            let two = words[..words.len().min(2)].join(" ");
            let is_word = !one.is_empty() && one.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            if is_word && !one.starts_with('-') && !commands.contains(one) && !commands.contains(&two) {
                broken.push(format!("{path}: syncline {two}"));
            }
            for word in words {
                let option = word.trim_start_matches('[').strip_prefix("--").unwrap_or("");
                let option: String =
                    option.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
                if !option.is_empty() && !options.contains(&option) {
                    broken.push(format!("{path}: --{option} in: syncline {line}"));
                }
            }
        }
    }
    assert_none("commands and options that documents name are there", &broken);
}

/// The commands that the command line knows: those of the enum, and for those that have commands below, both words.
fn commands() -> BTreeSet<String> {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).unwrap();
    let mut commands = BTreeSet::from(["help".to_owned()]);
    for command in variants(&read("cli/src/arguments.rs"), "enum Command {") {
        let path = format!("cli/src/commands/{command}.rs");
        let below = if root().join(&path).exists() { read(&path) } else { String::new() };
        let name = format!("enum {}Command {{", capitalised(&command));
        for word in variants(&below, &name) {
            commands.insert(format!("{command} {word}"));
        }
        commands.insert(command);
    }
    commands
}

fn capitalised(word: &str) -> String {
    word[..1].to_uppercase() + &word[1..]
}

fn variants(text: &str, beginning: &str) -> Vec<String> {
    let Some((_, body)) = text.split_once(beginning) else { return Vec::new() };
    let body = body.split("\n}").next().unwrap_or("");
    body.lines()
        .map(str::trim)
        .filter(|line| line.chars().next().is_some_and(char::is_uppercase) && line.contains('('))
        .map(|line| line.split('(').next().unwrap_or("").to_lowercase())
        .collect()
}

/// The options that the command line knows: fields after an attribute with `long`.
fn options() -> BTreeSet<String> {
    let mut options = BTreeSet::from(["help".to_owned(), "version".to_owned()]);
    for path in files(".rs").iter().filter(|path| path.starts_with("cli/src")) {
        let text = std::fs::read_to_string(root().join(path)).unwrap();
        for part in
            text.split("#[arg(").skip(1).filter(|part| part.split(']').next().unwrap_or("").contains("long"))
        {
            let field = part.lines().map(str::trim).find(|line| line.contains(": ") && line.ends_with(','));
            let name = field.and_then(|line| line.split(':').next()).unwrap_or("");
            options.insert(name.trim_start_matches("pub(crate) ").replace('_', "-"));
        }
    }
    options
}

#[test]
fn the_project_speaks_of_itself_alone() {
    let mut broken = Vec::new();
    // Put together so that this file does not hold them.
    let words =
        [["/wo", "rk/"].concat(), ["/tmp/", "wt"].concat(), ["TO", "DO"].concat(), ["FIX", "ME"].concat()];
    for extension in [".rs", ".md", ".toml", ".proto", ".sql", "scripts/test", ".ci/run"] {
        for path in files(extension) {
            let text = std::fs::read_to_string(root().join(&path)).unwrap();
            for word in words.iter().filter(|word| text.contains(*word)) {
                broken.push(format!("{} names {word}", path.display()));
            }
        }
    }
    assert_none("nothing is named that a reader does not have", &broken);
}
