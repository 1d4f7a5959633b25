//! What triggers and cascades of the user's own do while an upload is applied reaches everyone, the uploader included.

use syncline::batch::Operation;
use syncline::knowledge::Knowledge;
use syncline::value::Value;

use super::kit::{Database, born, changed, deleted, int, text};

/// Vector 12.
#[tokio::test]
async fn what_a_trigger_made_of_a_row_is_sent_back_and_is_no_conflict_with_itself() {
    let database = Database::with(
        "CREATE TABLE item (id int PRIMARY KEY, price int, total int);
         CREATE FUNCTION add_total() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN NEW.total := NEW.price + 2; RETURN NEW; END $$;
         CREATE TRIGGER add_total BEFORE INSERT OR UPDATE ON item FOR EACH ROW EXECUTE FUNCTION add_total()",
    )
    .await;
    let mut shop = database.scope(&["item"]).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    shop.upload(&known, &[born("item", [int(1), int(10), Value::Null])]).await.unwrap();
    let (_, rows) = shop.changes(&known).await;
    assert_eq!(rows, [("item".to_owned(), Operation::Upsert, vec![int(1), int(10), int(12)])]);
    let again = shop.upload(&known, &[changed("item", [int(1), int(20), Value::Null])]).await.unwrap();
    assert_eq!((again.result.upserts, again.result.conflicts), (1, 0));
}

/// Vector 19.
#[tokio::test]
async fn cascaded_deletes_reach_the_leaf() {
    let database = Database::with(
        "CREATE TABLE parent (id int PRIMARY KEY);
         CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE);
         INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1, 1), (2, 1)",
    )
    .await;
    let mut shop = database.scope(&["child", "parent"]).await;
    assert_eq!(shop.scope.schema.tables[0].name, "parent");
    let (known, _) = shop.changes(&Knowledge::new()).await;
    shop.upload(&known, &[deleted("parent", [int(1)])]).await.unwrap();
    let (_, rows) = shop.changes(&known).await;
    let heard: Vec<_> = rows.into_iter().map(|row| (row.0, row.1, row.2[0].clone())).collect();
    let delete = Operation::Delete;
    assert_eq!(heard, [("child".to_owned(), delete, int(1)), ("child".to_owned(), delete, int(2))]);
}

/// Vector 20.
#[tokio::test]
async fn a_swallowed_write_is_answered_with_the_hubs_row() {
    let database = Database::with(
        "CREATE TABLE item (id int PRIMARY KEY, name text); INSERT INTO item VALUES (1, 'a'), (2, 'b');
         CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
    )
    .await;
    let mut shop = database.scope(&["item"]).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    database
        .run("CREATE TRIGGER swallow BEFORE INSERT OR UPDATE OR DELETE ON item FOR EACH ROW EXECUTE FUNCTION swallow()")
        .await;
    let rows =
        [changed("item", [int(1), text("x")]), deleted("item", [int(2)]), born("item", [int(3), text("y")])];
    shop.upload(&known, &rows).await.unwrap();
    let (_, rows) = shop.changes(&known).await;
    let heard: Vec<_> = rows.into_iter().map(|row| (row.1, row.2)).collect();
    assert_eq!(
        heard,
        [
            (Operation::Upsert, vec![int(1), text("a")]),
            (Operation::Upsert, vec![int(2), text("b")]),
            (Operation::Delete, vec![int(3)]),
        ]
    );
}

#[tokio::test]
async fn what_a_trigger_writes_elsewhere_is_the_hubs_own_change() {
    let database = Database::with(
        "CREATE TABLE item (id int PRIMARY KEY, name text); CREATE TABLE history (id serial PRIMARY KEY, what text);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN INSERT INTO public.history (what) VALUES (NEW.name); RETURN NULL; END $$;
         CREATE TRIGGER note AFTER INSERT ON item FOR EACH ROW EXECUTE FUNCTION note()",
    )
    .await;
    let mut shop = database.scope(&["item", "history"]).await;
    let (known, _) = shop.changes(&Knowledge::new()).await;
    shop.upload(&known, &[born("item", [int(1), text("a")])]).await.unwrap();
    let (_, rows) = shop.changes(&known).await;
    assert_eq!(rows, [("history".to_owned(), Operation::Upsert, vec![int(1), text("a")])]);
}
