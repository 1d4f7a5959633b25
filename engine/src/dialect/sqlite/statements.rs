//! All dynamic SQL that reads and writes users' rows and our tables of them: pure functions over names.
//!
//! Names are quoted by [`quote`]; values are always bound.

use syncline::ids::TableId;

use super::catalog::KeyPart;

/// An identifier, quoted.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text literal, for DDL, where nothing can be bound.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Our tables of a tracked table.
pub(super) fn log(id: TableId) -> String {
    format!("syncline_log_{id}")
}

/// Hub: who wrote a row last.
pub(super) fn record(id: TableId) -> String {
    format!("syncline_record_{id}")
}

/// Hub: rows that left a filter.
pub(super) fn departure(id: TableId) -> String {
    format!("syncline_departure_{id}")
}

/// Leaf: rows that changed since they were acknowledged.
pub(super) fn dirty(id: TableId) -> String {
    format!("syncline_dirty_{id}")
}

/// Keys of rows that the statement under way may remove silently.
pub(super) fn noted(id: TableId) -> String {
    format!("syncline_noted_{id}")
}

/// `k1, k2, ...`: the key's columns in our tables, each after a prefix.
pub(super) fn key_names(prefix: &str, columns: usize) -> String {
    (1..=columns).map(|place| format!("{prefix}k{place}")).collect::<Vec<_>>().join(", ")
}

/// `k1 = ?1 AND k2 = ?2 ...` for our tables.
pub(super) fn key_is_bound(columns: usize) -> String {
    (1..=columns).map(|place| format!("k{place} = ?{place}")).collect::<Vec<_>>().join(" AND ")
}

/// A column of a table's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyName {
    /// The quoted name.
    pub(super) quoted: String,
    /// The collation of the key's index, quoted; `None`: the column is the rowid. Each comparison names it, as the
    /// column itself may be declared with another one: then `name = ?1` would not use the index, and find other rows.
    pub(super) collation: Option<String>,
}

impl KeyName {
    /// The name of a key's column as the database describes it.
    pub(super) fn of(column: &str, part: &KeyPart) -> Self {
        Self { quoted: quote(column), collation: part.indexed.then(|| quote(&part.collation)) }
    }

    /// `name = other`, exact to the byte: the first half finds the row by the key's index, the second tells keys apart
    /// that the index takes as equal.
    fn is(&self, prefix: &str, other: &str) -> String {
        let name = format!("{prefix}{}", self.quoted);
        match &self.collation {
            None => format!("{name} = {other}"),
            Some(collation) if collation.eq_ignore_ascii_case("\"BINARY\"") => {
                format!("{name} = {other} COLLATE BINARY")
            }
            Some(collation) => {
                format!("{name} = {other} COLLATE {collation} AND {name} = {other} COLLATE BINARY")
            }
        }
    }

    /// The expression or parameter, to be compared or put in order as the key's index does.
    fn collated(&self, expression: &str) -> String {
        match &self.collation {
            None => expression.to_owned(),
            Some(collation) => format!("{expression} COLLATE {collation}"),
        }
    }
}

/// The user's table, as statements name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableNames {
    /// The table, quoted.
    pub(super) table: String,
    /// The carried columns, quoted.
    pub(super) columns: Vec<String>,
    /// The key's columns, in the key's order.
    pub(super) key: Vec<KeyName>,
    /// ` OR ABORT` where a constraint has a conflict clause of its own, which else would remove rows silently.
    pub(super) conflict_clause: &'static str,
}

impl TableNames {
    /// `"a" = ?1 AND "b" = ?2`, exact to the byte.
    fn key_is(&self, first: usize) -> String {
        let parts =
            self.key.iter().enumerate().map(|(place, key)| key.is("", &format!("?{}", first + place)));
        parts.collect::<Vec<_>>().join(" AND ")
    }

    /// Reads all carried columns of one row; parameters: the key.
    pub(super) fn select_one(&self) -> String {
        format!("SELECT {} FROM {} WHERE {}", self.columns.join(", "), self.table, self.key_is(1))
    }

    /// Reads these columns of one row; parameters: the key.
    pub(super) fn select_columns(&self, columns: &[String]) -> String {
        format!("SELECT {} FROM {} WHERE {}", columns.join(", "), self.table, self.key_is(1))
    }

    /// Whether a row is there; parameters: the key.
    pub(super) fn exists(&self) -> String {
        format!("SELECT 1 FROM {} WHERE {}", self.table, self.key_is(1))
    }

    /// As [`key_is`](Self::key_is), of the table `b` and a table of ours `d`.
    fn key_is_joined(&self) -> String {
        let parts =
            self.key.iter().enumerate().map(|(place, key)| key.is("b.", &format!("d.k{}", place + 1)));
        parts.collect::<Vec<_>>().join(" AND ")
    }

    /// Reads a leaf's dirty rows that are there, in key order. Columns: all carried ones, the tick, changed_at, the tick
    /// of birth (0: none).
    pub(super) fn dirty_upserts(&self, id: TableId) -> String {
        let columns = self.columns.iter().map(|column| format!("b.{column}")).collect::<Vec<_>>().join(", ");
        // A cross join keeps its order: the few that are dirty, each with its row.
        format!(
            "SELECT {columns}, d.tick, d.changed_at, coalesce(d.birth, 0) \
             FROM {} d CROSS JOIN {} b ON {} ORDER BY {}",
            dirty(id),
            self.table,
            self.key_is_joined(),
            key_names("d.", self.key.len()),
        )
    }

    /// Reads a leaf's dirty rows that are not there, in key order. Columns: the key, the tick, changed_at, the tick of
    /// birth (0: none).
    pub(super) fn dirty_deletes(&self, id: TableId) -> String {
        let key = key_names("d.", self.key.len());
        format!(
            "SELECT {key}, d.tick, d.changed_at, coalesce(d.birth, 0) \
             FROM {} d WHERE NOT EXISTS (SELECT 1 FROM {} b WHERE {}) ORDER BY {key}",
            dirty(id),
            self.table,
            self.key_is_joined(),
        )
    }

    /// Reads all rows in key order; parameters: the key to go on after.
    pub(super) fn scan(&self, after: bool) -> String {
        let all = |with: &dyn Fn(usize, &KeyName) -> String| {
            self.key.iter().enumerate().map(|(at, key)| with(at, key)).collect::<Vec<_>>().join(", ")
        };
        let condition = if after {
            let key = all(&|_, key| key.quoted.clone());
            let bound = all(&|at, key| key.collated(&format!("?{}", at + 1)));
            format!(" WHERE ({key}) > ({bound})")
        } else {
            String::new()
        };
        let order = all(&|_, key| key.collated(&key.quoted));
        format!("SELECT {} FROM {}{condition} ORDER BY {order}", self.columns.join(", "), self.table)
    }

    /// Inserts a row of these carried columns, in this order.
    pub(super) fn insert(&self, columns: &[usize]) -> String {
        let names = columns.iter().map(|place| self.columns[*place].as_str()).collect::<Vec<_>>().join(", ");
        let bound = (1..=columns.len()).map(|place| format!("?{place}")).collect::<Vec<_>>().join(", ");
        format!("INSERT{} INTO {} ({names}) VALUES ({bound})", self.conflict_clause, self.table)
    }

    /// Sets these carried columns of one row; parameters: the columns, then the key.
    pub(super) fn update(&self, columns: &[usize]) -> String {
        let set = columns
            .iter()
            .enumerate()
            .map(|(place, column)| format!("{} = ?{}", self.columns[*column], place + 1));
        format!(
            "UPDATE{} {} SET {} WHERE {}",
            self.conflict_clause,
            self.table,
            set.collect::<Vec<_>>().join(", "),
            self.key_is(columns.len() + 1)
        )
    }

    /// Sets one column of one row to an expression of ours; parameters: the key.
    pub(super) fn set_expression(&self, column: &str, expression: &str) -> String {
        format!("UPDATE {} SET {column} = {expression} WHERE {}", self.table, self.key_is(1))
    }

    /// Removes one row; parameters: the key.
    pub(super) fn delete(&self) -> String {
        format!("DELETE FROM {} WHERE {}", self.table, self.key_is(1))
    }

    /// Reads the keys of all rows.
    pub(super) fn keys(&self) -> String {
        let key = self.key.iter().map(|key| key.quoted.as_str()).collect::<Vec<_>>().join(", ");
        format!("SELECT {key} FROM {}", self.table)
    }

    /// Reads the keys of the rows of another table `c` that refer to a row of this one, `p`; parameters: its key.
    pub(super) fn children(&self, child: &Self, refers: &str) -> String {
        let key = self.key.iter().enumerate().map(|(at, key)| key.is("p.", &format!("?{}", at + 1)));
        let columns = child.key.iter().map(|key| format!("c.{}", key.quoted)).collect::<Vec<_>>().join(", ");
        format!(
            "SELECT {columns} FROM {} p JOIN {} c ON {refers} WHERE {}",
            self.table,
            child.table,
            key.collect::<Vec<_>>().join(" AND ")
        )
    }

    /// Copies a row's key into a table of ours that holds it to the byte; parameters: the key.
    pub(super) fn copy_key(&self, ours: &str) -> String {
        format!("INSERT INTO {ours} {} ON CONFLICT DO NOTHING", self.select_key_plainly())
    }

    /// Removes a copied key; parameters: the key.
    pub(super) fn delete_copied(&self, ours: &str) -> String {
        format!(
            "DELETE FROM {ours} WHERE ({}) IN ({})",
            key_names("", self.key.len()),
            self.select_key_plainly()
        )
    }

    /// Reads the key of one row, without the columns' affinity; parameters: the key.
    fn select_key_plainly(&self) -> String {
        let key = self.key.iter().map(|key| format!("+{}", key.quoted)).collect::<Vec<_>>().join(", ");
        format!("SELECT {key} FROM {} WHERE {}", self.table, self.key_is(1))
    }

    /// Whether a row has NULL in its key; `nullable` says which of the key's columns may.
    pub(super) fn null_key(&self, nullable: &[bool]) -> Option<String> {
        let parts: Vec<_> = self
            .key
            .iter()
            .zip(nullable)
            .filter(|(_, nullable)| **nullable)
            .map(|(key, _)| format!("EXISTS (SELECT 1 FROM {} WHERE {} IS NULL)", self.table, key.quoted))
            .collect();
        (!parts.is_empty()).then(|| format!("SELECT {}", parts.join(" OR ")))
    }

    /// Whether the table has no rows.
    pub(super) fn is_empty(&self) -> String {
        format!("SELECT NOT EXISTS (SELECT 1 FROM {})", self.table)
    }
}

/// Reads the record of one row; parameters: the key.
pub(super) fn select_record(id: TableId, key_columns: usize) -> String {
    let record = record(id);
    format!("SELECT peer, tick, via, changed_at FROM {record} WHERE {}", key_is_bound(key_columns))
}

/// The keys of rows that an apply wrote for a leaf; parameters: replica number, tick, the leaf's number.
pub(super) fn recorded(id: TableId, key_columns: usize) -> String {
    let (record, key) = (record(id), key_names("", key_columns));
    format!("SELECT {key} FROM {record} WHERE peer = ?1 AND tick = ?2 AND via = ?3")
}

/// Writes the record of one row; parameters: the key, then peer, tick, via, origin, changed_at (which never goes back).
pub(super) fn upsert_record(id: TableId, key_columns: usize) -> String {
    let (record, key) = (record(id), key_names("", key_columns));
    let keys_bound = (1..=key_columns).map(|place| format!("?{place}")).collect::<Vec<_>>().join(", ");
    let [peer, tick, via, origin, changed_at] = [1, 2, 3, 4, 5].map(|place| key_columns + place);
    format!(
        "INSERT INTO {record} ({key}, peer, tick, via, origin, changed_at) \
         VALUES ({keys_bound}, ?{peer}, ?{tick}, ?{via}, ?{origin}, ?{changed_at}) \
         ON CONFLICT ({key}) DO UPDATE SET peer = excluded.peer, tick = excluded.tick, via = excluded.via, \
         origin = excluded.origin, changed_at = max(excluded.changed_at, {record}.changed_at + 1), resolved = 0"
    )
}

/// Records that a destination may lack, in key order: for each replica those above a tick. Parameters: replica number
/// and tick, `replicas` times, then the key to go on after. Columns: the key, peer, tick, origin, changed_at.
pub(super) fn records_above(id: TableId, key_columns: usize, replicas: usize, after: bool) -> String {
    let (record, key) = (record(id), key_names("", key_columns));
    let after = if after {
        let first = replicas * 2;
        let bound =
            (1..=key_columns).map(|place| format!("?{}", first + place)).collect::<Vec<_>>().join(", ");
        format!(" AND ({key}) > ({bound})")
    } else {
        String::new()
    };
    let parts = (0..replicas).map(|place| {
        format!(
            "SELECT {key}, peer, tick, origin, changed_at FROM {record} \
             WHERE peer = ?{} AND tick > ?{}{after}",
            place * 2 + 1,
            place * 2 + 2
        )
    });
    let order = (1..=key_columns).map(|place| place.to_string()).collect::<Vec<_>>().join(", ");
    format!("{} ORDER BY {order}", parts.collect::<Vec<_>>().join(" UNION ALL "))
}

/// Whether there are records of a replica above a tick, by the index; parameters: replica number, tick, echo, limit.
/// Columns: records looked at, those of another origin than `echo`.
pub(super) fn probe(id: TableId) -> String {
    format!(
        "SELECT count(*), coalesce(sum(origin <> ?3), 0) FROM (SELECT origin FROM {} INDEXED BY {} \
         WHERE peer = ?1 AND tick > ?2 LIMIT ?4)",
        record(id),
        quote(&format!("syncline_record_{id}_version"))
    )
}

/// Whether a log has entries.
pub(super) fn has_entries(id: TableId) -> String {
    format!("SELECT EXISTS (SELECT 1 FROM {})", log(id))
}

/// The numbers of a log's first and last entry; NULL if there are none. Each is found by its index alone.
pub(super) fn log_range(id: TableId) -> String {
    format!("SELECT (SELECT min(seq) FROM {log}), (SELECT max(seq) FROM {log})", log = log(id))
}

/// The keys that the log's entries are of. Columns: the key, how many entries, when last changed.
pub(super) fn log_by_key(id: TableId, key_columns: usize) -> String {
    let key = key_names("", key_columns);
    format!("SELECT {key}, count(*), max(changed_at) FROM {} GROUP BY {key}", log(id))
}

/// Empties a log.
pub(super) fn clear_log(id: TableId) -> String {
    format!("DELETE FROM {}", log(id))
}

/// How many dirty records a leaf's table has.
pub(super) fn count_dirty(id: TableId) -> String {
    format!("SELECT count(*) FROM {}", dirty(id))
}

/// Reads one dirty row; parameters: the key.
pub(super) fn select_dirty(id: TableId, key_columns: usize) -> String {
    let dirty = dirty(id);
    format!("SELECT tick, changed_at, coalesce(birth, 0) FROM {dirty} WHERE {}", key_is_bound(key_columns))
}

/// Removes one dirty record; parameters: the key.
pub(super) fn delete_dirty(id: TableId, key_columns: usize) -> String {
    format!("DELETE FROM {} WHERE {}", dirty(id), key_is_bound(key_columns))
}

/// Whether a dirty record is newer; parameter: the tick.
pub(super) fn any_dirty_after(id: TableId) -> String {
    format!("SELECT EXISTS (SELECT 1 FROM {} WHERE tick > ?1)", dirty(id))
}

/// Removes all dirty records.
pub(super) fn clear_dirty(id: TableId) -> String {
    format!("DELETE FROM {}", dirty(id))
}

/// Removes one dirty record if its tick is still the same; parameters: the key, the tick.
pub(super) fn acknowledge_dirty(id: TableId, key_columns: usize) -> String {
    let tick = key_columns + 1;
    format!("DELETE FROM {} WHERE {} AND tick = ?{tick}", dirty(id), key_is_bound(key_columns))
}

/// Corrects the birth of one dirty record; parameters: the key, whether it was born at its present tick.
pub(super) fn correct_birth(id: TableId, key_columns: usize) -> String {
    let born = key_columns + 1;
    format!("UPDATE {} SET birth = ?{born} * tick WHERE {}", dirty(id), key_is_bound(key_columns))
}

/// Gives one dirty record a new tick; parameters: the key, the tick, whether the row is born again at it.
pub(super) fn renew_dirty(id: TableId, key_columns: usize) -> String {
    let (tick, born) = (key_columns + 1, key_columns + 2);
    format!(
        "UPDATE {} SET tick = ?{tick}, birth = CASE WHEN ?{born} THEN ?{tick} ELSE birth END WHERE {}",
        dirty(id),
        key_is_bound(key_columns)
    )
}

/// Whether rows are dirty.
pub(super) fn has_dirty(id: TableId) -> String {
    format!("SELECT EXISTS (SELECT 1 FROM {})", dirty(id))
}

/// The number of rows of one of our tables, or of a log.
pub(super) fn count(table: &str) -> String {
    format!("SELECT count(*) FROM {table}")
}

/// Whether a referring row leads nowhere; parameters: its key.
pub(super) fn dangling(
    child: &TableNames,
    columns: &[String],
    parent: &str,
    parent_columns: &[String],
) -> String {
    let set = columns.iter().map(|column| format!("c.{column} IS NOT NULL"));
    let same = columns.iter().zip(parent_columns).map(|(column, parent)| format!("p.{parent} = c.{column}"));
    format!(
        "SELECT 1 FROM {} AS c WHERE {} AND {} AND NOT EXISTS (SELECT 1 FROM {parent} AS p WHERE {})",
        child.table,
        child.key_is(1),
        set.collect::<Vec<_>>().join(" AND "),
        same.collect::<Vec<_>>().join(" AND ")
    )
}

/// Whether rows refer to these values, by the collations of the columns that are referred to; parameters: the values.
pub(super) fn referred_to(child: &str, columns: &[String], collations: &[String]) -> String {
    let columns = columns.iter().zip(collations).enumerate();
    let same = columns.map(|(place, (column, collation))| {
        format!("{column} = ?{} COLLATE {}", place + 1, quote(collation))
    });
    format!("SELECT 1 FROM {child} WHERE {} LIMIT 1", same.collect::<Vec<_>>().join(" AND "))
}

/// The entries of a log after one; parameter: its number. Columns: the key, the entry's number.
pub(super) fn entries_after(id: TableId, key_columns: usize) -> String {
    format!("SELECT {}, seq FROM {} WHERE seq > ?1 ORDER BY seq", key_names("", key_columns), log(id))
}
