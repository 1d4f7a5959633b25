//! An upload of plain rows goes a short way, and ends as it would have the long way.
//!
//! Two databases hear the same random history: application's writes, folds, uploads of two leaves made in sight of the
//! present or of the past. In one of them a truncation that counts for nothing makes every upload go the long way.

use sqlx::PgConnection;
use syncline::knowledge::Knowledge;
use syncline::value::Value;

use super::kit::{Database, Shop, Up, born, cell, changed, deleted, int, run, text};
use crate::throwaway::{ThrowawayCluster, ThrowawayOptions};

/// Keys that histories speak of.
const KEYS: u64 = 10;

/// Writes, folds and uploads of a history.
const STEPS: u32 = 40;

/// What both databases must agree in, ticks and times by their order.
const OUTCOME: &str = "SELECT jsonb_build_object(
  'rows', (SELECT jsonb_agg(i ORDER BY id) FROM item i),
  'records', (SELECT jsonb_agg(jsonb_build_array(k1, peer, via, origin, tick, changed_at) ORDER BY k1) FROM (
    SELECT k1, peer, via, origin, dense_rank() OVER (ORDER BY tick) AS tick,
      dense_rank() OVER (ORDER BY changed_at) AS changed_at FROM syncline.record_{id}) r),
  'entries', (SELECT jsonb_agg(jsonb_build_array(k1, operation, tick) ORDER BY k1, tick, operation) FROM (
    SELECT k1, operation, dense_rank() OVER (ORDER BY tick) AS tick FROM syncline.log_{id}) l))::text";

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % end
    }

    fn key(&mut self) -> i64 {
        self.below(KEYS).cast_signed()
    }

    fn name(&mut self) -> Value {
        match self.below(40) {
            0 => Value::Null,
            n => text(["ash", "birch", "cedar", "elm", "fir"][n as usize % 5]),
        }
    }
}

/// One of the databases.
struct Side {
    application: PgConnection,
    leaves: [Shop; 2],
    /// What leaves have known in the course of time.
    known: Vec<Knowledge>,
}

impl Side {
    async fn of(cluster: &ThrowawayCluster, tables: &str, long_way: bool) -> Self {
        let database = Database::in_cluster(cluster, tables).await;
        let first = database.scope(&["item"]).await;
        if long_way {
            let id = first.id("item");
            let truncation = format!("INSERT INTO syncline.truncations VALUES ({id}, 0, 0, NULL, false, 0)");
            database.run(&truncation).await;
        }
        let (application, leaves) = (database.application().await, [first.other_leaf(), first]);
        Self { application, leaves, known: vec![Knowledge::new()] }
    }

    /// Waits until no other transaction is open: snapshots end after those who dropped them have gone on. While one is, of
    /// whichever database, the server keeps versions of rows in pages that are full, and so in another order, in which
    /// statements visit them.
    async fn settle(&mut self) {
        let open = "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
                    AND (backend_xmin IS NOT NULL OR state LIKE 'idle in%')";
        while cell(&mut self.application, open).await != "0" {}
    }

    async fn outcome(&mut self) -> String {
        let id = self.leaves[0].id("item").to_string();
        let (conflicts, errors) = (self.leaves[0].conflicts().await, self.leaves[0].row_errors().await);
        let conflicts: Vec<_> = conflicts.into_iter().map(|entry| entry.summary.key_json).collect();
        let sql = OUTCOME.replace("{id}", &id);
        format!("{} {conflicts:?} {errors:?}", cell(&mut self.application, &sql).await)
    }

    async fn upload(&mut self, leaf: usize, known: usize, rows: &[Up]) -> String {
        let known = self.known[known].clone();
        match self.leaves[leaf].upload(&known, rows).await {
            Ok(report) => {
                let result = report.result;
                let done =
                    (result.upserts, result.deletes, result.unchanged, result.conflicts, result.row_errors);
                format!("{done:?}")
            }
            Err(error) => format!("{:?}", error.reason()),
        }
    }
}

fn random_upload(random: &mut Random) -> Vec<Up> {
    let (first, count) = (random.key(), 1 + random.below(5).cast_signed());
    let rows = first..first + count;
    let past = random.below(6) == 0;
    rows.map(|key| {
        let cells = [int(key), random.name(), int(random.below(5).cast_signed())];
        let up = match random.below(8) {
            0..=1 => born("item", cells),
            2 => deleted("item", [int(key)]),
            _ => changed("item", cells),
        };
        if past { Up { changed_at: 5, ..up } } else { up }
    })
    .collect()
}

fn random_write(random: &mut Random) -> String {
    let (key, amount) = (random.key(), 10 + random.below(90));
    match random.below(3) {
        0 => format!("INSERT INTO item VALUES ({key}, NULL, {amount}) ON CONFLICT DO NOTHING"),
        1 => format!("UPDATE item SET amount = {amount} WHERE id BETWEEN {key} AND {key} + 2"),
        _ => format!("DELETE FROM item WHERE id = {key}"),
    }
}

async fn both_ways_agree(cluster: &ThrowawayCluster, tables: &str, seed: u64) {
    let mut sides = [Side::of(cluster, tables, false).await, Side::of(cluster, tables, true).await];
    let mut random = Random(seed);
    for step in 0..STEPS {
        let what = random.below(10);
        let (write, rows) = (random_write(&mut random), random_upload(&mut random));
        let (leaf, latest) = (random.below(2) as usize, sides[0].known.len() - 1);
        let known = if random.below(4) == 0 { random.below(1 + latest as u64) as usize } else { latest };
        let mut heard = Vec::new();
        for side in &mut sides {
            side.settle().await;
            let answer = match what {
                0..=1 => {
                    run(&mut side.application, &write).await;
                    String::new()
                }
                2..=4 => {
                    let (known, _) = side.leaves[0].changes(&Knowledge::new()).await;
                    side.known.push(known);
                    String::new()
                }
                _ => side.upload(leaf, known, &rows).await,
            };
            heard.push(format!("{answer} {}", side.outcome().await));
        }
        assert_eq!(heard[0], heard[1], "seed {seed}, step {step}: {what} {write} {rows:?}");
    }
}

/// Nobody else's transactions: see [`Side::settle`].
fn alone() -> ThrowawayCluster {
    ThrowawayCluster::start(ThrowawayOptions { durable: false }).unwrap()
}

const ITEMS: &str = "CREATE TABLE item (id int PRIMARY KEY, name text, amount int);
     INSERT INTO item SELECT n, NULL, n FROM generate_series(0, 5) n;";

#[tokio::test]
async fn plain_rows_end_as_they_would_have_the_long_way() {
    let cluster = alone();
    for seed in 0..3 {
        both_ways_agree(&cluster, ITEMS, seed).await;
    }
}

#[tokio::test]
async fn so_they_do_where_rows_are_refused() {
    let cluster = alone();
    let unique =
        format!("{ITEMS} CREATE UNIQUE INDEX ON item (name); ALTER TABLE item ADD CHECK (amount <> 3)");
    let unique = unique.replace("SELECT n, NULL, n FROM", "SELECT n, NULL, n + 10 FROM");
    for seed in 10..12 {
        both_ways_agree(&cluster, &unique, seed).await;
    }
}

#[tokio::test]
async fn so_they_do_where_triggers_change_what_is_written() {
    let cluster = alone();
    let before = format!(
        "{ITEMS} CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN IF NEW.amount = 2 THEN RETURN NULL; END IF; NEW.name := upper(NEW.name); RETURN NEW; END $$;
         CREATE TRIGGER shout BEFORE INSERT OR UPDATE ON item FOR EACH ROW EXECUTE FUNCTION shout()"
    );
    for seed in 20..22 {
        both_ways_agree(&cluster, &before, seed).await;
    }
    let after = format!(
        "{ITEMS} CREATE FUNCTION push() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN UPDATE public.item SET amount = amount + 10 WHERE id = NEW.amount AND pg_trigger_depth() = 1;
         RETURN NULL; END $$;
         CREATE TRIGGER push AFTER INSERT OR UPDATE ON item FOR EACH ROW EXECUTE FUNCTION push()"
    );
    for seed in 30..32 {
        both_ways_agree(&cluster, &after, seed).await;
    }
}

#[tokio::test]
async fn so_they_do_with_values_that_columns_round() {
    let cluster = alone();
    let rounded = ITEMS.replace("name text, amount int", "name char(5), amount numeric(2, 0)");
    for seed in 40..42 {
        both_ways_agree(&cluster, &rounded, seed).await;
    }
}

#[tokio::test]
async fn a_number_beyond_its_column_is_a_row_error_whatever_way_it_is_staged() {
    let database = Database::with("CREATE TABLE item (id smallint PRIMARY KEY, amount int)").await;
    let mut shop = database.scope(&["item"]).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    let rows = [
        born("item", [int(1), int(1 << 40)]),
        born("item", [int(1 << 20), int(1)]),
        born("item", [int(2), int(-(1 << 31))]),
        // What can't be there is gone already.
        deleted("item", [int(1 << 21)]),
    ];
    let report = shop.upload(&known, &rows).await.unwrap().result;
    assert_eq!((report.upserts, report.unchanged, report.row_errors), (1, 1, 2));
    let mut errors = shop.row_errors().await;
    errors.sort();
    assert_eq!(errors, [(r#"{"id":1048576}"#.to_owned(), "TYPE"), (r#"{"id":1}"#.to_owned(), "TYPE")]);
    assert_eq!(database.cell("SELECT string_agg(id || ' ' || amount, ',') FROM item").await, "2 -2147483648");
}
