//! The batches of a download as they are listed and arrive; what an apply waits for.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use syncline::batch::BatchInfo;
use syncline::error::{ErrorReason, Result, SyncError};
use syncline::ids::BatchSequence;
use syncline::limits::{INLINE_BATCH_BYTES_MAX, INLINE_CALL_BYTES_MAX};
use syncline_engine::replica::{ChangesBegin, ChangesEnd};
use tokio::sync::watch;

use super::files::length;
use super::manifest::{Entry, Manifest};
use super::part::PartFile;
use super::session::{SessionParts, Way};

/// What is known of a download. Invariant: `batches` has every sequence from 1 on, without gaps.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) begin: Option<ChangesBegin>,
    pub(super) batches: Vec<ListedBatch>,
    pub(super) end: Option<ChangesEnd>,
    /// How many batches there are; known with the end.
    pub(super) total: Option<usize>,
    /// Nothing will come any more, for this process.
    pub(super) stopped: bool,
}

/// A batch of a [`Listing`].
#[derive(Debug, Clone)]
pub(super) struct ListedBatch {
    pub(super) info: BatchInfo,
    /// It is here: durable, or in memory.
    pub(super) complete: bool,
    /// Its bytes, if they came inline and are held in memory.
    pub(super) inline: Option<Bytes>,
}

/// What listing a batch found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listed {
    /// It was listed before, and is here.
    Complete,
    /// It was listed before; its bytes, or some of them, are still to be fetched.
    Known,
    /// It is listed for the first time.
    New,
}

/// The download of one session.
#[derive(Debug, Clone)]
pub(crate) struct DownloadParts {
    parts: Arc<SessionParts>,
    listing: watch::Sender<Listing>,
    manifest: Arc<Mutex<Manifest>>,
}

impl DownloadParts {
    /// Opens the download, as far as an earlier run has come with it.
    pub(crate) async fn open(parts: Arc<SessionParts>) -> Result<Self> {
        let path = parts.folder().join("download.jsonl");
        if !parts.is_in_use() {
            return Ok(Self::with(parts, Manifest::new(path), Listing::default()));
        }
        let reader = parts.clone();
        let (manifest, listing) = parts
            .blocking(move || {
                let (manifest, entries) = Manifest::open(path)?;
                let mut listing = Listing::default();
                for entry in entries {
                    match entry {
                        Entry::Begin(begin) => listing.begin = Some(begin),
                        Entry::Batch(info) => {
                            let whole = length(&reader.whole(Way::Down, &info))?;
                            let complete = whole == Some(info.stored_bytes);
                            listing.batches.push(ListedBatch { info, complete, inline: None });
                        }
                        Entry::End(end) => listing.set_end(end)?,
                    }
                }
                Ok((manifest, listing))
            })
            .await?;
        Ok(Self::with(parts, manifest, listing))
    }

    fn with(parts: Arc<SessionParts>, manifest: Manifest, listing: Listing) -> Self {
        Self { parts, listing: watch::Sender::new(listing), manifest: Arc::new(Mutex::new(manifest)) }
    }

    pub(super) fn parts(&self) -> &Arc<SessionParts> {
        &self.parts
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Listing> {
        self.listing.subscribe()
    }

    /// Batches that are here, and the bytes of these and of all parts.
    pub(crate) async fn kept(&self) -> Result<(u64, u64)> {
        let listed = self.listing.borrow().batches.clone();
        if listed.is_empty() {
            return Ok((0, 0));
        }
        let parts = self.parts.clone();
        self.parts
            .blocking(move || {
                let (mut batches, mut bytes) = (0, 0);
                for batch in listed {
                    if batch.complete {
                        batches += 1;
                        bytes += batch.info.stored_bytes;
                    } else {
                        bytes += length(&parts.partial(Way::Down, &batch.info))?.unwrap_or(0);
                    }
                }
                Ok((batches, bytes))
            })
            .await
    }

    /// The stored bytes of all batches that are listed.
    pub(crate) fn listed_bytes(&self) -> u64 {
        self.listing.borrow().batches.iter().map(|batch| batch.info.stored_bytes).sum()
    }

    /// Whether the list is whole.
    pub(crate) fn is_listed(&self) -> bool {
        self.listing.borrow().end.is_some()
    }

    /// Batches that are listed and not here, in order.
    pub(crate) fn wanted(&self) -> Vec<BatchInfo> {
        let listing = self.listing.borrow();
        listing.batches.iter().filter(|batch| !batch.complete).map(|batch| batch.info.clone()).collect()
    }

    /// The first sequence that the service is to list: everything before it is here.
    pub(crate) fn first_sequence(&self) -> u32 {
        let listing = self.listing.borrow();
        let complete = listing.batches.iter().take_while(|batch| batch.complete).count();
        // At most SESSION_BATCHES_MAX batches are listed.
        complete as u32 + 1
    }

    /// The enumeration has begun. One that goes on compares in the same way as it did before.
    ///
    /// # Errors
    /// SESSION_STATE if it does not: what is here belongs to another enumeration.
    pub(crate) async fn begin(&self, begin: ChangesBegin) -> Result<()> {
        let known = self.listing.borrow().begin.clone();
        match known {
            Some(known) if known.mode != begin.mode => return Err(another_enumeration()),
            Some(known) if known.made_with == begin.made_with => return Ok(()),
            _ => {}
        }
        self.write(Entry::Begin(begin.clone())).await?;
        self.listing.send_modify(|listing| listing.begin = Some(begin));
        Ok(())
    }

    /// A batch was listed.
    ///
    /// # Errors
    /// SESSION_STATE if another batch has this place, or one before it was never listed.
    pub(crate) async fn list(&self, info: BatchInfo) -> Result<Listed> {
        let place = info.sequence.0 as usize - 1;
        let known = {
            let listing = self.listing.borrow();
            if place > listing.batches.len() {
                return Err(another_enumeration());
            }
            listing.batches.get(place).cloned()
        };
        match known {
            Some(known) if known.info != info => Err(another_enumeration()),
            Some(known) if known.complete => Ok(Listed::Complete),
            Some(_) => Ok(Listed::Known),
            None => {
                self.write(Entry::Batch(info.clone())).await?;
                self.listing.send_modify(|listing| {
                    listing.batches.push(ListedBatch { info, complete: false, inline: None })
                });
                Ok(Listed::New)
            }
        }
    }

    /// The list is whole. Its end need not be durable: the service says it again.
    ///
    /// # Errors
    /// SESSION_STATE if it has another number of batches than were listed.
    pub(crate) async fn end(&self, end: ChangesEnd) -> Result<()> {
        if self.listing.borrow().batches.len() != end.batches as usize {
            return Err(another_enumeration());
        }
        self.write(Entry::End(end.clone())).await?;
        let mut set = Ok(());
        self.listing.send_modify(|listing| set = listing.set_end(end));
        set
    }

    /// Keeps a batch whose bytes came with the list, in memory. Answers whether there is room for it: the service sends no
    /// more of them in a call than there is room for.
    ///
    /// # Errors
    /// BATCH_CORRUPT.
    pub(crate) fn keep_inline(&self, info: &BatchInfo, bytes: Bytes) -> Result<bool> {
        let held: usize = {
            let listing = self.listing.borrow();
            listing.batches.iter().filter_map(|batch| batch.inline.as_ref()).map(Bytes::len).sum()
        };
        if bytes.len() > INLINE_BATCH_BYTES_MAX || held + bytes.len() > INLINE_CALL_BYTES_MAX {
            return Ok(false);
        }
        info.verify(&bytes).map_err(|error| SyncError::from(error).with("batch_id", info.id))?;
        self.complete(info.sequence, Some(bytes));
        Ok(true)
    }

    /// Goes on with the bytes of a batch. From here on what was listed is on disk too.
    pub(crate) async fn receive(&self, info: BatchInfo) -> Result<ReceivedPart> {
        let path = self.parts.partial(Way::Down, &info);
        let (opened, parts, manifest) = (info.clone(), self.parts.clone(), self.manifest.clone());
        let open = move || {
            parts.made()?;
            manifest.lock().unwrap_or_else(PoisonError::into_inner).keep()?;
            PartFile::open(path, opened)
        };
        let file = self.parts.blocking(open).await?;
        Ok(ReceivedPart {
            download: self.clone(),
            length: file.length(),
            info,
            file: Arc::new(Mutex::new(file)),
        })
    }

    /// Nothing comes any more: who waits for a batch is told so.
    pub(crate) fn stop(&self) {
        self.listing.send_modify(|listing| listing.stopped = true);
    }

    /// Whether [`stop`](Self::stop) was called.
    pub(crate) fn is_stopped(&self) -> bool {
        self.listing.borrow().stopped
    }

    /// How the enumeration began; waits until it has.
    pub(crate) async fn begun(&self) -> Result<ChangesBegin> {
        let mut listing = self.listing.subscribe();
        // The sender is `self`: it can't be gone.
        let listing = listing
            .wait_for(|listing| listing.stopped || listing.begin.is_some())
            .await
            .map_err(SyncError::internal)?;
        listing.begin.clone().ok_or_else(stopped)
    }

    async fn write(&self, entry: Entry) -> Result<()> {
        {
            let mut manifest = self.manifest.lock().unwrap_or_else(PoisonError::into_inner);
            if !manifest.is_kept() {
                return manifest.append(&entry);
            }
        }
        let manifest = self.manifest.clone();
        let append = move || manifest.lock().unwrap_or_else(PoisonError::into_inner).append(&entry);
        self.parts.blocking(append).await
    }

    async fn sync(&self) -> Result<()> {
        let manifest = self.manifest.clone();
        self.parts.blocking(move || manifest.lock().unwrap_or_else(PoisonError::into_inner).sync()).await
    }

    fn complete(&self, sequence: BatchSequence, inline: Option<Bytes>) {
        self.listing.send_modify(|listing| {
            let batch = &mut listing.batches[sequence.0 as usize - 1];
            batch.complete = true;
            batch.inline = inline;
        });
    }
}

impl Listing {
    fn set_end(&mut self, end: ChangesEnd) -> Result<()> {
        if self.batches.len() != end.batches as usize {
            return Err(another_enumeration());
        }
        self.total = Some(self.batches.len());
        self.end = Some(end);
        Ok(())
    }

    /// A listing of batches that are all here.
    pub(super) fn whole(batches: &[BatchInfo]) -> Self {
        let complete = |info: &BatchInfo| ListedBatch { info: info.clone(), complete: true, inline: None };
        let batches: Vec<_> = batches.iter().map(complete).collect();
        Self { total: Some(batches.len()), batches, ..Self::default() }
    }
}

/// What is on our disk is not what the service lists: the session is given up, and another one begun.
fn another_enumeration() -> SyncError {
    SyncError::new(
        ErrorReason::SessionState,
        "the service lists other batches than it did before; the download has to begin anew",
    )
}

pub(super) fn stopped() -> SyncError {
    SyncError::new(ErrorReason::DatabaseUnavailable, "the transfer was broken off")
}

/// A batch that is being received.
#[derive(Debug)]
pub(crate) struct ReceivedPart {
    download: DownloadParts,
    info: BatchInfo,
    length: u64,
    file: Arc<Mutex<PartFile>>,
}

impl ReceivedPart {
    /// The bytes that are there.
    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    /// Whether all bytes are there.
    pub(crate) const fn is_whole(&self) -> bool {
        self.length >= self.info.stored_bytes
    }

    /// Adds the next bytes.
    ///
    /// # Errors
    /// BATCH_CORRUPT if they are more than the batch has.
    pub(crate) async fn append(&mut self, chunks: Vec<Bytes>) -> Result<()> {
        self.change(move |file| chunks.iter().try_for_each(|bytes| file.append(bytes))).await
    }

    /// Drops what is there.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        self.change(PartFile::restart).await
    }

    /// Checks the digest and keeps the batch, with what the list says of it, durably: it may be released.
    ///
    /// # Errors
    /// BATCH_CORRUPT; the part is empty again then.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        let whole = self.download.parts.whole(Way::Down, &self.info);
        self.change(move |file| file.finish(&whole)).await?;
        self.download.sync().await?;
        self.download.complete(self.info.sequence, None);
        Ok(())
    }

    async fn change(
        &mut self,
        change: impl FnOnce(&mut PartFile) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let file = self.file.clone();
        let (changed, length) = self
            .download
            .parts
            .blocking(move || {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                let changed = change(&mut file);
                Ok((changed, file.length()))
            })
            .await?;
        self.length = length;
        changed
    }
}
