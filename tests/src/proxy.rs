//! A network that breaks: a TCP proxy that cuts its connections after so many bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

/// No limit on bytes.
pub const UNLIMITED: i64 = i64::MAX;

/// A proxy to one port of this machine.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Bytes that may still pass before every connection is cut.
    allowance: AtomicI64,
    /// Bytes that may still go to clients before answers wait.
    answers: watch::Sender<i64>,
    /// Bytes that may still go to the service before requests wait.
    requests: watch::Sender<i64>,
    to_client: AtomicU64,
    to_service: AtomicU64,
    cuts: watch::Sender<u64>,
    moved: Notify,
}

impl Proxy {
    /// A proxy that lets everything pass.
    ///
    /// # Panics
    /// If no port can be had.
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            allowance: AtomicI64::new(UNLIMITED),
            answers: watch::Sender::new(UNLIMITED),
            requests: watch::Sender::new(UNLIMITED),
            to_client: AtomicU64::new(0),
            to_service: AtomicU64::new(0),
            cuts: watch::Sender::new(0),
            moved: Notify::new(),
        });
        tokio::spawn(accept(listener, target, shared.clone()));
        Self { port, shared }
    }

    /// The address that clients use.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Cuts all connections once so many more bytes have passed; later ones pass again.
    pub fn cut_after(&self, bytes: i64) {
        self.shared.allowance.store(bytes, Ordering::SeqCst);
    }

    /// From here on so many bytes go to clients, and all others wait; [`UNLIMITED`] lets them go.
    pub fn hold_answers_after(&self, bytes: i64) {
        self.shared.answers.send_replace(bytes);
    }

    /// From here on so many bytes go to the service, and all others wait; [`UNLIMITED`] lets them go.
    pub fn hold_requests_after(&self, bytes: i64) {
        self.shared.requests.send_replace(bytes);
    }

    /// Lets so many bytes more go to clients.
    pub fn let_answers_go(&self, bytes: i64) {
        self.shared.answers.send_modify(|left| *left = left.saturating_add(bytes));
    }

    /// How often connections were cut.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        *self.shared.cuts.borrow()
    }

    /// Bytes that have passed so far: to the client, and to the service.
    #[must_use]
    pub fn passed(&self) -> (u64, u64) {
        (self.shared.to_client.load(Ordering::SeqCst), self.shared.to_service.load(Ordering::SeqCst))
    }

    /// Waits until so many bytes have passed in all.
    pub async fn wait_until_passed(&self, bytes: u64) {
        loop {
            let moved = self.shared.moved.notified();
            let (down, up) = self.passed();
            if down + up >= bytes {
                return;
            }
            moved.await;
        }
    }
}

/// Waits until bytes may pass; answers how many of those that wait.
async fn take(allowed: &watch::Sender<i64>, waiting: usize) -> usize {
    let mut changes = allowed.subscribe();
    loop {
        let mut taken = i64::try_from(waiting).unwrap();
        allowed.send_if_modified(|left| {
            if *left != UNLIMITED {
                taken = taken.min(*left);
                *left -= taken;
            }
            false
        });
        if taken > 0 {
            return usize::try_from(taken).unwrap();
        }
        changes.changed().await.unwrap();
    }
}

async fn accept(listener: TcpListener, target: u16, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let shared = shared.clone();
        tokio::spawn(async move {
            let Ok(service) = TcpStream::connect(("127.0.0.1", target)).await else { return };
            let _ = client.set_nodelay(true);
            let _ = service.set_nodelay(true);
            let (client_in, client_out) = client.into_split();
            let (service_in, service_out) = service.into_split();
            let mut cuts = shared.cuts.subscribe();
            cuts.mark_unchanged();
            tokio::select! {
                () = pump(client_in, service_out, &shared, &shared.to_service, &shared.requests) => {}
                () = pump(service_in, client_out, &shared, &shared.to_client, &shared.answers) => {}
                _ = cuts.changed() => {}
            }
        });
    }
}

/// Passes bytes on until the connection ends, or the allowance does.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    counter: &AtomicU64,
    allowed: &watch::Sender<i64>,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let length = i64::try_from(read).unwrap();
        let left = if shared.allowance.load(Ordering::SeqCst) == UNLIMITED {
            UNLIMITED
        } else {
            shared.allowance.fetch_sub(length, Ordering::SeqCst)
        };
        let pass = usize::try_from(left.clamp(0, length)).unwrap();
        let mut written = 0;
        while written < pass {
            let next = take(allowed, pass - written).await;
            if to.write_all(&buffer[written..written + next]).await.is_err() {
                return;
            }
            written += next;
        }
        counter.fetch_add(pass as u64, Ordering::SeqCst);
        shared.moved.notify_waiters();
        if pass < read {
            shared.allowance.store(UNLIMITED, Ordering::SeqCst);
            shared.cuts.send_modify(|cuts| *cuts += 1);
            return;
        }
    }
}
