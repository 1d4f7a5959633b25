//! What was measured: as a table for people, as one JSON document for programs.

use std::fmt;

use serde::Serialize;

/// All that a run has measured.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) cases: Vec<CaseReport>,
}

/// Where it was measured, and how.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    /// Rows of the large tables.
    pub(crate) rows: u64,
    /// Repetitions behind each median.
    pub(crate) repeat: u32,
}

/// What was measured: a case, as it is named on the command line, and which of its figures, if it has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Name {
    #[serde(rename = "name")]
    case: &'static str,
    figure: Option<&'static str>,
}

impl From<&'static str> for Name {
    fn from(case: &'static str) -> Self {
        Self { case, figure: None }
    }
}

impl From<(&'static str, &'static str)> for Name {
    fn from((case, figure): (&'static str, &'static str)) -> Self {
        Self { case, figure: Some(figure) }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.case)?;
        self.figure.map_or(Ok(()), |figure| write!(f, " {figure}"))
    }
}

/// One figure of a case.
#[derive(Debug, Serialize)]
pub(crate) struct CaseReport {
    #[serde(flatten)]
    pub(crate) name: Name,
    /// The median of ours.
    pub(crate) ours: f64,
    /// The median of what it is compared with.
    pub(crate) limit: Option<f64>,
    pub(crate) unit: &'static str,
    /// Ours over limit.
    pub(crate) ratio: Option<f64>,
    /// Which way the ratio is better.
    pub(crate) better: &'static str,
    /// What the ratio is to be; where a case wants so much of ours itself, that.
    pub(crate) target: Option<f64>,
    /// The same for people.
    #[serde(skip)]
    target_text: String,
    /// Whether it is, and whatever else the case asks for.
    pub(crate) met: Option<bool>,
    /// The most memory of all repetitions.
    pub(crate) peak_rss_mib: Option<Peak>,
}

/// The most memory that the two sides ever had, in MiB.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Peak {
    pub(crate) service: f64,
    pub(crate) client: f64,
}

impl Peak {
    /// From KiB.
    pub(crate) fn from_kib(service: u64, client: u64) -> Self {
        Self { service: rounded(service as f64 / 1_024.0), client: rounded(client as f64 / 1_024.0) }
    }

    /// The larger of both, side by side.
    #[must_use]
    pub(crate) fn max(self, other: Self) -> Self {
        Self { service: self.service.max(other.service), client: self.client.max(other.client) }
    }
}

/// Every measurement, in order.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    pub(crate) ours: Vec<f64>,
    pub(crate) limit: Vec<f64>,
}

impl Samples {
    /// Adds those of another round.
    pub(crate) fn append(&mut self, mut other: Self) {
        self.ours.append(&mut other.ours);
        self.limit.append(&mut other.limit);
    }
}

/// What a case wants to reach.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    /// At most this ratio.
    pub(crate) ratio: Option<f64>,
    /// At least this ratio, where more is better.
    pub(crate) at_least: Option<f64>,
    /// At most this much of ours itself, in its unit, whatever the limit is: shown beside it, it says what is possible.
    pub(crate) ours: Option<f64>,
    /// At most this much memory on either side, in MiB.
    pub(crate) peak_mib: Option<f64>,
}

impl Target {
    /// None: the figure is for looking at.
    pub(crate) const NONE: Self = Self { ratio: None, at_least: None, ours: None, peak_mib: None };
    /// At most this ratio.
    pub(crate) const fn ratio(ratio: f64) -> Self {
        Self { ratio: Some(ratio), ..Self::NONE }
    }

    /// At least this ratio.
    pub(crate) const fn at_least(ratio: f64) -> Self {
        Self { at_least: Some(ratio), ..Self::NONE }
    }

    /// At most this much of ours.
    pub(crate) const fn ours(most: f64) -> Self {
        Self { ours: Some(most), ..Self::NONE }
    }

    /// As it is written: of the ratio, or with the unit of what is measured.
    fn text(&self, unit: &str) -> String {
        match (self.ratio, self.at_least, self.ours) {
            (Some(most), _, _) => format!("<= {most:.2}"),
            (None, Some(least), _) => format!(">= {least:.2}"),
            (None, None, Some(most)) => format!("<= {most} {unit}"),
            (None, None, None) => "-".to_owned(),
        }
    }
}

impl CaseReport {
    /// Of what was measured; less is better, unless the target says otherwise.
    pub(crate) fn new(
        name: impl Into<Name>,
        unit: &'static str,
        samples: Samples,
        target: Target,
        peak: Option<Peak>,
    ) -> Self {
        let ours = median(&samples.ours).unwrap_or_default();
        let limit = median(&samples.limit);
        let ratio = limit.filter(|limit| *limit > 0.0).map(|limit| rounded(ours / limit));
        let within = match (target.ratio, target.at_least, target.ours) {
            (Some(most), _, _) => Some(ratio.is_some_and(|ratio| ratio <= most)),
            (None, Some(least), _) => Some(ratio.is_some_and(|ratio| ratio >= least)),
            (None, None, Some(most)) => Some(ours <= most),
            (None, None, None) => None,
        };
        let below =
            target.peak_mib.map(|most| peak.is_some_and(|peak| peak.service <= most && peak.client <= most));
        let met = match (within, below) {
            (None, None) => None,
            (within, below) => Some(within != Some(false) && below != Some(false)),
        };
        Self {
            name: name.into(),
            ours,
            limit,
            unit,
            ratio,
            better: if target.at_least.is_some() { "higher" } else { "lower" },
            target: target.ratio.or(target.at_least).or(target.ours),
            target_text: target.text(unit),
            met,
            peak_rss_mib: peak,
        }
    }
}

/// The middle one, or the mean of the two in the middle.
pub(crate) fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(rounded(f64::midpoint(sorted[middle - 1], sorted[middle]))),
    }
}

/// The value that this share of all is not above; zero of none.
pub(crate) fn percentile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Three digits behind the point: more is noise.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

impl Machine {
    /// This one, for so many rows and repetitions.
    pub(crate) fn here(rows: u64, repeat: u32) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':'))
                .map_or_else(String::new, |(_, value)| value.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let memory_kib: u64 = memory.trim_end_matches("kB").trim().parse().unwrap_or_default();
        Self {
            cpu: field(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_gib: memory_kib.div_ceil(1 << 20),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            rows,
            repeat,
        }
    }
}

impl Report {
    /// As a table.
    pub(crate) fn table(&self) -> String {
        let Machine { cpu, cores, memory_gib, kernel, rows, repeat } = &self.machine;
        let mut text = format!(
            "{cpu}, {cores} cores, {memory_gib} GiB, Linux {kernel}; {rows} rows, median of {repeat}\n\n"
        );
        let head = ["case", "ours", "limit", "unit", "ratio", "target", "", "service MiB", "client MiB"];
        let mut lines = vec![head.map(ToOwned::to_owned)];
        lines.extend(self.cases.iter().map(CaseReport::cells));
        let widths: Vec<_> = (0..head.len())
            .map(|cell| lines.iter().map(|line| line[cell].len()).max().unwrap_or(0))
            .collect();
        for line in &lines {
            for (place, (cell, width)) in line.iter().zip(&widths).enumerate() {
                let right = !matches!(place, 0 | 3 | 6);
                text.push_str(&if right { format!("{cell:>width$}  ") } else { format!("{cell:<width$}  ") });
            }
            text.truncate(text.trim_end_matches(' ').len());
            text.push('\n');
        }
        text
    }
}

impl CaseReport {
    fn cells(&self) -> [String; 9] {
        let number = |value: Option<f64>, digits: usize| {
            value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
        };
        let digits = if self.ours < 10.0 { 2 } else { 1 };
        let met = match self.met {
            Some(true) => "met",
            Some(false) => "missed",
            None => "",
        };
        [
            self.name.to_string(),
            number(Some(self.ours), digits),
            number(self.limit, digits),
            self.unit.to_owned(),
            number(self.ratio, 2),
            self.target_text.clone(),
            met.to_owned(),
            number(self.peak_rss_mib.map(|peak| peak.service), 1),
            number(self.peak_rss_mib.map(|peak| peak.client), 1),
        ]
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn case(ours: &[f64], limit: &[f64], target: Target) -> CaseReport {
        let samples = Samples { ours: ours.to_vec(), limit: limit.to_vec() };
        CaseReport::new("case", "s", samples, target, None)
    }

    #[test]
    fn a_case_is_judged_by_its_medians() {
        let report = case(&[9.0, 2.0, 3.0], &[1.0, 2.0, 50.0], Target::ratio(1.5));
        assert_eq!(
            (report.ours, report.limit, report.ratio, report.met),
            (3.0, Some(2.0), Some(1.5), Some(true))
        );
        assert_eq!(case(&[3.1], &[2.0], Target::ratio(1.5)).met, Some(false));
        assert_eq!(case(&[3.1], &[2.0], Target::NONE).met, None);
        assert_eq!(case(&[1.9], &[2.0], Target::at_least(0.9)).met, Some(true));
        assert_eq!(case(&[1.7], &[2.0], Target::at_least(0.9)).met, Some(false));
        assert_eq!(case(&[9.0], &[], Target::ours(10.0)).met, Some(true));
        assert_eq!(case(&[11.0], &[20.0], Target::ours(10.0)).met, Some(false));
        let bounded = Target { peak_mib: Some(3.0), ..Target::ratio(2.0) };
        assert_eq!(case(&[3.1], &[2.0], bounded).met, Some(false), "nobody has measured the memory");
        assert_eq!(case(&[1.0, 2.0], &[], Target::NONE).ours, 1.5);
    }

    #[test]
    fn the_document_has_the_agreed_names() {
        let report = Report { machine: Machine::here(1, 1), cases: vec![case(&[1.0], &[1.0], Target::NONE)] };
        let document = serde_json::to_value(&report).unwrap();
        assert!(document["machine"].is_object());
        let case = document["cases"][0].as_object().unwrap();
        let mut names =
            ["name", "figure", "ours", "limit", "unit", "ratio", "better", "target", "met", "peak_rss_mib"];
        names.sort_unstable();
        assert_eq!(case.keys().collect::<Vec<_>>(), names);
        assert!(report.table().lines().count() >= 4);
    }
}
