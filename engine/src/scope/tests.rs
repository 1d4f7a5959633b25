//! What scope files are taken and refused for, and the order of tables.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use syncline::schema::{ConflictPolicy, Direction, RowErrorPolicy};
use syncline::value::CanonicalType;

use super::*;

const FULL: &str = r#"
name = "shop"
conflict = "client_wins"
row_errors = "abort"

[[tables]]
name = "public.customer"
columns = ["id", "name"]
types = { name = "any" }
direction = "download"
conflict = "last_writer_wins"

[[tables]]
name = "sales.order"
as = "orders"
"#;

#[test]
fn a_full_file_says_what_it_says() {
    let scope = parse(FULL).unwrap();
    assert_eq!(scope.name.as_str(), "shop");
    assert_eq!(scope.conflict_policy, ConflictPolicy::ClientWins);
    assert_eq!(scope.row_error_policy, RowErrorPolicy::Abort);
    let [customer, order] = &scope.tables[..] else { panic!("two tables") };
    assert_eq!(customer.name.value, "public.customer");
    assert_eq!(&FULL[customer.name.span.clone()], "\"public.customer\"");
    let columns = customer.columns.as_ref().unwrap();
    assert_eq!(columns.iter().map(|column| column.value.as_str()).collect::<Vec<_>>(), ["id", "name"]);
    assert_eq!(&FULL[columns[1].span.clone()], "\"name\"");
    assert_eq!(customer.types["name"].value, CanonicalType::Any);
    assert_eq!(customer.direction, Direction::Download);
    assert_eq!(customer.conflict_policy, Some(ConflictPolicy::LastWriterWins));
    assert_eq!(order.leaf_name.as_ref().unwrap().value, "orders");
    assert_eq!((order.direction, order.conflict_policy), (Direction::Both, None));
}

#[test]
fn a_short_file_has_defaults() {
    let scope = parse("name = \"s\"\n[[tables]]\nname = \"t\"").unwrap();
    assert_eq!(scope.conflict_policy, ConflictPolicy::ServerWins);
    assert_eq!(scope.row_error_policy, RowErrorPolicy::Skip);
    assert!(scope.tables[0].columns.is_none() && scope.tables[0].types.is_empty());
}

fn problems(text: &str) -> Vec<Problem> {
    match parse(text) {
        Err(DefineError::Problems(problems)) => problems,
        other => panic!("should be refused: {other:?}"),
    }
}

/// The file is refused for exactly one problem: this part of it, with this message and this remedy.
fn check(text: &str, part: &str, message: &str, remedy: &str) {
    let found = problems(text);
    let [problem] = &found[..] else { panic!("one problem in {text}: {found:#?}") };
    assert_eq!(&text[problem.span.clone()], part, "{text}");
    assert_eq!((problem.message.as_str(), problem.remedy.as_str()), (message, remedy), "{text}");
}

/// One table with these lines.
fn check_table(lines: &str, part: &str, message: &str, remedy: &str) {
    check(&format!("name = \"s\"\n[[tables]]\n{lines}"), part, message, remedy);
}

#[test]
fn what_is_wrong_with_the_scope_is_said_with_its_place() {
    let table = "[[tables]]\nname = \"t\"\n";
    let with = |line: &str| format!("name = \"s\"\n{line}\n{table}");
    check(table, "", "the scope has no name", "begin the file with `name = \"...\"`");
    check(
        &format!("name = \"a b\"\n{table}"),
        "\"a b\"",
        "scope name: may hold letters, digits, '_', '-' and '.', and must not begin with '-' or '.'",
        "choose a name like \"shop\" or \"shop-2.eu\"",
    );
    check(
        &format!("name = 7\n{table}"),
        "7",
        "`name` must be a text in quotes, not integer",
        "write a text in quotes",
    );
    check(
        &with("confict = \"server_wins\""),
        "confict",
        "unknown key `confict` in a scope file",
        "did you mean `conflict`?",
    );
    check(
        &with("colour = 1"),
        "colour",
        "unknown key `colour` in a scope file",
        "remove it; known here are name, conflict, row_errors, params, tables",
    );
    check(
        &with("conflict = \"server_win\""),
        "\"server_win\"",
        "`conflict` can't be \"server_win\"",
        "did you mean \"server_wins\"?",
    );
    for policy in ["merge_columns", "custom"] {
        check(
            &with(&format!("conflict = \"{policy}\"")),
            &format!("\"{policy}\""),
            &format!("the conflict policy \"{policy}\" is not supported by this version"),
            "use one of server_wins, client_wins, last_writer_wins",
        );
    }
    check(
        &with("row_errors = \"stop\""),
        "\"stop\"",
        "`row_errors` can't be \"stop\"",
        "use one of skip, abort",
    );
    check(
        &format!("name = \"s\"\n[params.region]\ntype = \"text\"\n{table}"),
        "params",
        "parameters are not supported by this version",
        "remove the section: all rows of the scope's tables are synchronised",
    );
    let no_tables = "add a section `[[tables]]` with `name = \"...\"` for each table";
    check("name = \"s\"", "", "the scope has no tables", no_tables);
    check("name = \"s\"\ntables = []", "[]", "the scope has no tables", no_tables);
    check(
        "name = \"s\"\ntables = 1",
        "1",
        "`tables` must be a list of tables (`[[tables]]`, with two brackets), not integer",
        "write a list of tables (`[[tables]]`, with two brackets)",
    );
}

#[test]
fn what_is_wrong_with_a_table_is_said_with_its_place() {
    check_table("direction = \"both\"", "[[tables]]", "a table has no name", "add `name = \"...\"`");
    check_table(
        "name = \"\"",
        "\"\"",
        "a table can't have an empty name",
        "write the name as it stands in the database",
    );
    check_table(
        "name = \"a.b.c\"",
        "\"a.b.c\"",
        "\"a.b.c\" is no table's name",
        "write \"table\", or \"schema.table\"",
    );
    check_table(
        "name = \"sales.order\"",
        "\"sales.order\"",
        "\"sales.order\" is not in schema public: its name at leaves is not clear",
        "add `as = \"order\"`, or another name",
    );
    for name in ["syncline_state", "syncline.state", "Syncline_x"] {
        check_table(
            &format!("name = \"{name}\""),
            &format!("\"{name}\""),
            &format!("\"{name}\" is a name that Syncline keeps for its own tables"),
            "rename yours, or leave it out",
        );
    }
    let t = "name = \"t\"\n";
    let with = |line: &str| format!("{t}{line}");
    check_table(
        &with("as = \"a.b\""),
        "\"a.b\"",
        "`as` can't be \"a.b\": a name at leaves has no schema",
        "use a name without a point",
    );
    check_table(
        &with("filter = \"x = 1\""),
        "filter",
        "filters are not supported by this version",
        "remove the filter: all rows of the table are synchronised",
    );
    check_table(
        &with("direktion = \"both\""),
        "direktion",
        "unknown key `direktion` in [[tables]]",
        "did you mean `direction`?",
    );
    check_table(
        &with("direction = \"down\""),
        "\"down\"",
        "`direction` can't be \"down\"",
        "use one of both, download, upload",
    );
    check_table(
        &with("conflict = \"custom\""),
        "\"custom\"",
        "the conflict policy \"custom\" is not supported by this version",
        "use one of server_wins, client_wins, last_writer_wins",
    );
    check_table(
        &with("columns = \"id\""),
        "\"id\"",
        "`columns` must be a list of names, not string",
        "write a list of names",
    );
    check_table(
        &with("columns = []"),
        "[]",
        "`columns` names no column",
        "name some, or remove it to carry all",
    );
    check_table(
        &with("columns = [1]"),
        "1",
        "a column's name must be a text in quotes, not integer",
        "write a text in quotes",
    );
    check_table(&with("columns = ['a', \"a\"]"), "\"a\"", "column \"a\" stands in it twice", "remove one");
    check_table(
        &with("types = { a = \"txt\" }"),
        "\"txt\"",
        "the type of \"a\" can't be \"txt\"",
        "did you mean \"text\"?",
    );
    check_table(
        &with("types = \"text\""),
        "\"text\"",
        "`types` must be a table like { column = \"text\" }, not string",
        "write a table like { column = \"text\" }",
    );
    check_table(
        &with("columns = [\"b\"]\ntypes = { a = \"text\" }"),
        "a",
        "`types` names column \"a\", which is not among `columns`",
        "add it to `columns`, or remove it here",
    );
}

#[test]
fn tables_that_meet_are_refused() {
    let two = |second: &str| format!("name = \"s\"\n[[tables]]\nname = \"t\"\n[[tables]]\n{second}");
    check(
        &two("name = \"public.t\""),
        "\"public.t\"",
        "table \"public.t\" stands in the file twice",
        "remove one of the sections",
    );
    check(
        &two("name = \"u\"\nas = \"T\""),
        "\"T\"",
        "\"u\" and \"t\" would both be \"T\" at leaves",
        "give one of them another name with `as`",
    );
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_file() {
    let text =
        "name = \"-\"\nconflict = 1\n[[tables]]\nname = \"t\"\nfilter = \"a\"\n[[tables]]\ncolumns = []\n";
    let found = problems(text);
    let messages: Vec<&str> = found.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(messages.len(), 5, "{messages:?}");
    assert!(messages[0].starts_with("scope name") && messages[1].starts_with("`conflict`"));
    assert!(messages[2].starts_with("filters") && messages[3] == "a table has no name");
    assert!(found.is_sorted_by_key(|problem| problem.span.start));
}

#[test]
fn broken_syntax_is_said_for_each_line() {
    let found = problems("name = \nconflict = = 1\n");
    assert!(found.len() >= 2, "{found:?}");
    assert!(found.iter().all(|problem| problem.message.starts_with("this is not TOML: ")), "{found:?}");
}

#[test]
fn parents_come_first_and_the_rest_keeps_its_order() {
    // (tables, (child, parent) ..., order)
    check_order(3, &[], &[0, 1, 2]);
    check_order(3, &[(0, 1), (1, 2)], &[2, 1, 0]);
    check_order(4, &[(1, 3)], &[0, 2, 3, 1]);
    check_order(2, &[(0, 0), (0, 1)], &[1, 0]);
    // 1 and 2 refer to each other: only 0 after 1 and 2 after 3 can hold.
    check_order(4, &[(1, 2), (2, 1), (0, 1), (2, 3)], &[1, 0, 3, 2]);
    check_order(2, &[(0, 7)], &[0, 1]);
}

fn check_order(tables: usize, references: &[(usize, usize)], expected: &[usize]) {
    assert_eq!(parents_first(tables, references), expected, "{references:?}");
}

#[test]
fn references_inside_a_cycle_are_named() {
    assert_eq!(in_cycle(4, &[(0, 0), (1, 2), (2, 1), (0, 1), (2, 3)]), [true, true, true, false, false]);
}

#[test]
fn the_nearest_name_is_near() {
    assert_eq!(nearest("direktion", ["name", "direction"]), Some("direction"));
    assert_eq!(nearest("nmae", ["name", "as"]), Some("name"));
    assert_eq!(nearest("colour", ["name", "tables"]), None);
    assert_eq!(nearest("", ["as"]), None);
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC*") {
        let _ = parse(&text);
    }

    #[test]
    fn no_mutilated_file_makes_the_parser_panic(cut in 0..FULL.len(), inserted in "[\\[\\]={}\"'.,\\n#a1 ]{0,6}") {
        let mut text = FULL.to_owned();
        text.replace_range(cut..cut + 1, &inserted);
        match parse(&text) {
            Ok(_) => {}
            Err(DefineError::Problems(problems)) => {
                prop_assert!(!problems.is_empty());
                prop_assert!(problems.iter().all(|problem| text.get(problem.span.clone()).is_some()));
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }

    #[test]
    fn every_reference_outside_cycles_holds(
        tables in 1..12_usize,
        pairs in proptest::collection::vec((0..12_usize, 0..12_usize), 0..30),
    ) {
        let references: Vec<_> = pairs.into_iter().filter(|(a, b)| *a < tables && *b < tables).collect();
        let order = parents_first(tables, &references);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, (0..tables).collect::<Vec<_>>());
        let place = |table| order.iter().position(|at| *at == table);
        for (reference, cyclic) in references.iter().zip(in_cycle(tables, &references)) {
            prop_assert!(cyclic || place(reference.1) < place(reference.0), "{:?} in {:?}", reference, order);
        }
    }
}
