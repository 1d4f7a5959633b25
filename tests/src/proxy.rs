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
                () = pump(client_in, service_out, &shared, &shared.to_service) => {}
                () = pump(service_in, client_out, &shared, &shared.to_client) => {}
                _ = cuts.changed() => {}
            }
        });
    }
}

/// Passes bytes on until the connection ends, or the allowance does.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared, counter: &AtomicU64) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let length = i64::try_from(read).unwrap();
        let left = if shared.allowance.load(Ordering::SeqCst) == UNLIMITED {
            UNLIMITED
        } else {
            shared.allowance.fetch_sub(length, Ordering::SeqCst)
        };
        let pass = usize::try_from(left.clamp(0, length)).unwrap();
        if to.write_all(&buffer[..pass]).await.is_err() {
            return;
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
