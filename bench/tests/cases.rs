//! Every case runs to its end with few rows, and the answer is one JSON document of the agreed form. Nothing is timed.
#![allow(clippy::unwrap_used)]

use std::process::Command;

/// Every case is named, so that one that is lost is missed.
const CASES: [&str; 35] = [
    "download_pg_sqlite",
    "download_sqlite_sqlite",
    "download_pg_pg",
    "upload_sqlite_pg",
    "upload_update_pg",
    "upload_update_sqlite",
    "delta",
    "delta_scale bare",
    "delta_scale copied",
    "poll_empty",
    "poll_idle",
    "live postgres_p50",
    "live postgres_p99",
    "live sqlite_p50",
    "live sqlite_p99",
    "fan_out",
    "write_tax_pg single",
    "write_tax_pg update",
    "write_tax_sqlite single",
    "write_tax_sqlite insert",
    "write_tax_sqlite update",
    "write_tax_sqlite leaf_single",
    "write_tax_sqlite leaf_insert",
    "write_tax_sqlite leaf_update",
    "fold postgres",
    "fold postgres_writes_p99",
    "fold sqlite",
    "fold sqlite_writes_p99",
    "wire_bytes",
    "memory",
    "memory_sqlite",
    "knowledge_size clocks",
    "knowledge_size bytes",
    "resume_cost p50",
    "resume_cost worst",
];

#[test]
fn every_case_runs_to_its_end_with_few_rows() {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_syncline-bench"))
        .args([
            "--rows",
            "2000",
            "--repeat",
            "1",
            "--samples",
            "5",
            "--clients",
            "4",
            "--leaves",
            "120",
            "--kills",
            "3",
            "--json",
            "--directory",
        ])
        .arg(directory.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let cases = document["cases"].as_array().unwrap();
    let names: Vec<_> = cases.iter().map(name).collect();
    assert_eq!(names, CASES);
    for case in cases {
        let name = name(case);
        // A kill may cost nothing at all.
        let something = name.starts_with("resume_cost") || case["ours"].as_f64().unwrap() > 0.0;
        assert!(something && case["limit"].as_f64().unwrap() > 0.0, "{case}");
        let more = name.starts_with("write_tax") || name == "poll_idle";
        let better = if more { "higher" } else { "lower" };
        assert!(case["ratio"].is_number() && case["unit"].is_string() && case["better"] == better, "{case}");
        if !["write_tax", "fold", "wire", "knowledge"].iter().any(|without| name.starts_with(without)) {
            assert!(case["peak_rss_mib"]["service"].as_f64().unwrap() > 1.0, "{case}");
            assert!(case["peak_rss_mib"]["client"].as_f64().unwrap() > 1.0, "{case}");
        }
    }
    assert_eq!(document["machine"]["rows"], 2000);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "what was made is gone");
}

#[test]
fn plots_are_drawn_of_all_that_cost_grows_with() {
    let directory = tempfile::tempdir().unwrap();
    let plots = directory.path().join("plots");
    let output = Command::new(env!("CARGO_BIN_EXE_syncline-bench"))
        .args(["--rows", "1000", "--repeat", "1", "--clients", "1", "--json", "--plots"])
        .args([plots.as_os_str(), "--directory".as_ref(), directory.path().join("data").as_os_str()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = ["rows", "changes", "replicas"].map(|name| format!("cost-by-{name}.svg"));
    let of_batches = ["time", "memory"].map(|name| format!("{name}-by-batch-size.svg"));
    for name in names.iter().chain(&of_batches) {
        let svg = std::fs::read_to_string(plots.join(name)).unwrap();
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{name}");
        assert!(svg.matches("<polyline").count() == 2 && svg.contains("<circle"), "{name}");
    }
    assert_eq!(std::fs::read_dir(plots).unwrap().count(), 5);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["cases"].as_array().unwrap().len(), 0, "nothing was named");
}

/// The case, and which of its figures it is.
fn name(case: &serde_json::Value) -> String {
    let case_name = case["name"].as_str().unwrap();
    case["figure"].as_str().map_or_else(|| case_name.to_owned(), |figure| format!("{case_name} {figure}"))
}
