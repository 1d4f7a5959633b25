//! A table of a scope as this database holds it: what statements need to know.

use bytes::Bytes;
use rusqlite::Connection;
use rusqlite::types::{ToSqlOutput, ValueRef};
use syncline::batch::Block;
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::{ColumnId, TableId};
use syncline::knowledge::RowKey;
use syncline::schema::TableSchema;
use syncline::value::{CanonicalType, Cell, Value, key_bytes, key_cells, row_json};

use super::catalog::{self, CatalogTable, Found};
use super::errors::{null_in_key, tracking_broken};
use super::statements::{self, KeyName, TableNames, quote};
use super::types::{Affinity, Form, Unstorable, as_ref, keeps_key, single_value, stored};

/// A table of a scope in this database.
#[derive(Debug, Clone)]
pub(super) struct TablePlan {
    /// The number that batches carry: the hub's.
    pub(super) id: TableId,
    /// The number that names our tables of it in this database. At a hub it is the same.
    pub(super) local: TableId,
    /// The name in this database, as people know it.
    pub(super) name: String,
    pub(super) names: TableNames,
    /// Reads all carried columns of one row; parameters: the key. Made once, as it is run for every row of an apply.
    pub(super) select_one: String,
    /// The same for its record at a hub.
    pub(super) select_record: String,
    /// Writes that record.
    pub(super) upsert_record: String,
    /// The carried columns, in the schema's order.
    pub(super) columns: Vec<ColumnPlan>,
    /// The key's columns: places in `columns`, in the key's order.
    pub(super) key: Vec<usize>,
    /// What the database says of the table.
    pub(super) catalog: CatalogTable,
}

/// A carried column.
#[derive(Debug, Clone)]
pub(super) struct ColumnPlan {
    pub(super) id: ColumnId,
    pub(super) name: String,
    pub(super) form: Form,
    /// Whether the database refuses NULL in it.
    pub(super) not_null: bool,
}

/// A row's key: what is bound to find it, and its canonical bytes.
pub(super) struct BoundKey<'a> {
    pub(super) values: Vec<ToSqlOutput<'a>>,
    pub(super) bytes: Bytes,
}

impl TablePlan {
    /// The plan of a table that must be there. Blocks.
    ///
    /// # Errors
    /// TRACKING_BROKEN if the table or one of its columns is gone.
    pub(super) fn load(connection: &Connection, schema: &TableSchema, name: &str) -> Result<Self> {
        match catalog::find(connection, name)? {
            Found::Table(table) => Self::new(schema, table),
            Found::NotATable(kind) => Err(tracking_broken(name, &format!("it is {kind} now"))),
            Found::Nothing => Err(tracking_broken(name, "it is gone")),
        }
    }

    /// The plan of a table over what the database says of it.
    pub(super) fn new(schema: &TableSchema, catalog: CatalogTable) -> Result<Self> {
        let mut columns = Vec::with_capacity(schema.columns.len());
        let mut quoted = Vec::with_capacity(schema.columns.len());
        for column in &schema.columns {
            let Some(place) = catalog.column(&column.name) else {
                return Err(tracking_broken(&catalog.name, &format!("column \"{}\" is gone", column.name)));
            };
            let form = Form {
                ty: column.ty,
                affinity: catalog.affinity(place),
                scale: column.precision_scale.map(|(_, scale)| scale),
            };
            quoted.push(quote(&catalog.columns[place].name));
            let not_null = catalog.columns[place].not_null;
            columns.push(ColumnPlan { id: column.id, name: column.name.clone(), form, not_null });
        }
        let key: Vec<usize> = schema.key.iter().filter_map(|id| schema.column_index(*id)).collect();
        let same_key = key.len() == catalog.key.len()
            && key.iter().zip(&catalog.key).all(|(place, part)| {
                columns[*place].name.eq_ignore_ascii_case(&catalog.columns[part.column].name)
            });
        if !same_key {
            return Err(tracking_broken(&catalog.name, "its primary key is another one"));
        }
        let key_names = catalog.key.iter().map(|part| KeyName::of(&catalog.columns[part.column].name, part));
        let names = TableNames {
            table: quote(&catalog.name),
            key: key_names.collect(),
            columns: quoted,
            conflict_clause: if catalog.has_conflict_clause { " OR ABORT" } else { "" },
        };
        Ok(Self {
            id: schema.id,
            local: schema.id,
            name: catalog.name.clone(),
            select_one: names.select_one(),
            select_record: statements::select_record(schema.id, key.len()),
            upsert_record: statements::upsert_record(schema.id, key.len()),
            names,
            columns,
            key,
            catalog,
        })
    }

    /// The number of key columns.
    pub(super) fn key_columns(&self) -> usize {
        self.key.len()
    }

    /// The place of a column among the carried ones.
    pub(super) fn column_index(&self, id: ColumnId) -> Option<usize> {
        self.columns.iter().position(|column| column.id == id)
    }

    /// The place of a column of this name among the carried ones.
    pub(super) fn column_named(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// The row's name in knowledge.
    pub(super) fn row_key(&self, bytes: Bytes) -> RowKey {
        RowKey { table: self.id, key: bytes }
    }

    /// The canonical bytes of a key from its stored values.
    ///
    /// # Errors
    /// TRACKING_BROKEN for NULL, ROW_INVALID for text that is not UTF-8.
    pub(super) fn key_bytes<'a>(&self, values: impl Iterator<Item = ValueRef<'a>>) -> Result<Bytes> {
        let values = self.key_values(values)?;
        key_bytes(values.iter().map(Value::cell)).map_err(|_| null_in_key(&self.name))
    }

    /// A key's values from its stored values.
    pub(super) fn key_values<'a>(&self, values: impl Iterator<Item = ValueRef<'a>>) -> Result<Vec<Value>> {
        let forms = self.key.iter().map(|place| self.columns[*place].form);
        forms
            .zip(values)
            .map(|(form, value)| single_value(form, value).ok_or_else(|| self.key_not_utf8()))
            .collect()
    }

    /// The key of a block's row. The outer error is the sender's fault, the inner one a value that this database has no
    /// place for.
    pub(super) fn block_key<'a>(
        &self,
        block: &'a Block,
        row: usize,
    ) -> Result<Result<BoundKey<'a>, Unstorable>> {
        let mut values = Vec::with_capacity(self.key.len());
        for place in &self.key {
            let column = &self.columns[*place];
            let cell = block.cell(column.id, row);
            if cell.is_null() {
                return Err(row_invalid(&self.name, "a row has NULL in its key"));
            }
            match stored(column.form, cell) {
                Ok(value) if keeps_key(column.form, as_ref(&value)) => values.push(value),
                Ok(_) => return Ok(Err(Unstorable::OtherKey)),
                Err(problem) => return Ok(Err(problem)),
            }
        }
        let bytes = self.key_bytes(values.iter().map(as_ref))?;
        Ok(Ok(BoundKey { values, bytes }))
    }

    /// A key from its canonical bytes, as it is bound.
    ///
    /// # Errors
    /// REQUEST_INVALID if the bytes are no key of this table.
    pub(super) fn parse_key(&self, bytes: &[u8]) -> Result<Vec<Value>> {
        let wrong = || SyncError::invalid("key", format!("is no key of table \"{}\"", self.name));
        let values = key_cells(bytes).map_err(|_| wrong())?;
        if values.len() == self.key.len() { Ok(values) } else { Err(wrong()) }
    }

    /// The values of [`parse_key`](Self::parse_key), as they are bound.
    pub(super) fn bind_key<'v>(&self, values: &'v [Value]) -> Result<Vec<ToSqlOutput<'v>>> {
        self.key
            .iter()
            .zip(values)
            .map(|(place, value)| {
                stored(self.columns[*place].form, value.cell())
                    .map_err(|problem| SyncError::invalid("key", problem.to_string()))
            })
            .collect()
    }

    /// Whether every key of the table is stored as it comes, so that its record can be written under the key that came.
    pub(super) fn keeps_keys(&self) -> bool {
        use CanonicalType as T;
        self.key.iter().all(|place| {
            let Form { ty, affinity, .. } = self.columns[*place].form;
            let whole = matches!(ty, T::Bool | T::Int64 | T::Uint64) && affinity != Affinity::Real;
            // Texts that can't be read as numbers.
            let text = matches!(ty, T::Uuid | T::Date | T::Time | T::Timestamp | T::Timestamptz | T::Bytes);
            whole || text || matches!(affinity, Affinity::Text | Affinity::Blob)
        })
    }

    /// Whether a row that is found by these values has just them as its key: a column without a type takes 5 for 5.0.
    pub(super) fn tells_keys_apart(&self, values: &[ToSqlOutput<'_>]) -> bool {
        self.key.iter().zip(values).all(|(place, value)| {
            let affinity = self.columns[*place].form.affinity;
            let number = matches!(as_ref(value), ValueRef::Integer(_) | ValueRef::Real(_));
            affinity.keeps(as_ref(value)) && !(number && affinity == Affinity::Blob)
        })
    }

    /// A key as a JSON object, from its canonical bytes.
    pub(super) fn key_json(&self, bytes: &[u8]) -> String {
        let values = key_cells(bytes).unwrap_or_default();
        let names = self.key.iter().map(|place| self.columns[*place].name.as_str());
        row_json(names.zip(values.iter().map(Value::cell))).to_string()
    }

    /// A row as a JSON object, from the stored values of all carried columns.
    pub(super) fn row_json(&self, values: &[rusqlite::types::Value]) -> serde_json::Value {
        let cells: Vec<Value> = self
            .columns
            .iter()
            .zip(values)
            .map(|(column, value)| single_value(column.form, value.into()).unwrap_or(Value::Null))
            .collect();
        row_json(self.columns.iter().map(|column| column.name.as_str()).zip(cells.iter().map(Value::cell)))
    }

    /// A block's row as a JSON object.
    pub(super) fn block_row_json(&self, block: &Block, row: usize) -> serde_json::Value {
        let cells = self.columns.iter().filter_map(|column| {
            let cells = block.column(column.id)?;
            Some((column.name.as_str(), cells.cell(row)))
        });
        row_json(cells)
    }

    fn key_not_utf8(&self) -> SyncError {
        let problem =
            "the key of a row is text that is not UTF-8; correct it, store it as a blob, or delete the row";
        row_invalid(&self.name, problem)
    }

    /// Whether a stored value and an incoming cell are the same canonical value for the column.
    pub(super) fn same_cell(&self, place: usize, held: ValueRef<'_>, incoming: Cell<'_>) -> bool {
        let form = self.columns[place].form;
        let Ok(bound) = stored(form, incoming) else { return false };
        let any = Form { ty: CanonicalType::Any, ..form };
        let typed = single_value(form, held) == single_value(form, as_ref(&bound));
        // A number in a column that keeps numbers as reals is the same number, whichever way it was bound.
        typed || single_value(any, held) == single_value(any, as_ref(&bound))
    }
}

/// A row of a batch is wrong: nothing is applied.
pub(super) fn row_invalid(table: &str, problem: &str) -> SyncError {
    SyncError::new(ErrorReason::RowInvalid, format!("table \"{table}\": {problem}")).with("table", table)
}
