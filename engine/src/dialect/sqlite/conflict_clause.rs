//! Whether a table's definition says what becomes of rows that break a constraint (`UNIQUE ON CONFLICT REPLACE`). No
//! pragma tells: so the text is read, word by word.

/// Whether a constraint of this `CREATE TABLE` has a conflict clause, other than ABORT, which is what holds without one.
pub(super) fn has_conflict_clause(sql: &str) -> bool {
    let (mut before, mut last) = ("", "");
    for word in (Words { rest: sql }) {
        let clause = ["ROLLBACK", "FAIL", "IGNORE", "REPLACE"];
        if before.eq_ignore_ascii_case("ON")
            && last.eq_ignore_ascii_case("CONFLICT")
            && clause.iter().any(|clause| word.eq_ignore_ascii_case(clause))
        {
            return true;
        }
        (before, last) = (last, word);
    }
    false
}

/// The tokens of a statement as far as they matter here: words; and each other character, literal or quoted name as one.
/// Comments and blanks only part them. (<https://sqlite.org/lang_comment.html>, <https://sqlite.org/lang_keywords.html>)
struct Words<'s> {
    rest: &'s str,
}

impl<'s> Iterator for Words<'s> {
    type Item = &'s str;

    fn next(&mut self) -> Option<&'s str> {
        loop {
            self.rest = self.rest.trim_start();
            let comment = if self.rest.starts_with("--") {
                self.rest.find('\n')
            } else if self.rest.starts_with("/*") {
                self.rest[2..].find("*/").map(|end| end + 3)
            } else {
                break;
            };
            self.rest = comment.map_or("", |end| &self.rest[end + 1..]);
        }
        let first = self.rest.chars().next()?;
        let end = match first {
            '\'' | '"' | '`' => quoted(self.rest, first),
            '[' => self.rest.find(']').map_or(self.rest.len(), |end| end + 1),
            _ if is_of_word(first) => self.rest.find(|next| !is_of_word(next)).unwrap_or(self.rest.len()),
            _ => first.len_utf8(),
        };
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Some(word)
    }
}

fn is_of_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '$') || !character.is_ascii()
}

/// Where what begins with this quotation mark ends: a doubled one stands for itself.
fn quoted(text: &str, mark: char) -> usize {
    let mut at = 1;
    while let Some(next) = text[at..].find(mark) {
        at += next + 1;
        if !text[at..].starts_with(mark) {
            return at;
        }
        at += 1;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clause_is_found_however_it_is_written() {
        for clause in [
            "ON CONFLICT REPLACE",
            "on conflict ignore",
            "ON\tCONFLICT\n  FAIL",
            "ON/**/CONFLICT/* so */REPLACE",
            "ON -- when\n CONFLICT ROLLBACK",
        ] {
            let sql = format!("CREATE TABLE t (id INTEGER PRIMARY KEY, \"it's\" TEXT UNIQUE {clause}, n)");
            assert!(has_conflict_clause(&sql), "{sql}");
        }
    }

    #[test]
    fn what_is_no_clause_is_not_taken_for_one() {
        for sql in [
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE)",
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a UNIQUE ON CONFLICT ABORT)",
            "CREATE TABLE t (id INTEGER PRIMARY KEY /* ON CONFLICT REPLACE */, a)",
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a -- ON CONFLICT REPLACE\n, b)",
            "CREATE TABLE t (id INTEGER PRIMARY KEY, a DEFAULT 'it''s ON CONFLICT REPLACE')",
            "CREATE TABLE t (id INTEGER PRIMARY KEY, \"ON CONFLICT REPLACE\", [ON CONFLICT IGNORE], `ON`, conflict)",
            "CREATE TABLE t (id INTEGER /*/ ON CONFLICT REPLACE */, a)",
            "CREATE TABLE t (id INTEGER /* never ended ON CONFLICT REPLACE",
            "CREATE TABLE t (id DEFAULT 'never ended ON CONFLICT REPLACE",
        ] {
            assert!(!has_conflict_clause(sql), "{sql}");
        }
    }
}
