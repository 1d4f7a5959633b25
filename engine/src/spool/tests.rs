//! Pieces make up a batch, without gaps, whatever order they came in.
#![allow(clippy::unwrap_used)]

use super::*;

async fn collect(spool: &Spool, session: SessionId, batch: BatchId, offset: u64) -> Vec<u8> {
    let chunks: Vec<Bytes> = spool.read(session, batch, offset).await.unwrap().try_collect().await.unwrap();
    assert!(chunks.iter().all(|chunk| chunk.len() <= CHUNK_BYTES_SENT));
    chunks.concat()
}

#[tokio::test]
async fn a_batch_is_read_from_any_byte_across_its_pieces() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::directory(directory.path()).unwrap();
    let (session, batch) = (SessionId::fresh(), BatchId::fresh());
    let all: Vec<u8> = (0..1_000_000_u32).map(|byte| (byte % 251) as u8).collect();
    for range in [0..400_000, 400_000..400_001, 400_001..1_000_000] {
        spool.put(session, batch, range.start as u64, Bytes::copy_from_slice(&all[range])).await.unwrap();
    }
    assert_eq!(spool.committed_size(session, batch).await.unwrap(), 1_000_000);
    for offset in [0, 1, 399_999, 400_000, 400_001, 999_999, 1_000_000] {
        assert_eq!(collect(&spool, session, batch, offset).await, &all[offset as usize..], "from {offset}");
    }
}

#[tokio::test]
async fn bytes_after_a_gap_do_not_count() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::directory(directory.path()).unwrap();
    let (session, batch) = (SessionId::fresh(), BatchId::fresh());
    spool.put(session, batch, 0, Bytes::from_static(b"abc")).await.unwrap();
    spool.put(session, batch, 5, Bytes::from_static(b"fgh")).await.unwrap();
    assert_eq!(spool.committed_size(session, batch).await.unwrap(), 3);
    assert_eq!(collect(&spool, session, batch, 1).await, b"bc");
}

#[tokio::test]
async fn freed_batches_and_sessions_are_gone() {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::directory(directory.path()).unwrap();
    let (session, first, second) = (SessionId::fresh(), BatchId::fresh(), BatchId::fresh());
    for batch in [first, second] {
        spool.put(session, batch, 0, Bytes::from_static(b"abc")).await.unwrap();
    }
    spool.delete_batch(session, first).await.unwrap();
    assert_eq!(spool.committed_size(session, first).await.unwrap(), 0);
    assert_eq!(spool.committed_size(session, second).await.unwrap(), 3);
    assert_eq!(spool.sessions().await.unwrap(), [session]);
    spool.delete_session(session).await.unwrap();
    assert_eq!(spool.committed_size(session, second).await.unwrap(), 0);
    assert_eq!(spool.sessions().await.unwrap(), []);
}

#[tokio::test]
async fn a_spool_keeps_its_id() {
    let directory = tempfile::tempdir().unwrap();
    let id = uuid::Uuid::new_v4();
    let spool = Spool::directory(directory.path()).unwrap();
    assert_eq!(spool.id().await.unwrap(), None);
    spool.set_id(id).await.unwrap();
    assert!(spool.set_id(uuid::Uuid::new_v4()).await.is_err());
    assert_eq!(Spool::directory(directory.path()).unwrap().id().await.unwrap(), Some(id));
}

#[test]
fn a_full_disk_is_a_full_spool() {
    for kind in [StorageFull, QuotaExceeded, FileTooLarge] {
        let source = Box::new(std::io::Error::from(kind));
        let error = failed(object_store::Error::Generic { store: "LocalFileSystem", source });
        assert_eq!(error.reason(), ErrorReason::SpoolFull, "{kind:?}");
    }
}
