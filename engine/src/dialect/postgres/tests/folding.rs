//! What a fold makes of a log does not depend on how many of its entries it meets at once.

use super::kit::{Database, Shop, cell, run};
use crate::store::HubStore as _;

/// Entries of the log of `item`: keys that come once and keys that come often, with times that go back and stand still.
fn entries(shop: &Shop) -> Vec<String> {
    let log = format!("syncline.log_{}", shop.id("item").0);
    let entry = |seq: i64| {
        let (k1, k2) = (seq * 7919 % 13 * (seq % 3), if seq % 17 == 0 { seq } else { 0 });
        let (tick, changed_at) = (100 + seq * 31 % 7, 1_000_000 + seq * 104_729 % 40);
        format!(
            "INSERT INTO {log} (seq, k1, k2, tick, operation, changed_at) \
             VALUES ({seq}, {k1}, '{k2}', {tick}, 'U', {changed_at})"
        )
    };
    (1..=120).map(entry).collect()
}

/// The records once the log was folded each time that so many entries had come to it.
async fn records(at_once: usize) -> String {
    let database = Database::with("CREATE TABLE item (a int, b text, PRIMARY KEY (a, b))").await;
    let shop = database.scope(&["item"]).await;
    let mut application = database.application().await;
    for some in entries(&shop).chunks(at_once) {
        run(&mut application, &some.join(";")).await;
        shop.hub.fold(&shop.scope).await.unwrap();
    }
    let id = shop.id("item").0;
    assert_eq!(cell(&mut application, &format!("SELECT count(*) FROM syncline.log_{id}")).await, "0");
    let row = "concat_ws(' ', k1, k2, peer, tick, via, origin, changed_at, seq, resolved)";
    cell(
        &mut application,
        &format!("SELECT string_agg({row}, E'\\n' ORDER BY k1, k2) FROM syncline.record_{id}"),
    )
    .await
}

#[tokio::test]
async fn entries_are_folded_alike_one_by_one_and_together() {
    let one_by_one = records(1).await;
    assert!(one_by_one.lines().count() > 20, "{one_by_one}");
    for at_once in [2, 7, 50, 120] {
        assert_eq!(records(at_once).await, one_by_one, "{at_once} at once");
    }
}
