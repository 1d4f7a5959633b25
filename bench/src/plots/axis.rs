//! Where the marks of an axis are, and where a value lies on it.

use super::Scale;

/// Marks of an axis whose values are all positive: the first and the last are its ends.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Marks {
    scale: Scale,
    pub(super) values: Vec<f64>,
}

/// Marks of a linear axis, about.
const LINEAR_MARKS: f64 = 5.0;
/// A logarithmic axis that is longer has a mark for each power of ten alone.
const DECADES_FINE: f64 = 2.5;

impl Marks {
    /// Round numbers, below and above all that is shown.
    pub(super) fn round(scale: Scale, shown: impl Iterator<Item = f64> + Clone) -> Self {
        let least = shown.clone().fold(f64::INFINITY, f64::min).max(1e-9);
        let most = shown.fold(0.0, f64::max).max(least);
        let values = match scale {
            Scale::Linear => {
                let step = step_above(most / LINEAR_MARKS);
                let count = (most / step).ceil().max(1.0) as u32;
                (0..=count).map(|mark| f64::from(mark) * step).collect()
            }
            Scale::Logarithmic => powers(least, most),
        };
        Self { scale, values }
    }

    /// The measured values themselves, ascending, with some room at both ends.
    pub(super) fn measured(scale: Scale, shown: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = shown.collect();
        values.sort_unstable_by(f64::total_cmp);
        values.dedup();
        Self { scale, values }
    }

    /// From 0, where the first mark is, to 1, where the last is.
    pub(super) fn place(&self, value: f64) -> f64 {
        let on_scale = |value: f64| if self.scale == Scale::Linear { value } else { value.log10() };
        let ends = (self.values.first(), self.values.last());
        let (Some(first), Some(last)) = (ends.0.copied().map(on_scale), ends.1.copied().map(on_scale)) else {
            return 0.0;
        };
        if last > first { (on_scale(value) - first) / (last - first) } else { 0.5 }
    }
}

/// 1, 2 or 5 times a power of ten, not less than this.
fn step_above(value: f64) -> f64 {
    let power = 10.0_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| *step >= value).unwrap_or(value)
}

fn powers(least: f64, most: f64) -> Vec<f64> {
    let digits: &[f64] = if (most / least).log10() < DECADES_FINE { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let first = least.log10().floor() as i32;
    let last = most.log10().ceil() as i32;
    let all = (first..=last).flat_map(|power| digits.iter().map(move |digit| digit * 10.0_f64.powi(power)));
    let all: Vec<f64> = all.collect();
    let from = all.iter().rposition(|mark| *mark <= least * 1.000_001).unwrap_or(0);
    let to = all.iter().position(|mark| *mark >= most * 0.999_999).unwrap_or(all.len() - 1);
    all[from..=to.max(from + 1).min(all.len() - 1)].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(scale: Scale, shown: &[f64]) -> Vec<f64> {
        Marks::round(scale, shown.iter().copied()).values
    }

    #[test]
    fn marks_are_round_and_hold_all_values() {
        assert_eq!(round(Scale::Linear, &[3.0, 47.0]), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
        assert_eq!(round(Scale::Logarithmic, &[3.0, 47.0]), [2.0, 5.0, 10.0, 20.0, 50.0]);
        assert_eq!(round(Scale::Logarithmic, &[3.0, 4_700.0]), [1.0, 10.0, 100.0, 1_000.0, 10_000.0]);
        assert_eq!(round(Scale::Logarithmic, &[10.0]), [10.0, 20.0]);
    }

    #[test]
    fn values_lie_between_the_ends() {
        let marks = Marks::round(Scale::Logarithmic, [1.0, 100.0].into_iter());
        assert_eq!([1.0, 10.0, 100.0].map(|value| marks.place(value)), [0.0, 0.5, 1.0]);
        assert_eq!(Marks::measured(Scale::Linear, [4.0].into_iter()).place(4.0), 0.5);
    }
}
