//! Reads the settings: defaults, file, environment, flags. The environment comes as an iterator, so tests bring theirs.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::error::Kind;
use figment::providers::{Format as _, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::ServeConfig;

/// What a variable of ours begins with.
const PREFIX: &str = "SYNCLINE_";
/// Between a section and its key.
const SEPARATOR: &str = "__";
/// Variables of ours that are no settings of the service: the command line reads them.
const NOT_SETTINGS: [&str; 6] = [
    "SYNCLINE_CONFIG",
    "SYNCLINE_LOG",
    "SYNCLINE_LOG_FORMAT",
    "SYNCLINE_SERVER",
    "SYNCLINE_TOKEN",
    "SYNCLINE_TOKEN_FILE",
];

/// What the command line says; `None` and `false` leave a setting as it is.
#[derive(Debug, Clone, Default)]
pub struct ServeFlags {
    /// `--listen`
    pub listen: Option<SocketAddr>,
    /// `--database`
    pub database: Option<String>,
    /// `--spool`: a directory, or the URL of an object store.
    pub spool: Option<String>,
    /// `--batch-bytes`
    pub batch_bytes: Option<u64>,
    /// `--lease`
    pub lease: Option<Duration>,
    /// `--insecure-listen`
    pub insecure_listen: bool,
}

/// A setting that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The setting, as in a file: `spool.directory`. Empty if it is the file as a whole.
    pub key: String,
    /// Where it was said: a file, a variable, a flag.
    pub source: String,
    /// What is wrong with it, and what to do.
    pub message: String,
}

/// The settings are wrong; every fault that was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The faults.
    pub problems: Vec<ConfigProblem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            let colon = if problem.key.is_empty() { "" } else { ": " };
            write!(f, "{separator}{}{colon}{}", problem.key, problem.message)?;
            if !problem.source.is_empty() {
                write!(f, " (in {})", problem.source)?;
            }
        }
        Ok(())
    }
}

/// Reads and checks the settings. `environment` is what the process was given (`std::env::vars()`).
///
/// # Errors
/// [`ConfigError`]: a file that can't be read, a key that does not exist, a value of the wrong type or beyond its
/// bounds.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: &ServeFlags,
) -> Result<ServeConfig, ConfigError> {
    let mut figment = Figment::from(Serialized::defaults(ServeConfig::default()));
    if let Some(path) = file {
        figment = figment.merge(SettingsFile { path: path.to_owned(), text: read(path)? });
    }
    let figment = figment.merge(Environment::new(environment)).merge(Flags(flags.clone()));
    let config: ServeConfig = figment.extract().map_err(problems)?;
    config.check()?;
    Ok(config)
}

/// A file is read here: figment would take a missing one for an empty one.
fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError {
        problems: vec![ConfigProblem {
            key: String::new(),
            source: path.display().to_string(),
            message: format!("the file can't be read: {error}"),
        }],
    })
}

fn problems(error: figment::Error) -> ConfigError {
    let problems = error.into_iter().map(|error| {
        let metadata = error.metadata.as_ref();
        let source = metadata.map_or_else(String::new, |metadata| metadata.name.to_string());
        let (key, message) = match &error.kind {
            Kind::UnknownField(name, known) => {
                let mut path = error.path.clone();
                // The path ends with the unknown key itself, or with the section that it stands in.
                if path.last() != Some(name) {
                    path.push(name.clone());
                }
                (path.join("."), unknown(name, known))
            }
            kind => (error.path.join("."), kind.to_string()),
        };
        ConfigProblem { key, source, message }
    });
    ConfigError { problems: problems.collect() }
}

fn unknown(name: &str, known: &[&str]) -> String {
    let nearest = known.iter().min_by_key(|candidate| distance(name, candidate));
    match nearest {
        Some(nearest) if distance(name, nearest) <= 3 => {
            format!("there is no such setting; did you mean `{nearest}`?")
        }
        _ => format!("there is no such setting; there are {}", known.join(", ")),
    }
}

/// How many letters must be added, taken away or changed to make one word the other.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, letter) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, other) in right.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

/// The environment's settings. Values stay text where a setting is text: a password of digits is no number.
struct Environment(Dict);

impl Environment {
    fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut settings = Dict::new();
        for (name, value) in variables {
            let Some(path) = name.strip_prefix(PREFIX).filter(|_| !NOT_SETTINGS.contains(&&*name)) else {
                continue;
            };
            let path = path.to_ascii_lowercase();
            insert(&mut settings, &path.split(SEPARATOR).collect::<Vec<_>>(), typed(&value));
        }
        Self(settings)
    }
}

/// Numbers and truth values as such, everything else as text.
fn typed(value: &str) -> Value {
    if let Ok(number) = value.parse::<u64>() {
        return Value::from(number);
    }
    match value {
        "true" => Value::from(true),
        "false" => Value::from(false),
        text => Value::from(text),
    }
}

fn insert(settings: &mut Dict, path: &[&str], value: Value) {
    match path {
        [] => {}
        [key] => {
            settings.insert((*key).to_owned(), value);
        }
        [section, rest @ ..] => {
            let entry = settings.entry((*section).to_owned()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, section) = entry {
                insert(section, rest, value);
            }
        }
    }
}

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        Metadata::named("the environment").interpolater(|_, keys| {
            let path: Vec<_> = keys.iter().map(|key| key.to_ascii_uppercase()).collect();
            format!("{PREFIX}{}", path.join(SEPARATOR))
        })
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.0.clone()))
    }
}

struct Flags(ServeFlags);

impl Provider for Flags {
    fn metadata(&self) -> Metadata {
        Metadata::named("the command line")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let flags = &self.0;
        let mut settings = Dict::new();
        let mut set = |path: &[&str], value: Option<Value>| {
            if let Some(value) = value {
                insert(&mut settings, path, value);
            }
        };
        set(&["listen"], flags.listen.map(|address| Value::from(address.to_string())));
        set(&["database"], flags.database.clone().map(Value::from));
        let spool = flags.spool.clone();
        let key = if spool.as_ref().is_some_and(|spool| spool.contains("://")) { "url" } else { "directory" };
        set(&["spool", key], spool.map(Value::from));
        set(&["session", "batch_bytes_max"], flags.batch_bytes.map(Value::from));
        let lease =
            flags.lease.map(|lease| humantime_serde::re::humantime::format_duration(lease).to_string());
        set(&["session", "lease"], lease.map(Value::from));
        set(&["insecure_listen"], flags.insecure_listen.then(|| Value::from(true)));
        Ok(Profile::Default.collect(settings))
    }
}

/// A settings file, by its own name in messages.
struct SettingsFile {
    path: PathBuf,
    text: String,
}

impl Provider for SettingsFile {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.path.display().to_string())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Toml::string(&self.text).data()
    }
}
