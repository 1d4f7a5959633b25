//! Goal: the later source wins, unknown keys are named with the nearest known one, secrets are never printed.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::Duration;

use super::*;

struct Case {
    directory: tempfile::TempDir,
    file: Option<PathBuf>,
    environment: Vec<(String, String)>,
    flags: ServeFlags,
}

fn case() -> Case {
    let directory = tempfile::tempdir().unwrap();
    Case { directory, file: None, environment: Vec::new(), flags: ServeFlags::default() }
}

impl Case {
    fn file(mut self, text: &str) -> Self {
        let path = self.directory.path().join("syncline.toml");
        std::fs::write(&path, text).unwrap();
        self.file = Some(path);
        self
    }
    fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }
    fn flags(mut self, flags: ServeFlags) -> Self {
        self.flags = flags;
        self
    }
    fn load(&self) -> Result<ServeConfig, ConfigError> {
        load(self.file.as_deref(), self.environment.clone(), &self.flags)
    }
    fn refused(&self) -> String {
        self.load().unwrap_err().to_string()
    }
}

#[test]
fn defaults_are_valid() {
    let config = case().load().unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:50051");
    assert_eq!(config.session.lease, Duration::from_secs(24 * 3_600));
    assert!(config.database.is_none() && config.tls.is_none());
}

#[test]
fn a_later_source_wins_over_an_earlier_one() {
    let case = case()
        .file(
            "listen = '127.0.0.1:1'\ndatabase = 'sqlite:file.db'\ngrace = '3s'\n[spool]\ndirectory = 'from-file'\n\
             bytes_max = 1000000000\n[session]\nlease = '2h'\n[log]\nformat = 'json'\n",
        )
        .variable("SYNCLINE_LISTEN", "127.0.0.1:2")
        .variable("SYNCLINE_SPOOL__DIRECTORY", "from-environment")
        .variable("SYNCLINE_SESSION__LEASE", "3h")
        .variable("SYNCLINE_LIMITS__UPLOADS_MAX", "7")
        .variable("SYNCLINE_CONFIG", "is for the command line")
        .variable("SYNCLINE_LOG", "so is this")
        .variable("PATH", "is not ours")
        .flags(ServeFlags {
            listen: Some("127.0.0.1:3".parse().unwrap()),
            lease: Some(Duration::from_secs(4 * 3_600)),
            batch_bytes: Some(100_000),
            ..ServeFlags::default()
        });
    let config = case.load().unwrap();
    assert_eq!(config.listen.port(), 3);
    assert_eq!(config.database.unwrap().expose(), "sqlite:file.db");
    assert_eq!(config.grace, Duration::from_secs(3));
    assert_eq!(config.spool.directory(), Path::new("from-environment"));
    assert_eq!(config.spool.bytes_max(), 1_000_000_000);
    assert_eq!(config.session.lease, Duration::from_secs(4 * 3_600));
    assert_eq!(config.session.batch_bytes_max, 100_000);
    assert_eq!(config.limits.uploads_max, 7);
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn an_unknown_key_is_named_with_the_nearest_known_one() {
    for (text, key, nearest) in [
        ("lisen = '127.0.0.1:1'", "lisen", "`listen`"),
        ("[spool]\ndirectry = 'x'", "spool.directry", "`directory`"),
        ("[session]\nleas = '1h'", "session.leas", "`lease`"),
        ("[tls]\ncert = 'a'\nkey = 'b'\nkye = 'c'", "tls.kye", "`key`"),
        ("[something]\nelse = 1", "something", "there are listen"),
    ] {
        let case = case().file(text);
        let error = case.load().unwrap_err();
        assert_eq!(error.problems[0].key, key, "{error}");
        assert!(error.problems[0].message.contains(nearest), "{error}");
        assert!(error.to_string().contains("syncline.toml"), "{error}");
    }
    let refused = case().variable("SYNCLINE_SPOL__DIRECTORY", "x").refused();
    assert!(refused.contains("spol") && refused.contains("`spool`"), "{refused}");
    assert!(refused.contains("environment"), "{refused}");
}

#[test]
fn a_wrong_value_is_refused_by_its_key() {
    for (text, key) in [
        ("listen = 'here'", "listen"),
        ("insecure_listen = 'perhaps'", "insecure_listen"),
        ("grace = 'soon'", "grace"),
        ("[session]\nsessions_max = -1", "session.sessions_max"),
        ("[log]\nformat = 'xml'", "log.format"),
        ("[tls]\ncert = 'a'", "tls"),
    ] {
        let error = case().file(text).load().unwrap_err();
        assert!(error.problems[0].key.starts_with(key), "{error}");
    }
    assert!(case().file("= broken").refused().contains("syncline.toml"));
    let mut missing = case();
    missing.file = Some(missing.directory.path().join("absent.toml"));
    assert!(missing.refused().contains("can't be read"));
}

#[test]
fn all_bounds_are_checked_at_once() {
    let refused = case()
        .file(
            "[session]\nlease = '1s'\nbatch_bytes_max = 1\n[limits]\ncalls_max = 0\n[spool]\nurl = 's3://x'",
        )
        .load()
        .unwrap_err();
    let keys: Vec<_> = refused.problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["spool.url", "session.lease", "session.batch_bytes_max", "limits.calls_max"]);
}

#[test]
fn listening_beyond_loopback_needs_tls_or_a_word() {
    let open = "listen = '0.0.0.0:50051'\n";
    assert!(case().file(open).refused().contains("--insecure-listen"));
    assert!(case().file(&format!("{open}insecure_listen = true")).load().is_ok());
    assert!(case().file(&format!("{open}[tls]\ncert = 'a'\nkey = 'b'")).load().is_ok());
    assert!(case().file("listen = '[::1]:50051'").load().is_ok());
}

#[test]
fn a_spool_flag_is_a_directory_or_a_url() {
    let spool = |value: &str| ServeFlags { spool: Some(value.to_owned()), ..ServeFlags::default() };
    let config = case().flags(spool("/tmp/x")).load().unwrap();
    assert_eq!(config.spool.directory(), Path::new("/tmp/x"));
    assert!(case().flags(spool("s3://bucket")).refused().contains("object store"));
}

#[test]
fn a_database_url_is_printed_without_its_secrets() {
    for (url, printed) in [
        ("postgres://ann:s3cret@host/db?sslpassword=s3cret", "postgres://ann@host/db"),
        ("postgres://ann:s3cret@cret@host:5432/db", "postgres://ann@host:5432/db"),
        ("postgres://host/db", "postgres://host/db"),
        ("sqlite:hub.db?key=s3cret", "sqlite:hub.db"),
        ("s3cret", "***"),
        ("ann:s3cret", "***"),
    ] {
        let url = DatabaseUrl::new(url);
        assert_eq!(url.to_string(), printed);
        let config = ServeConfig { database: Some(url), ..ServeConfig::default() };
        assert!(!format!("{config:?}").contains("s3cret"));
        assert!(!serde_json::to_string(&config).unwrap().contains("s3cret"));
    }
}

fn deployed(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)).unwrap()
}

#[test]
fn the_example_file_names_every_setting_with_its_default() {
    let config = case().file(&deployed("syncline.toml")).load().unwrap();
    let mut expected = ServeConfig::default();
    // These have a default that is not written down as a value.
    expected.spool.directory = Some(expected.spool.directory().to_owned());
    expected.spool.bytes_max = Some(expected.spool.bytes_max());
    expected.spool.session_bytes_max = Some(expected.spool.session_bytes_max());
    let json = |config: &ServeConfig| serde_json::to_value(config).unwrap();
    assert_eq!(json(&config), json(&expected));
}

#[test]
fn the_kubernetes_settings_load_and_leave_time_to_stop() {
    let manifest = deployed("k8s/configmap.yaml");
    let (_, settings) = manifest.split_once("syncline.toml: |\n").unwrap();
    let config = case().file(settings).load().unwrap();
    let deployment = deployed("k8s/deployment.yaml");
    let (_, seconds) = deployment.split_once("terminationGracePeriodSeconds: ").unwrap();
    let seconds: u64 = seconds.lines().next().unwrap().parse().unwrap();
    let needed =
        config.drain_notice + config.grace + limits::CLOSE_FLUSH + limits::PARK_MIN + limits::ABORT_MAX;
    assert!(Duration::from_secs(seconds) > needed, "{seconds} s do not hold {needed:?}");
}
