//! Our triggers run with rights that the application may not have: what it puts into its search path is not for them.

use super::kit::{Database, cell, run};

/// Stands before the catalogue and before our names: everything that the triggers' functions use, and does harm.
const HOSTILE: &str = "CREATE SCHEMA hostile;
    CREATE FUNCTION hostile.pg_current_xact_id() RETURNS text LANGUAGE sql AS $$ SELECT '1' $$;
    CREATE FUNCTION hostile.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT 'epoch'::timestamptz $$;
    CREATE FUNCTION hostile.date_part(text, timestamptz) RETURNS float8 LANGUAGE sql AS 'SELECT 1::float8';
    CREATE FUNCTION hostile.nextval(regclass) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint';
    CREATE FUNCTION hostile.never(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT false';
    CREATE FUNCTION hostile.never(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT false';
    CREATE FUNCTION hostile.nothing(float8, int) RETURNS float8 LANGUAGE sql AS 'SELECT 0::float8';
    CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.never);
    CREATE OPERATOR hostile.= (LEFTARG = int, RIGHTARG = int, FUNCTION = hostile.never);
    CREATE OPERATOR hostile.* (LEFTARG = float8, RIGHTARG = int, FUNCTION = hostile.nothing);
    CREATE DOMAIN hostile.bigint AS text; CREATE DOMAIN hostile.text AS varchar CHECK (value = '');
    CREATE TABLE hostile.syncline_new (id int, name text);
    CREATE TABLE hostile.syncline_old (id int, name text)";

/// What an application writes while that is in its path. It must say itself which equality it means.
const WRITES: &str = "CREATE TEMP TABLE syncline_new (id int, name text);
    CREATE TEMP TABLE syncline_old (id int, name text);
    SET search_path = hostile, pg_temp, public, pg_catalog;
    INSERT INTO item VALUES (1, 'a'), (2, 'b');
    UPDATE item SET name = 'c' WHERE id OPERATOR(pg_catalog.=) 1;
    UPDATE item SET id = 3 WHERE id OPERATOR(pg_catalog.=) 2;
    DELETE FROM item WHERE id OPERATOR(pg_catalog.=) 1;
    RESET search_path";

/// What was logged of each key, once all of it was written under `table`.
async fn logged(table: &str) -> String {
    let database = Database::with(&format!("{table}; {HOSTILE}")).await;
    let shop = database.scope(&["item"]).await;
    let log = format!("syncline.log_{}", shop.id("item").0);
    let mut application = database.application().await;
    run(&mut application, &format!("BEGIN; {WRITES}")).await;
    let sound = format!(
        "SELECT bool_and(tick = pg_current_xact_id()::text::bigint) \
         AND bool_and(to_timestamp(changed_at / 1e6) BETWEEN now() - interval '1 s' AND clock_timestamp()) \
         AND count(DISTINCT seq) = count(*) FROM {log}"
    );
    assert_eq!(cell(&mut application, &format!("({sound})")).await, "true");
    run(&mut application, "COMMIT").await;
    let operations = format!(
        "SELECT k1, string_agg(operation::text, '' ORDER BY seq) AS operations FROM {log} GROUP BY k1"
    );
    database
        .cell(&format!("SELECT string_agg(k1 || operations, ' ' ORDER BY k1) FROM ({operations}) l"))
        .await
}

#[tokio::test]
async fn what_is_logged_does_not_depend_on_the_writers_search_path() {
    assert_eq!(logged("CREATE TABLE item (id int PRIMARY KEY, name text)").await, "1IUD 2ID 3IU");
}

#[tokio::test]
async fn nor_does_it_in_partitions() {
    let table = "CREATE TABLE item (id int PRIMARY KEY, name text) PARTITION BY RANGE (id);
                 CREATE TABLE low PARTITION OF item FOR VALUES FROM (0) TO (100)";
    assert_eq!(logged(table).await, "1IUD 2ID 3I");
}

#[tokio::test]
async fn columns_may_have_the_names_that_the_functions_use() {
    for partitioned in ["", "PARTITION BY RANGE (found); CREATE TABLE part PARTITION OF item DEFAULT"] {
        let database = Database::with(&format!(
            "CREATE TABLE item (found int, own_tick int, now_us int, entry int, r int, k1 int, tg_op int, \
             PRIMARY KEY (found, own_tick, r)) {partitioned}"
        ))
        .await;
        let shop = database.scope(&["item"]).await;
        database
            .run(
                "INSERT INTO item VALUES (1, 2, 3, 4, 5, 6, 7), (10, 2, 3, 4, 5, 6, 7); UPDATE item SET now_us = 9; \
                 UPDATE item SET own_tick = 8 WHERE found = 10; DELETE FROM item WHERE found = 1",
            )
            .await;
        let log = format!("syncline.log_{}", shop.id("item").0);
        let keys = format!("SELECT DISTINCT concat_ws(' ', k1, k2, k3) AS key FROM {log}");
        let logged =
            database.cell(&format!("SELECT string_agg(key, ', ' ORDER BY key) FROM ({keys}) k")).await;
        assert_eq!(logged, "1 2 5, 10 2 5, 10 8 5");
    }
}
