//! A Rust file as the rules see it: code with comments and texts blanked out, the texts by themselves, functions, and
//! which lines are tests. A heuristic that needs no parser, and is tested with the rules.

use std::collections::BTreeSet;
use std::path::Path;

use crate::{files, root};

/// A file.
pub(crate) struct Source {
    /// Relative to the root.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
    /// Whether all of it is test code.
    pub(crate) is_test: bool,
    /// The text with comments and the content of texts blanked out, so that braces and words can be counted.
    code: String,
    /// The content of texts, by line.
    texts: Vec<(usize, String)>,
    /// The line at which `#[cfg(test)] mod tests {` begins.
    tests_from: usize,
}

/// A function.
pub(crate) struct Function {
    pub(crate) name: String,
    /// Its first line, from 1.
    pub(crate) at: usize,
    pub(crate) lines: usize,
    /// Signature and body, blanked.
    pub(crate) code: String,
}

impl Source {
    /// All Rust files of the repository.
    pub(crate) fn read_all() -> Vec<Self> {
        let paths: Vec<String> = files(".rs").iter().map(|path| path.display().to_string()).collect();
        let test_modules = test_modules(&paths);
        paths
            .into_iter()
            .map(|path| {
                let text = std::fs::read_to_string(root().join(&path)).unwrap();
                let is_test = is_test_file(&path, &test_modules);
                Self::new(&path, text, is_test)
            })
            .collect()
    }

    pub(crate) fn new(path: &str, text: String, is_test: bool) -> Self {
        let (code, texts) = blank(&text);
        let lines: Vec<&str> = code.lines().collect();
        let tests_from = (1..lines.len())
            .find(|at| lines[at - 1].trim() == "#[cfg(test)]" && module_follows(&lines[*at..]))
            .unwrap_or(lines.len() + 1);
        Self { path: path.to_owned(), text, is_test, code, texts, tests_from }
    }

    /// Lines before the test module.
    pub(crate) fn lines_without_tests(&self) -> usize {
        self.text.lines().count().min(self.tests_from - 1)
    }

    /// Whether the line, from 1, is test code.
    pub(crate) fn is_test_line(&self, line: usize) -> bool {
        self.is_test || line >= self.tests_from
    }

    /// Where the word stands in code.
    pub(crate) fn places_of(&self, word: &str) -> Vec<String> {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        self.code
            .lines()
            .enumerate()
            .filter(|(_, line)| {
                line.match_indices(word).any(|(at, _)| {
                    let before = line[..at].chars().next_back().is_some_and(is_part);
                    let after = line[at + word.len()..].chars().next().is_some_and(is_part);
                    !before && !after
                })
            })
            .map(|(at, line)| format!("{}:{} {}", self.path, at + 1, line.trim()))
            .collect()
    }

    /// The texts outside tests, with their lines.
    pub(crate) fn texts_outside_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        self.texts
            .iter()
            .filter(|(line, _)| !self.is_test_line(*line))
            .map(|(line, text)| (*line, text.as_str()))
    }

    /// The functions that have a body.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        let bytes = self.code.as_bytes();
        for (at, _) in self.code.match_indices("fn ") {
            let before = at.checked_sub(1).map(|at| bytes[at]);
            if before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                continue;
            }
            let name: String =
                self.code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if name.is_empty() {
                continue;
            }
            if let Some(end) = end_of_body(bytes, at) {
                let code = self.code[at..=end].to_owned();
                let first = self.code[..at].matches('\n').count() + 1;
                functions.push(Function { name, at: first, lines: code.matches('\n').count() + 1, code });
            }
        }
        functions
    }
}

fn module_follows(lines: &[&str]) -> bool {
    let line = lines.iter().map(|line| line.trim()).find(|line| !line.starts_with("#["));
    line.is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
}

fn is_test_file(path: &str, test_modules: &BTreeSet<String>) -> bool {
    let stem = path.strip_suffix(".rs").unwrap_or(path);
    path.starts_with("tests/")
        || path.contains("/tests/")
        || path.contains("/testing/")
        || test_modules.iter().any(|module| stem == module || stem.starts_with(&format!("{module}/")))
}

/// Modules that are declared under `#[cfg(test)]`, as paths without their ending.
fn test_modules(paths: &[String]) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for path in paths {
        let text = std::fs::read_to_string(root().join(path)).unwrap();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let path = Path::new(path);
        let stem = path.file_stem().unwrap().to_string_lossy();
        let folder = path.parent().unwrap();
        let folder =
            if ["mod", "lib", "main"].contains(&&*stem) { folder.to_owned() } else { folder.join(&*stem) };
        for pair in lines.windows(2) {
            let declared = pair[1].trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            if let ("#[cfg(test)]", Some(name)) =
                (pair[0], declared.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')))
            {
                modules.insert(folder.join(name).display().to_string());
            }
        }
    }
    modules
}

/// Where the body of the function that begins at `start` ends; `None` for a declaration without one.
fn end_of_body(code: &[u8], start: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut nested = 0_usize;
    for (at, byte) in code.iter().enumerate().skip(start) {
        match byte {
            b'(' | b'[' => nested += 1,
            b')' | b']' => nested = nested.saturating_sub(1),
            b';' if depth == 0 && nested == 0 => return None,
            b'{' => depth += 1,
            b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 && nested == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// The code with comments, texts and characters blanked out (lines stay lines), and the texts.
fn blank(text: &str) -> (String, Vec<(usize, String)>) {
    let bytes = text.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut texts = Vec::new();
    let mut at = 0;
    let mut line = 1;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let is_text = matches!(rest[0], b'"' | b'r') && text_length(bytes, at).is_some();
        let length = match rest {
            [b'/', b'/', ..] => rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
            [b'/', b'*', ..] => comment_length(rest),
            [b'\'', ..] => character_length(rest),
            _ if is_text => text_length(bytes, at).unwrap_or(1),
            _ => 0,
        };
        if length == 0 {
            code.push(rest[0]);
            line += usize::from(rest[0] == b'\n');
            at += 1;
            continue;
        }
        let part = &bytes[at..at + length];
        if is_text {
            let content = String::from_utf8_lossy(part);
            texts.push((
                line,
                content.trim_start_matches(['r', '#']).trim_end_matches('#').trim_matches('"').into(),
            ));
        }
        line += part.iter().filter(|byte| **byte == b'\n').count();
        code.extend(part.iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
        at += length;
    }
    (String::from_utf8_lossy(&code).into_owned(), texts)
}

/// The length of the text that begins here, raw or not; `None` if none does.
fn text_length(bytes: &[u8], at: usize) -> Option<usize> {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let rest = &bytes[at..];
    if rest[0] == b'"' {
        let mut end = 1;
        while end < rest.len() && rest[end] != b'"' {
            end += if rest[end] == b'\\' { 2 } else { 1 };
        }
        return Some((end + 1).min(rest.len()));
    }
    // A raw text: r, as many # as are there, a quote; `r` at the end of a name is none.
    let prefixed = at > 0 && bytes[at - 1] != b'b' && is_name(&bytes[at - 1]);
    let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
    if prefixed || rest.get(1 + hashes) != Some(&b'"') {
        return None;
    }
    let closing = format!("\"{}", "#".repeat(hashes));
    let body = &rest[hashes + 2..];
    let end = body.windows(closing.len()).position(|window| window == closing.as_bytes())?;
    Some(hashes + 2 + end + closing.len())
}

fn comment_length(rest: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at + 1 < rest.len() {
        match &rest[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// The length of a character literal; 0 for a lifetime.
fn character_length(rest: &[u8]) -> usize {
    if rest.get(1) == Some(&b'\\') {
        return rest.iter().skip(3).position(|byte| *byte == b'\'').map_or(0, |end| end + 4);
    }
    // One character of up to four bytes.
    (2..=5)
        .find(|end| rest.get(*end) == Some(&b'\''))
        .filter(|end| std::str::from_utf8(&rest[1..*end]).is_ok_and(|inner| inner.chars().count() == 1))
        .map_or(0, |end| end + 1)
}
