//! Reads values out of a TOML document, and notes every problem on the way instead of stopping at the first.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::nearest::nearest;
use super::{Problem, Spanned};

/// A value with its place.
pub(super) type Item<'t> = toml::Spanned<DeValue<'t>>;

/// A key that a table may hold.
pub(super) struct Known {
    /// Where it may stand, for people.
    pub(super) place: &'static str,
    /// The keys.
    pub(super) keys: &'static [&'static str],
}

/// Collects problems.
#[derive(Default)]
pub(super) struct Reader {
    problems: Vec<Problem>,
}

impl Reader {
    /// The problems, in the order of the file.
    pub(super) fn into_problems(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| (problem.span.start, problem.span.end));
        self.problems
    }

    pub(super) fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Notes a problem.
    pub(super) fn problem(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.problems.push(Problem { span, message: message.into(), remedy: remedy.into() });
    }

    /// Notes every key of the table that is not among the known ones.
    pub(super) fn refuse_unknown_keys(&mut self, table: &DeTable<'_>, known: &Known) {
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if known.keys.contains(&name) {
                continue;
            }
            let remedy = nearest(name, known.keys.iter().copied()).map_or_else(
                || format!("remove it; known here are {}", known.keys.join(", ")),
                |meant| format!("did you mean `{meant}`?"),
            );
            self.problem(key.span(), format!("unknown key `{name}` in {}", known.place), remedy);
        }
    }

    /// A text of the table, if it is there.
    pub(super) fn text(&mut self, table: &DeTable<'_>, key: &str) -> Option<Spanned<String>> {
        let item = table.get(key)?;
        self.item_text(item, &format!("`{key}`"))
    }

    /// An item that must be a text.
    pub(super) fn item_text(&mut self, item: &Item<'_>, what: &str) -> Option<Spanned<String>> {
        let Some(text) = item.get_ref().as_str() else {
            self.wrong_type(item, what, "a text in quotes");
            return None;
        };
        Some(Spanned { value: text.to_owned(), span: item.span() })
    }

    /// A text of the table that stands for one of some choices, if it is there. `choices` names them for people.
    pub(super) fn choice<T>(
        &mut self,
        table: &DeTable<'_>,
        key: &str,
        choices: &[&str],
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Spanned<T>> {
        let text = self.text(table, key)?;
        self.chosen(text, &format!("`{key}`"), choices, parse)
    }

    /// A text that stands for one of some choices.
    pub(super) fn chosen<T>(
        &mut self,
        text: Spanned<String>,
        what: &str,
        choices: &[&str],
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Spanned<T>> {
        let Spanned { value, span } = text;
        if let Some(value) = parse(&value) {
            return Some(Spanned { value, span });
        }
        let remedy = nearest(&value, choices.iter().copied()).map_or_else(
            || format!("use one of {}", choices.join(", ")),
            |meant| format!("did you mean \"{meant}\"?"),
        );
        self.problem(span, format!("{what} can't be \"{value}\""), remedy);
        None
    }

    /// Notes that an item has the wrong type.
    pub(super) fn wrong_type(&mut self, item: &Item<'_>, what: &str, wanted: &str) {
        let found = item.get_ref().type_str();
        self.problem(item.span(), format!("{what} must be {wanted}, not {found}"), format!("write {wanted}"));
    }
}
