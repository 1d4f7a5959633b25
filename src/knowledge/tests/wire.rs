//! Knowledge that comes from outside is checked once, and is either itself again or refused.

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;

use super::model::{clock, knowledge};
use super::{A, B, C, Clock, Clocks, Knowledge, TickRanges, clocks, knows, less, replica, row};
use crate::ids::Tick;
use crate::knowledge::{KnowledgeError, ViewId, ViewKnowledge, clock_from_wire, clock_to_wire};
use crate::{limits, pb};

proptest! {
    #[test]
    fn what_was_encoded_decodes_to_itself((knowledge, _) in knowledge(), view in any::<[u8; 4]>()) {
        let sent = ViewKnowledge { view: ViewId(Bytes::copy_from_slice(&view)), knowledge };
        prop_assert_eq!(ViewKnowledge::decode(&sent.encode().unwrap()), Ok(sent));
    }

    #[test]
    fn a_clock_comes_back_as_it_went((clock, _) in clock()) {
        prop_assert_eq!(clock_from_wire(&clock_to_wire(A, &clock)), Ok((A, clock)));
    }

    #[test]
    fn knowledge_survives_json((knowledge, _) in knowledge()) {
        let text = serde_json::to_string(&knowledge).unwrap();
        prop_assert_eq!(serde_json::from_str::<Knowledge>(&text).unwrap(), knowledge);
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(decoded) = ViewKnowledge::decode(&Bytes::from(bytes)) {
            prop_assert_eq!(ViewKnowledge::decode(&decoded.encode().unwrap()), Ok(decoded));
        }
    }

    #[test]
    fn damaged_knowledge_never_panics((knowledge, _) in knowledge(), at in any::<usize>(), bit in 0..8_u32) {
        let mut bytes = message(&knowledge).encode_to_vec();
        if let Some(byte) = bytes.len().checked_sub(1).map(|last| &mut bytes[at % (last + 1)]) {
            *byte ^= 1 << bit;
        }
        if let Ok(decoded) = ViewKnowledge::decode(&Bytes::from(bytes)) {
            prop_assert_eq!(decoded.knowledge.merge(&knowledge), knowledge.merge(&decoded.knowledge));
        }
    }
}

#[test]
fn no_bytes_are_no_knowledge() {
    assert_eq!(ViewKnowledge::decode(&Bytes::new()), Ok(ViewKnowledge::default()));
}

#[test]
fn wrong_missing_ranges_are_refused() {
    let refused = [
        ("reversed", vec![(5, 4)]),
        ("not sorted", vec![(5, 6), (1, 2)]),
        ("overlapping", vec![(1, 4), (4, 6)]),
        ("equal", vec![(1, 4), (1, 4)]),
        ("above the tick", vec![(8, 11)]),
        ("wholly above the tick", vec![(11, 12)]),
    ];
    for (what, ranges) in refused {
        assert_eq!(clock_from_wire(&clock_message(10, &ranges)), Err(KnowledgeError::Ranges(A)), "{what}");
    }
    // Ranges that touch say the same as one.
    let (_, clock) = clock_from_wire(&clock_message(10, &[(1, 2), (3, 4)])).unwrap();
    assert_eq!(clock, less(10, &[1, 2, 3, 4]));
}

#[test]
fn wrong_replica_ids_are_refused() {
    for id in [Bytes::new(), Bytes::from_static(&[0; 16]), Bytes::from_static(&[1; 15])] {
        let clock = pb::ReplicaClock { replica_id: id, ..clock_message(1, &[]) };
        assert!(matches!(clock_from_wire(&clock), Err(KnowledgeError::Id(_))));
    }
}

#[test]
fn a_replica_or_a_row_that_is_named_twice_is_refused() {
    let twice = pb::Knowledge { clocks: vec![clock_message(1, &[]); 2], ..pb::Knowledge::default() };
    assert!(matches!(decode(&twice), Err(KnowledgeError::Twice(_))));

    let mut excepted = knows(&[(A, 9)]);
    excepted.except(row("x"), clocks(&[(A, 5)]));
    let mut twice = message(&excepted);
    twice.exceptions.extend_from_within(..);
    assert!(matches!(decode(&twice), Err(KnowledgeError::Twice(_))));

    // Also if the first of the two says nothing.
    let mut needless = message(&excepted);
    needless.exceptions.insert(
        0,
        pb::RowException { clocks: vec![clock_message(9, &[])], ..needless.exceptions[0].clone() },
    );
    assert!(matches!(decode(&needless), Err(KnowledgeError::Twice(_))));
}

#[test]
fn knowledge_beyond_its_bounds_is_refused_both_ways() {
    let many_clocks: Clocks =
        (1..=limits::KNOWLEDGE_CLOCKS_MAX + 1).map(|n| (replica(n as u128), Clock::up_to(Tick(1)))).collect();
    refused_both_ways("clocks", &Knowledge::from_clocks(many_clocks));

    let ranges = (0..=limits::CLOCK_RANGES_MAX as u64).map(|n| (Tick(2 * n), Tick(2 * n)));
    let missing = TickRanges::from_sorted(ranges).unwrap();
    let gaps = Clock::new(Tick(1 << 20), &missing);
    refused_both_ways("missing ranges", &Knowledge::from_clocks(Clocks::from([(B, gaps)])));

    let mut many_rows = knows(&[(A, 9)]);
    for number in 0..=limits::ROW_EXCEPTIONS_MAX {
        let key = Bytes::from(number.to_string());
        many_rows.except(super::RowKey { key, ..row("x") }, Clocks::new());
    }
    refused_both_ways("row exceptions", &many_rows);
}

#[test]
fn too_many_bytes_are_refused_before_they_are_looked_at() {
    let bytes = Bytes::from(vec![0xFF; limits::KNOWLEDGE_BYTES_MAX + 1]);
    let refused = ViewKnowledge::decode(&bytes);
    assert!(matches!(refused, Err(KnowledgeError::TooLarge { what: "bytes", .. })));

    let mut long_key = knows(&[(C, 9)]);
    let key = Bytes::from(vec![1; limits::KNOWLEDGE_BYTES_MAX]);
    long_key.except(super::RowKey { key, ..row("x") }, Clocks::new());
    refused_both_ways("bytes", &long_key);
}

/// Neither side lets it pass, and both say what there is too much of.
fn refused_both_ways(too_much: &str, knowledge: &Knowledge) {
    let is_named = |refused: Result<_, KnowledgeError>| match refused {
        Err(KnowledgeError::TooLarge { what, found, bound }) => what == too_much && found > bound,
        _ => false,
    };
    let sent = ViewKnowledge { view: ViewId::default(), knowledge: knowledge.clone() };
    assert!(is_named(sent.encode().map(|_| ())), "{too_much}: encoding");
    assert!(is_named(decode(&message(knowledge)).map(|_| ())), "{too_much}: decoding");
}

fn decode(message: &pb::Knowledge) -> Result<ViewKnowledge, KnowledgeError> {
    ViewKnowledge::decode(&Bytes::from(message.encode_to_vec()))
}

/// The message that says this, whatever its size.
fn message(knowledge: &Knowledge) -> pb::Knowledge {
    let list = |clocks: &Clocks| clocks.iter().map(|(id, clock)| clock_to_wire(*id, clock)).collect();
    let exceptions = knowledge.exceptions().iter().map(|(row, clocks)| pb::RowException {
        table_id: row.table.0,
        key: row.key.clone(),
        clocks: list(clocks),
    });
    pb::Knowledge {
        view_id: Bytes::new(),
        clocks: list(knowledge.clocks()),
        exceptions: exceptions.collect(),
    }
}

fn clock_message(tick: u64, missing: &[(u64, u64)]) -> pb::ReplicaClock {
    let range = |&(first, last): &(u64, u64)| pb::TickRange { first, last };
    pb::ReplicaClock {
        replica_id: Bytes::copy_from_slice(A.as_bytes()),
        tick,
        missing: missing.iter().map(range).collect(),
    }
}
