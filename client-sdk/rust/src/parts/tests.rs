//! Parts on disk: resumed at the byte, verified, swept, and locked against a second client.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use bytes::Bytes;
use futures_util::StreamExt as _;
use syncline::batch::{self, Block, Codec, EncodedBatch, Operation};
use syncline::column::Column;
use syncline::error::ErrorReason;
use syncline::ids::{BatchSequence, ColumnId, Mark, TableId};
use syncline::limits::{INLINE_BATCH_BYTES_MAX, INLINE_CALL_BYTES_MAX};
use syncline::value::{CanonicalType, Cell};
use syncline_engine::replica::{ChangesBegin, ChangesEnd, ChangesMode};
use syncline_engine::store::{BatchSource as _, DownloadSource as _};
use tempfile::TempDir;

use super::*;

fn encoded(sequence: u32, text: &str) -> EncodedBatch {
    let mut column = Column::new(ColumnId(1), CanonicalType::Text);
    column.push(Cell::Text(text)).unwrap();
    let block = Block::new(TableId(1), Operation::Upsert, vec![column]);
    batch::encode(&[block], BatchSequence(sequence), Codec::Identity, 1).unwrap()
}

fn begin() -> ChangesBegin {
    ChangesBegin { mode: ChangesMode::WholeView, made_with: Bytes::from_static(b"k"), resumed: false }
}

fn end(batches: u32) -> ChangesEnd {
    let learned = Bytes::from_static(b"learned");
    ChangesEnd { learned, download_mark: Mark::fresh(), batches, rows: u64::from(batches) }
}

fn directory() -> (TempDir, Arc<PartsDirectory>) {
    let temp = TempDir::new().unwrap();
    let directory = PartsDirectory::open(temp.path().join("x.db-syncline")).unwrap();
    (temp, directory)
}

async fn download(directory: &Arc<PartsDirectory>, id: SessionId) -> DownloadParts {
    DownloadParts::open(directory.session(id, true)).await.unwrap()
}

async fn store(download: &DownloadParts, batch: &EncodedBatch) {
    assert_eq!(download.list(batch.info.clone()).await.unwrap(), Listed::New);
    let mut part = download.receive(batch.info.clone()).await.unwrap();
    part.append(vec![batch.stored.clone()]).await.unwrap();
    part.finish().await.unwrap();
}

fn text(blocks: &[Block]) -> String {
    match blocks[0].cell(ColumnId(1), 0) {
        Cell::Text(text) => text.to_owned(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_directory_is_beside_the_database() {
    assert_eq!(PartsDirectory::beside(Path::new("/a/shop.db")), PathBuf::from("/a/shop.db-syncline"));
}

#[test]
fn a_second_client_is_refused_until_the_first_is_done() {
    let (temp, directory) = directory();
    let root = temp.path().join("x.db-syncline");
    let error = PartsDirectory::open(&root).unwrap_err();
    assert_eq!(error.reason(), ErrorReason::LockTimeout);
    assert!(error.message().contains("another client"), "{error}");
    drop(directory);
    PartsDirectory::open(&root).unwrap();
}

#[tokio::test]
async fn a_part_goes_on_where_it_stopped() {
    let (_temp, directory) = directory();
    let id = SessionId::fresh();
    let batch = encoded(1, "hello, hello");
    let (first, rest) = batch.stored.split_at(9);
    {
        let download = download(&directory, id).await;
        download.begin(begin()).await.unwrap();
        download.list(batch.info.clone()).await.unwrap();
        let mut part = download.receive(batch.info.clone()).await.unwrap();
        part.append(vec![Bytes::copy_from_slice(first)]).await.unwrap();
    }
    let download = download(&directory, id).await;
    assert_eq!(download.kept().await.unwrap(), (0, 9));
    assert_eq!(download.first_sequence(), 1);
    let mut part = download.receive(batch.info.clone()).await.unwrap();
    assert_eq!(part.length(), 9);
    part.append(vec![Bytes::copy_from_slice(rest)]).await.unwrap();
    part.finish().await.unwrap();
    assert_eq!(download.kept().await.unwrap(), (1, batch.info.stored_bytes));
    assert_eq!(download.first_sequence(), 2);
    assert_eq!(download.list(batch.info.clone()).await.unwrap(), Listed::Complete);
}

#[tokio::test]
async fn damaged_and_surplus_bytes_are_noticed() {
    let (_temp, directory) = directory();
    let download = download(&directory, SessionId::fresh()).await;
    let batch = encoded(1, "some text");
    download.list(batch.info.clone()).await.unwrap();
    let mut part = download.receive(batch.info.clone()).await.unwrap();
    part.append(vec![Bytes::from(vec![0; batch.stored.len()])]).await.unwrap();
    assert_eq!(part.finish().await.unwrap_err().reason(), ErrorReason::BatchCorrupt);
    assert_eq!(part.length(), 0);
    let surplus = Bytes::from(vec![0; batch.stored.len() + 1]);
    assert_eq!(part.append(vec![surplus]).await.unwrap_err().reason(), ErrorReason::BatchCorrupt);
    part.append(vec![batch.stored.clone()]).await.unwrap();
    part.finish().await.unwrap();
}

#[tokio::test]
async fn what_was_listed_is_known_after_a_restart_and_a_torn_line_is_not() {
    let (temp, directory) = directory();
    let id = SessionId::fresh();
    let batches = [encoded(1, "one"), encoded(2, "two")];
    {
        let download = download(&directory, id).await;
        download.begin(begin()).await.unwrap();
        for batch in &batches {
            store(&download, batch).await;
        }
        download.end(end(2)).await.unwrap();
    }
    let manifest = temp.path().join("x.db-syncline").join(id.to_string()).join("download.jsonl");
    assert!(download(&directory, id).await.is_listed());

    let content = std::fs::read(&manifest).unwrap();
    std::fs::write(&manifest, &content[..content.len() - 5]).unwrap();
    let download = download(&directory, id).await;
    assert!(!download.is_listed());
    assert_eq!(download.first_sequence(), 3);
    download.end(end(2)).await.unwrap();
    let source = PartsSource::of_download(&download);
    assert_eq!(text(&source.blocks(1).await.unwrap().unwrap()), "two");
    assert_eq!(source.end().await.unwrap().batches, 2);
}

#[tokio::test]
async fn what_comes_inline_stays_in_memory_and_is_listed_again_after_a_kill() {
    let (temp, directory) = directory();
    let id = SessionId::fresh();
    let folder = temp.path().join("x.db-syncline").join(id.to_string());
    let batches = [encoded(1, "one"), encoded(2, "two"), encoded(3, "three")];
    let list = async |download: &DownloadParts| {
        download.begin(begin()).await.unwrap();
        for batch in &batches {
            download.list(batch.info.clone()).await.unwrap();
        }
    };
    {
        let download = DownloadParts::open(directory.session(id, false)).await.unwrap();
        list(&download).await;
        for batch in &batches[..2] {
            assert!(download.keep_inline(&batch.info, batch.stored.clone()).unwrap());
        }
        assert_eq!(download.first_sequence(), 3);
        assert!(!folder.exists(), "nothing was written");
        let source = PartsSource::of_download(&download);
        assert_eq!(text(&source.blocks(1).await.unwrap().unwrap()), "two");
        // The first that is written takes the list with it.
        let mut part = download.receive(batches[2].info.clone()).await.unwrap();
        part.append(vec![batches[2].stored.clone()]).await.unwrap();
        part.finish().await.unwrap();
        download.end(end(3)).await.unwrap();
        assert_eq!(text(&source.blocks(0).await.unwrap().unwrap()), "one");
        assert_eq!(text(&source.blocks(2).await.unwrap().unwrap()), "three");
    }
    let download = download(&directory, id).await;
    assert!(download.is_listed());
    let wanted: Vec<_> = download.wanted().into_iter().map(|info| info.sequence.0).collect();
    assert_eq!(wanted, [1, 2]);
    assert_eq!(download.kept().await.unwrap(), (1, batches[2].info.stored_bytes));
}

#[tokio::test]
async fn inline_batches_are_checked_and_take_no_more_memory_than_was_agreed() {
    let (_temp, directory) = directory();
    let download = DownloadParts::open(directory.session(SessionId::fresh(), false)).await.unwrap();
    download.begin(begin()).await.unwrap();
    let damaged = encoded(1, "some text");
    download.list(damaged.info.clone()).await.unwrap();
    let other = Bytes::from(vec![0; damaged.stored.len()]);
    let error = download.keep_inline(&damaged.info, other).unwrap_err();
    assert_eq!(error.reason(), ErrorReason::BatchCorrupt);
    assert_eq!(download.first_sequence(), 1);

    let large = encoded(2, &"x".repeat(INLINE_BATCH_BYTES_MAX));
    download.list(large.info.clone()).await.unwrap();
    assert!(!download.keep_inline(&large.info, large.stored).unwrap());
    let mut held = 0;
    for sequence in 3.. {
        let batch = encoded(sequence, &"x".repeat(INLINE_BATCH_BYTES_MAX - 1_000));
        download.list(batch.info.clone()).await.unwrap();
        let length = batch.stored.len();
        if !download.keep_inline(&batch.info, batch.stored).unwrap() {
            assert!(held + length > INLINE_CALL_BYTES_MAX);
            break;
        }
        held += length;
    }
    assert!(held > 0 && held <= INLINE_CALL_BYTES_MAX);
}

#[tokio::test]
async fn another_enumeration_is_noticed() {
    let (_temp, directory) = directory();
    let download = download(&directory, SessionId::fresh()).await;
    download.begin(begin()).await.unwrap();
    download.list(encoded(1, "one").info).await.unwrap();
    let other_mode = ChangesBegin { mode: ChangesMode::Delta { whole_tables: Vec::new() }, ..begin() };
    for error in [
        download.list(encoded(1, "one").info).await.unwrap_err(),
        download.list(encoded(3, "gap").info).await.unwrap_err(),
        download.begin(other_mode).await.unwrap_err(),
        download.end(end(2)).await.unwrap_err(),
    ] {
        assert_eq!(error.reason(), ErrorReason::SessionState);
    }
}

#[tokio::test]
async fn a_source_waits_for_batches_reads_them_again_and_hears_when_none_will_come() {
    let (_temp, directory) = directory();
    let download = download(&directory, SessionId::fresh()).await;
    let source = Arc::new(PartsSource::of_download(&download));
    let reader = source.clone();
    let reading = tokio::spawn(async move { text(&reader.blocks(0).await.unwrap().unwrap()) });
    tokio::task::yield_now().await;
    assert!(!reading.is_finished());
    store(&download, &encoded(1, "one")).await;
    assert_eq!(reading.await.unwrap(), "one");
    store(&download, &encoded(2, "two")).await;
    for (index, expected) in [(0, "one"), (1, "two"), (0, "one"), (1, "two")] {
        assert_eq!(text(&source.blocks(index).await.unwrap().unwrap()), expected);
    }
    let reader = source.clone();
    let waiting = tokio::spawn(async move { reader.blocks(2).await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished(), "there may be a third");
    download.stop();
    assert!(waiting.await.unwrap().is_err());
    assert!(source.end().await.is_err());
}

#[tokio::test]
async fn a_source_ends_when_the_list_has() {
    let (_temp, directory) = directory();
    let download = download(&directory, SessionId::fresh()).await;
    let source = PartsSource::of_download(&download);
    store(&download, &encoded(1, "one")).await;
    download.end(end(1)).await.unwrap();
    assert!(source.blocks(1).await.unwrap().is_none());
    assert_eq!(source.end().await.unwrap().learned, Bytes::from_static(b"learned"));
}

#[tokio::test]
async fn an_upload_is_streamed_from_any_byte_and_read_back() {
    let (_temp, directory) = directory();
    let parts = directory.session(SessionId::fresh(), false);
    let long = "x".repeat(600_000);
    let stored = encoded(1, &long);
    let (info, whole) = (stored.info.clone(), stored.stored.clone());
    parts.store_upload(move || Ok(stored)).await.unwrap();
    assert!(parts.has_uploads(std::slice::from_ref(&info)).await.unwrap());
    for offset in [0, 5, 300_000, whole.len()] {
        let mut bytes = Vec::new();
        let mut chunks = parts.stream_upload(&info, offset as u64);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.unwrap();
            assert!(chunk.len() <= syncline::limits::CHUNK_BYTES_MAX);
            bytes.extend_from_slice(&chunk);
        }
        assert_eq!(bytes, whole[offset..]);
    }
    let source = PartsSource::of_upload(parts.clone(), std::slice::from_ref(&info));
    assert_eq!(text(&source.blocks(0).await.unwrap().unwrap()), long);
    assert!(source.blocks(1).await.unwrap().is_none());
    parts.remove_uploads().await.unwrap();
    assert!(!parts.has_uploads(&[info]).await.unwrap());
}

#[tokio::test]
async fn only_folders_of_sessions_that_nobody_needs_are_swept() {
    let (temp, directory) = directory();
    let [open, stored, left] = [(); 3].map(|()| SessionId::fresh());
    let _open = [open, stored, left].map(|id| {
        let parts = directory.session(id, false);
        parts.made().unwrap();
        (id == open).then_some(parts)
    });
    let root = temp.path().join("x.db-syncline");
    std::fs::create_dir(root.join("photos")).unwrap();
    directory.sweep(&[stored]).await.unwrap();
    let there = |name: String| root.join(name).exists();
    assert!(
        there(open.to_string())
            && there(stored.to_string())
            && there("photos".into())
            && there("lock".into())
    );
    assert!(!there(left.to_string()));
}
