//! What the database says of its tables.

use rusqlite::{Connection, OptionalExtension as _};
use syncline::error::Result;

use super::conflict_clause::has_conflict_clause;
use super::errors::DatabaseResult as _;
use super::names;
use super::types::Affinity;

/// A table as the database describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CatalogTable {
    /// The name as it was written.
    pub(super) name: String,
    /// All columns, generated ones included.
    pub(super) columns: Vec<CatalogColumn>,
    /// The primary key's columns, in the key's order: places in `columns`, with their collations.
    pub(super) key: Vec<KeyPart>,
    /// Unique indexes, the primary key aside.
    pub(super) unique: Vec<UniqueIndex>,
    /// References to other tables.
    pub(super) references: Vec<Reference>,
    /// Whether a constraint has a conflict clause of its own (`ON CONFLICT REPLACE`, for example); not for ABORT, which
    /// holds without one.
    pub(super) has_conflict_clause: bool,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CatalogColumn {
    pub(super) name: String,
    pub(super) declared: String,
    pub(super) not_null: bool,
    pub(super) default: Option<String>,
    pub(super) generated: bool,
}

/// A column of the primary key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyPart {
    pub(super) column: usize,
    /// The collation of the key's index, by which keys are unique: the column's own may be another one.
    pub(super) collation: String,
    /// Whether the key has an index; else it is the rowid.
    pub(super) indexed: bool,
    /// Whether the database lets it be NULL (SQLite does, for primary keys of rowid tables).
    pub(super) nullable: bool,
}

/// A unique index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UniqueIndex {
    /// Columns with their collations; `None` for an expression.
    pub(super) columns: Option<Vec<(usize, String)>>,
    /// Whether only some rows are in it.
    pub(super) partial: bool,
}

/// A reference to another table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) columns: Vec<String>,
    pub(super) parent: String,
    /// Empty: the parent's primary key.
    pub(super) parent_columns: Vec<String>,
    /// Whether deleting or changing the parent changes the child.
    pub(super) has_action: bool,
    /// Whether changing the parent's referenced columns changes the child.
    pub(super) acts_on_update: bool,
    /// What deleting the parent does to the child.
    pub(super) on_delete: OnDelete,
}

/// What deleting a row does to a row that refers to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnDelete {
    /// It is refused as long as there is one, at once or at the end.
    Nothing,
    /// It is deleted too.
    Cascades,
    /// Its reference is set to NULL, or to its default.
    Clears,
}

/// What stands under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    /// A view or a virtual table.
    NotATable(&'static str),
    Table(CatalogTable),
}

impl CatalogTable {
    pub(super) fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))
    }

    pub(super) fn affinity(&self, column: usize) -> Affinity {
        Affinity::of(&self.columns[column].declared)
    }

    /// The parent's columns that a reference leads to, by name.
    pub(super) fn referenced<'a>(&'a self, reference: &'a Reference) -> Vec<&'a str> {
        if reference.parent_columns.is_empty() {
            self.key.iter().map(|part| self.columns[part.column].name.as_str()).collect()
        } else {
            reference.parent_columns.iter().map(String::as_str).collect()
        }
    }

    /// The collations of columns that references lead to, which SQLite compares by, whatever the child's are: those of the
    /// primary key or unique index over just these columns, without which they can't be referred to.
    /// (<https://sqlite.org/foreignkeys.html#fk_indexes>)
    pub(super) fn collations(&self, columns: &[&str]) -> Vec<String> {
        let key = self.key.iter().map(|part| (part.column, part.collation.clone())).collect();
        let unique =
            self.unique.iter().filter(|index| !index.partial).filter_map(|index| index.columns.clone());
        let places: Option<Vec<usize>> = columns.iter().map(|column| self.column(column)).collect();
        let places = places.unwrap_or_default();
        let of =
            |index: &[(usize, String)], place| index.iter().find(|(column, _)| *column == place).cloned();
        let mut covering = std::iter::once(key).chain(unique).filter_map(|index: Vec<_>| {
            let found: Vec<_> = places.iter().filter_map(|place| Some(of(&index, *place)?.1)).collect();
            (index.len() == places.len() && found.len() == places.len()).then_some(found)
        });
        covering.next().unwrap_or_else(|| vec!["BINARY".to_owned(); columns.len()])
    }
}

/// Looks a name up. Blocks.
pub(super) fn find(connection: &Connection, name: &str) -> Result<Found> {
    let found = connection
        .prepare_cached(
            "SELECT name, type, coalesce(sql, '') FROM main.sqlite_master \
             WHERE name = ?1 COLLATE NOCASE AND type IN ('table', 'view')",
        )
        .db()?
        .query_row([name], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        })
        .optional()
        .db()?;
    let Some((name, kind, sql)) = found else { return Ok(Found::Nothing) };
    if kind == "view" {
        return Ok(Found::NotATable("a view"));
    }
    if sql.trim_start().to_ascii_uppercase().starts_with("CREATE VIRTUAL") {
        return Ok(Found::NotATable("a virtual table"));
    }
    describe(connection, name, &sql).map(Found::Table)
}

fn describe(connection: &Connection, name: String, sql: &str) -> Result<CatalogTable> {
    let mut columns = Vec::new();
    let mut key_order = Vec::new();
    let mut statement = connection
        .prepare_cached(
            "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1) ORDER BY cid",
        )
        .db()?;
    let mut rows = statement.query([&name]).db()?;
    while let Some(row) = rows.next().db()? {
        let place: i64 = row.get(4).db()?;
        if place > 0 {
            key_order.push((place, columns.len()));
        }
        columns.push(CatalogColumn {
            name: row.get(0).db()?,
            declared: row.get::<_, Option<String>>(1).db()?.unwrap_or_default(),
            not_null: row.get(2).db()?,
            default: row.get(3).db()?,
            generated: row.get::<_, i64>(5).db()? >= 2,
        });
    }
    key_order.sort_unstable();
    let indexes = unique_indexes(connection, &name, &columns)?;
    let key_index = indexes.iter().find(|(origin, _)| origin == "pk").map(|(_, index)| index);
    let key = key_order
        .iter()
        .map(|&(_, column)| KeyPart {
            column,
            collation: key_collation(key_index, column),
            indexed: key_index.is_some(),
            // Without an index of its own the key is the rowid, which is never NULL.
            nullable: key_index.is_some() && !columns[column].not_null,
        })
        .collect();
    Ok(CatalogTable {
        references: references(connection, &name)?,
        unique: indexes.into_iter().filter(|(origin, _)| origin != "pk").map(|(_, index)| index).collect(),
        has_conflict_clause: has_conflict_clause(sql),
        name,
        columns,
        key,
    })
}

fn key_collation(index: Option<&UniqueIndex>, column: usize) -> String {
    let collation = index
        .and_then(|index| index.columns.as_ref())
        .and_then(|columns| columns.iter().find(|(place, _)| *place == column))
        .map(|(_, collation)| collation.clone());
    collation.unwrap_or_else(|| "BINARY".to_owned())
}

/// Unique indexes with their origin: `pk`, `u` for a constraint, `c` for CREATE INDEX.
fn unique_indexes(
    connection: &Connection,
    table: &str,
    columns: &[CatalogColumn],
) -> Result<Vec<(String, UniqueIndex)>> {
    let mut statement = connection
        .prepare_cached(
            "SELECT name, origin, partial FROM pragma_index_list(?1) WHERE \"unique\" = 1 ORDER BY name",
        )
        .db()?;
    let list = statement
        .query_map([table], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, bool>(2)?))
        })
        .db()?
        .collect::<rusqlite::Result<Vec<_>>>()
        .db()?;
    let mut indexes = Vec::new();
    for (name, origin, partial) in list {
        let mut statement = connection
            .prepare_cached("SELECT cid, coll FROM pragma_index_xinfo(?1) WHERE key = 1 ORDER BY seqno")
            .db()?;
        let parts = statement
            .query_map([&name], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))
            .db()?
            .collect::<rusqlite::Result<Vec<_>>>()
            .db()?;
        // -1 is the rowid, -2 an expression.
        let parts: Option<Vec<_>> = parts
            .into_iter()
            .map(|(column, collation)| {
                let column = usize::try_from(column).ok().filter(|column| *column < columns.len())?;
                Some((column, collation))
            })
            .collect();
        indexes.push((origin, UniqueIndex { columns: parts, partial }));
    }
    Ok(indexes)
}

fn references(connection: &Connection, table: &str) -> Result<Vec<Reference>> {
    let mut statement = connection
        .prepare_cached(
            "SELECT id, \"table\", \"from\", \"to\", on_update, on_delete FROM pragma_foreign_key_list(?1) \
             ORDER BY id, seq",
        )
        .db()?;
    let mut rows = statement.query([table]).db()?;
    let mut references: Vec<(i64, Reference)> = Vec::new();
    while let Some(row) = rows.next().db()? {
        let id: i64 = row.get(0).db()?;
        let acts = |action: &str| action != "NO ACTION" && action != "RESTRICT";
        let (on_update, on_delete) = (row.get::<_, String>(4).db()?, row.get::<_, String>(5).db()?);
        if references.last().is_none_or(|(last, _)| *last != id) {
            let reference = Reference {
                columns: Vec::new(),
                parent: row.get(1).db()?,
                parent_columns: Vec::new(),
                has_action: acts(&on_update) || acts(&on_delete),
                acts_on_update: acts(&on_update),
                on_delete: match on_delete.as_str() {
                    "CASCADE" => OnDelete::Cascades,
                    "SET NULL" | "SET DEFAULT" => OnDelete::Clears,
                    _ => OnDelete::Nothing,
                },
            };
            references.push((id, reference));
        }
        if let Some((_, reference)) = references.last_mut() {
            reference.columns.push(row.get(2).db()?);
            reference.parent_columns.extend(row.get::<_, Option<String>>(3).db()?);
        }
    }
    Ok(references.into_iter().map(|(_, reference)| reference).collect())
}

/// The names of all ordinary tables that are not ours. Blocks.
pub(super) fn user_tables(connection: &Connection) -> Result<Vec<String>> {
    Ok(names::tables(connection)?.into_iter().filter(|name| !names::is_own_table(name)).collect())
}

/// Whether the database has triggers of the user's own. Blocks.
pub(super) fn has_user_triggers(connection: &Connection) -> Result<bool> {
    Ok(names::triggers(connection)?.iter().any(|name| !names::is_own_trigger(name)))
}

/// Whether a table may refer to another: in the text of every table that does stands this word.
pub(super) fn may_have_references(connection: &Connection) -> Result<bool> {
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM main.sqlite_master WHERE type = 'table' AND sql LIKE '%REFERENCES%')",
        )
        .db()?
        .query_row([], |row| row.get(0))
        .db()
}

/// Whether our own tables are there.
pub(super) fn is_provisioned(connection: &Connection) -> Result<bool> {
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM main.sqlite_master WHERE name = 'syncline_state')")
        .db()?
        .query_row([], |row| row.get(0))
        .db()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn references_are_found_however_they_are_written() {
        let ways = [
            "CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER references parent)",
            "CREATE TABLE child (id INTEGER PRIMARY KEY, parent INTEGER, FOREIGN KEY(parent)REFERENCES\"parent\"(id))",
            "CREATE TABLE child (id INTEGER PRIMARY KEY); ALTER TABLE child ADD COLUMN parent REFERENCES parent (id)",
        ];
        for way in ways {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch("CREATE TABLE parent (id INTEGER PRIMARY KEY)").unwrap();
            assert!(!may_have_references(&connection).unwrap());
            connection.execute_batch(way).unwrap();
            assert!(may_have_references(&connection).unwrap(), "{way}");
        }
    }
}
