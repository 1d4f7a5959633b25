//! Batches come back cell by cell, and whatever is wrong with their bytes is noticed within bounds.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::column::Column;
use crate::ids::{ColumnId, TableId, Tick};
use crate::value::{CanonicalType, Value};

fn value(ty: CanonicalType) -> BoxedStrategy<Value> {
    use CanonicalType as T;
    let numeric =
        || prop_oneof![Just("NaN".to_owned()), Just("-Infinity".to_owned()), "-?[0-9]{1,20}\\.[0-9]{0,5}"];
    let some = match ty {
        T::Bool => any::<bool>().prop_map(Value::Bool).boxed(),
        T::Int64 => any::<i64>().prop_map(Value::Int64).boxed(),
        T::Uint64 => any::<u64>().prop_map(Value::Uint64).boxed(),
        T::Float64 => any::<f64>().prop_map(Value::Float64).boxed(),
        T::Decimal => numeric().prop_map(Value::Decimal).boxed(),
        T::Text => any::<String>().prop_map(Value::Text).boxed(),
        T::Bytes => any::<Vec<u8>>().prop_map(Value::Bytes).boxed(),
        T::Date => any::<i64>().prop_map(Value::Date).boxed(),
        T::Time => any::<i64>().prop_map(Value::Time).boxed(),
        T::Timestamp => any::<i64>().prop_map(Value::Timestamp).boxed(),
        T::Timestamptz => any::<i64>().prop_map(Value::Timestamptz).boxed(),
        T::Uuid => any::<[u8; 16]>().prop_map(Value::Uuid).boxed(),
        T::Json => any::<String>().prop_map(Value::Json).boxed(),
        T::Any => prop_oneof![
            any::<i64>().prop_map(Value::Int64),
            any::<f64>().prop_map(Value::Float64),
            any::<String>().prop_map(Value::Text),
            any::<Vec<u8>>().prop_map(Value::Bytes),
        ]
        .boxed(),
    };
    prop_oneof![1 => Just(Value::Null), 4 => some].boxed()
}

/// A row has a cell of every type.
fn rows() -> impl Strategy<Value = Vec<Vec<Value>>> {
    let row: Vec<_> = CanonicalType::ALL.iter().map(|ty| value(*ty)).collect();
    prop::collection::vec(row, 1..20)
}

fn block(rows: &[Vec<Value>]) -> Block {
    let column = |(index, ty): (usize, &CanonicalType)| {
        let mut column = Column::new(ColumnId(index as u32), *ty);
        rows.iter().for_each(|row| column.push(row[index].cell()).unwrap());
        column
    };
    let columns = CanonicalType::ALL.iter().enumerate().map(column).collect();
    let mut block = Block::new(TableId(7), Operation::Upsert, columns);
    block.changed_at = (0..rows.len() as i64).collect();
    block.ticks = (0..rows.len() as u64).map(Tick).collect();
    block.births = (0..rows.len() as u64).map(|row| Tick(if row % 3 == 0 { row } else { 0 })).collect();
    block
}

fn codecs() -> impl Strategy<Value = Codec> {
    prop_oneof![Just(Codec::Identity), Just(Codec::Zstd), Just(Codec::Gzip)]
}

proptest! {
    #[test]
    fn every_cell_comes_back(rows in rows(), codec in codecs()) {
        let block = block(&rows);
        let batch = encode(std::slice::from_ref(&block), BatchSequence::FIRST, codec, 1).unwrap();
        let back = batch.info.decode(&batch.stored).unwrap();
        prop_assert_eq!(back.len(), 1);
        for (index, row) in rows.iter().enumerate() {
            for (column, value) in row.iter().enumerate() {
                let cell = back[0].columns[column].cell(index);
                prop_assert_eq!(&cell.to_value(), value);
            }
        }
        prop_assert_eq!(&back[0].changed_at, &block.changed_at);
        prop_assert_eq!(&back[0].ticks, &block.ticks);
        prop_assert_eq!(&back[0].births, &block.births);
    }

    #[test]
    fn a_changed_byte_is_noticed(rows in rows(), at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let batch = encode(&[block(&rows)], BatchSequence::FIRST, Codec::Zstd, 1).unwrap();
        let mut stored = batch.stored.to_vec();
        let at = at.index(stored.len());
        stored[at] ^= flip;
        prop_assert_eq!(batch.info.decode(&stored).unwrap_err(), BatchError::Digest);
    }

    #[test]
    fn random_content_never_breaks_the_decoder(content in prop::collection::vec(any::<u8>(), 0..300), codec in codecs()) {
        let info = forged(&content, codec, 300);
        let _ = info.decode(&content);
    }

    #[test]
    fn damaged_content_never_breaks_the_decoder(rows in rows(), at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let batch = encode(&[block(&rows)], BatchSequence::FIRST, Codec::Identity, 1).unwrap();
        let mut stored = batch.stored.to_vec();
        let at = at.index(stored.len());
        stored[at] ^= flip;
        let info = BatchInfo { rows: batch.info.rows, ..forged(&stored, Codec::Identity, stored.len() as u64) };
        let _ = info.decode(&stored);
    }
}

/// An info whose digest fits whatever the bytes are.
fn forged(stored: &[u8], codec: Codec, decoded_bytes: u64) -> BatchInfo {
    BatchInfo {
        id: BatchId::fresh(),
        sequence: BatchSequence::FIRST,
        stored_bytes: stored.len() as u64,
        decoded_bytes,
        rows: 1,
        codec,
        sha256: Sha256::digest(stored).into(),
        scope_version: 1,
    }
}

#[test]
fn a_bomb_is_not_decompressed_beyond_what_was_said() {
    let zeros = vec![0; 64 << 20];
    for codec in [Codec::Zstd, Codec::Gzip] {
        let stored = codec.compress(&zeros).unwrap();
        let error = forged(&stored, codec, 4_096).decode(&stored).unwrap_err();
        assert!(matches!(error, BatchError::Malformed(_)), "{error}");
    }
}

#[test]
fn empty_blocks_and_columns_are_counted_before_they_are_decoded() {
    let blocks = [0x0a, 0x00].repeat(limits::BATCH_BLOCKS_MAX + 1);
    let error = forged(&blocks, Codec::Identity, blocks.len() as u64).decode(&blocks).unwrap_err();
    assert_eq!(error, BatchError::TooLarge("blocks"));

    let columns = [0x22, 0x00].repeat(limits::BLOCK_COLUMNS_MAX + 1);
    let mut block = vec![0x0a];
    prost::encoding::encode_varint(columns.len() as u64, &mut block);
    block.extend(columns);
    let error = forged(&block, Codec::Identity, block.len() as u64).decode(&block).unwrap_err();
    assert_eq!(error, BatchError::TooLarge("columns"));
}

#[test]
fn what_does_not_shrink_is_stored_as_it_is() {
    let mut column = Column::new(ColumnId(1), CanonicalType::Uuid);
    for _ in 0..100 {
        column.push(Value::Uuid(*uuid::Uuid::new_v4().as_bytes()).cell()).unwrap();
    }
    let block = Block::new(TableId(1), Operation::Upsert, vec![column]);
    let batch = encode(&[block], BatchSequence::FIRST, Codec::Zstd, 1).unwrap();
    assert_eq!(batch.info.codec, Codec::Identity);
}
