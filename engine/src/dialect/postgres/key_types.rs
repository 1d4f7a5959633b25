//! Which columns may be keys: those whose equality is that of their canonical bytes.
//!
//! A key is its bytes to everyone but this database: records, tombstones and leaves compare nothing else. Where the
//! column takes two different texts for the same key (citext, 1.0 and 1.00), a change from one to the other is no
//! change of the row here and another row there, which then is gone for all leaves. Where the column keeps another text
//! than it was given (char(n), time stamps that are rounded), a leaf's row comes back as a second one.

use super::catalog::CatalogColumn;

/// Why a column can't be a key, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyProblem {
    /// What is wrong, after `column "x" can't be a key: `.
    pub(super) what: String,
    /// What would be right.
    pub(super) remedy: &'static str,
}

/// Why the column can't be a key, if it can't.
pub(super) fn key_problem(column: &CatalogColumn) -> Option<KeyProblem> {
    let problem = |what: &str, remedy| {
        Some(KeyProblem { what: format!("its type is {}, {what}", column.declared), remedy })
    };
    if !column.deterministic {
        let what = "its collation takes different texts for equal".to_owned();
        return Some(KeyProblem { what, remedy: "give it a deterministic collation" });
    }
    if column.type_kind == "e" {
        return None;
    }
    if !column.built_in {
        let what = "which is not one of PostgreSQL's own and may take different values for equal";
        return problem(what, "use text, or another built-in type");
    }
    // Times are exact to the microsecond without a precision, and with this one.
    let rounds = !matches!(column.modifier, -1 | 6);
    match column.type_name.as_str() {
        "bool" | "int2" | "int4" | "int8" | "oid" | "float8" | "text" | "varchar" | "name" | "bytea"
        | "date" | "uuid" | "inet" | "cidr" | "macaddr" | "macaddr8" | "bit" | "varbit" => None,
        "time" | "timestamp" | "timestamptz" if !rounds => None,
        "time" | "timestamp" | "timestamptz" => {
            problem("which rounds what leaves send", "leave out its precision")
        }
        "numeric" if column.modifier >= 0 => None,
        "numeric" => problem("where 1.0 and 1.00 are equal", "give it a precision: numeric(12,2)"),
        "bpchar" => problem("which pads what leaves send", "use varchar or text"),
        "float4" => problem("which rounds what leaves send", "use double precision"),
        "json" | "jsonb" => problem("which is a document", "use another key"),
        _ => problem("which may take different texts for equal", "use text, or another key"),
    }
}
