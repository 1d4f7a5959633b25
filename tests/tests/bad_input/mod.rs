//! Bad input of any kind gets the right status, reason and message, changes nothing, and costs no memory.
//!
//! Method: tables of cases, a table or more for every rpc, over a real socket against the real service with a real
//! database behind. Each case stands in a session of its own; after it the user's rows, the rows of our own tables and
//! the bytes of the spool are what they were, and at the end nothing has panicked.

mod applies;
mod bombs;
mod cases;
mod commands;
mod contents;
mod downloads;
mod encryption;
mod kit;
mod noise;
mod questions;
mod run;
mod sessions;
mod states;
mod uploads;

use prost::Message as _;

/// Every rpc of SyncService, and the module with its table.
const TABLES: [(&str, &str); 14] = [
    ("BeginSession", "sessions"),
    ("GetKnowledge", "questions"),
    ("GetChanges", "downloads"),
    ("DownloadBatch", "downloads"),
    ("ReleaseBatches", "downloads"),
    ("UploadBatch", "uploads"),
    ("UploadChunk", "uploads"),
    ("QueryBatch", "downloads"),
    ("ApplyChanges", "applies"),
    ("EndSession", "sessions"),
    ("ListScopes", "questions"),
    ("GetScope", "questions"),
    ("WatchScope", "questions"),
    ("GetDigests", "questions"),
];

#[test]
fn every_rpc_has_its_table() {
    let files = prost_types::FileDescriptorSet::decode(syncline::FILE_DESCRIPTOR_SET).unwrap();
    let services = files.file.iter().flat_map(|file| &file.service);
    let sync = services.into_iter().find(|service| service.name() == "SyncService").unwrap();
    let rpcs: Vec<_> = sync.method.iter().map(|method| method.name()).collect();
    assert_eq!(rpcs, TABLES.map(|(rpc, _)| rpc));
}
