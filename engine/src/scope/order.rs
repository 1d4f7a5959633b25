//! The order in which tables are written: parents before the tables that refer to them, as far as cycles allow.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Orders the tables `0..tables` so that parents come before the tables that refer to them; `references` are pairs of
/// (referring table, table referred to). References inside a cycle, to the table itself included, do not count: all
/// others hold. Tables between which nothing decides keep their order, so the answer depends on nothing but the input.
///
/// References that name no table of `0..tables` are passed over.
#[must_use]
pub fn parents_first(tables: usize, references: &[(usize, usize)]) -> Vec<usize> {
    let mut children = vec![Vec::new(); tables];
    let mut parents_open = vec![0_usize; tables];
    for (reference, cyclic) in references.iter().zip(in_cycle(tables, references)) {
        let (child, parent) = *reference;
        if !cyclic && child < tables && parent < tables {
            children[parent].push(child);
            parents_open[child] += 1;
        }
    }
    let mut ready: BinaryHeap<_> =
        (0..tables).filter(|table| parents_open[*table] == 0).map(Reverse).collect();
    let mut ordered = Vec::with_capacity(tables);
    while let Some(Reverse(table)) = ready.pop() {
        ordered.push(table);
        for child in &children[table] {
            parents_open[*child] -= 1;
            if parents_open[*child] == 0 {
                ready.push(Reverse(*child));
            }
        }
    }
    // Without the references inside cycles no cycle is left, so nothing stays open.
    debug_assert_eq!(ordered.len(), tables);
    ordered
}

/// Says of each reference whether it lies inside a cycle (a self reference does): no order of the tables satisfies all
/// of those, so their rows may need a second pass.
#[must_use]
pub fn in_cycle(tables: usize, references: &[(usize, usize)]) -> Vec<bool> {
    let mut parents = vec![Vec::new(); tables];
    for (child, parent) in references {
        if *child < tables && *parent < tables {
            parents[*child].push(*parent);
        }
    }
    let mut reached_from = BTreeMap::new();
    references
        .iter()
        .map(|(child, parent)| {
            if *child >= tables || *parent >= tables {
                return false;
            }
            let reached: &Vec<bool> =
                reached_from.entry(*parent).or_insert_with(|| ancestors_and_self(&parents, *parent));
            reached[*child]
        })
        .collect()
}

/// Which tables are reached by following references from `start` on, `start` included.
fn ancestors_and_self(parents: &[Vec<usize>], start: usize) -> Vec<bool> {
    let mut reached = vec![false; parents.len()];
    let mut waiting = vec![start];
    while let Some(table) = waiting.pop() {
        if !std::mem::replace(&mut reached[table], true) {
            waiting.extend(&parents[table]);
        }
    }
    reached
}
