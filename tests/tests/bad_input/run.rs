//! The binary as a script runs it, and what it leaves behind.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use syncline_tests::binary;

/// How a command ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: i32,
    pub(super) document: Value,
    errors: String,
}

impl Ended {
    /// Asserts exit status, reason and message, and that there is a remedy.
    #[track_caller]
    pub(super) fn assert_error(&self, what: &str, status: i32, reason: &str, says: &str) {
        self.check_error(status, reason, says).unwrap_or_else(|fault| panic!("{what} {fault}: {self:?}"));
    }

    pub(super) fn check_error(&self, status: i32, reason: &str, says: &str) -> Result<(), String> {
        let error = &self.document["error"];
        let said = self.all_said();
        let leaks = ["panicked", ".rs:", "SELECT"].iter().find(|inside| said.contains(*inside));
        if (self.status, error["reason"].as_str()) != (status, Some(reason)) {
            Err(format!("is not {status} {reason}"))
        } else if !error["problems"].is_array() {
            Err("has no list of problems".to_owned())
        } else if !said.contains(says) {
            Err(format!("does not say \"{says}\""))
        } else if self.remedy().len() < 10 {
            Err("has no remedy".to_owned())
        } else if let Some(inside) = leaks {
            Err(format!("leaks {inside}"))
        } else if !self.errors.is_empty() {
            Err("speaks beside the document".to_owned())
        } else {
            Ok(())
        }
    }

    /// The message, and those of the problems.
    fn all_said(&self) -> String {
        let error = &self.document["error"];
        let problems = error["problems"].as_array().into_iter().flatten();
        let messages = std::iter::once(error).chain(problems).filter_map(|said| said["message"].as_str());
        messages.collect::<Vec<_>>().join("\n")
    }

    pub(super) fn remedy(&self) -> &str {
        self.document["error"]["remedy"].as_str().unwrap_or_default()
    }
}

/// Runs the binary in a directory with `--json`.
pub(super) fn run_with(directory: &Path, words: &str, environment: &[(&str, &str)]) -> Ended {
    let output = Command::new(binary())
        .args(words.split_whitespace())
        .arg("--json")
        .current_dir(directory)
        .env_remove("SYNCLINE_DATABASE")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().count() <= 1, "{words}: more than one document: {text}");
    Ended {
        status: output.status.code().unwrap(),
        document: serde_json::from_str(&text).unwrap_or(Value::Null),
        errors: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Every file below a directory, with its bytes; directories with none.
pub(super) fn files_below(directory: &Path) -> Vec<(String, Option<Vec<u8>>)> {
    let mut files = BTreeMap::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(next) = waiting.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let content = if path.is_dir() { None } else { Some(std::fs::read(&path).unwrap()) };
            files.insert(path.strip_prefix(directory).unwrap().display().to_string(), content);
            if path.is_dir() {
                waiting.push(path);
            }
        }
    }
    files.into_iter().collect()
}
