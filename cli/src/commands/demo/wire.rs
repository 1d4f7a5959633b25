//! A wire that can be cut: a TCP proxy between client and service that breaks its connections after so many bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Bytes that are passed on at once.
const PIECE_BYTES: usize = 16 << 10;

/// The wire. Gone with this value.
pub(super) struct Wire {
    address: SocketAddr,
    budget: Arc<Budget>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Budget {
    /// Bytes towards the client that may still pass; negative: as many as come.
    left: AtomicI64,
}

impl Wire {
    /// A wire to the service that nothing cuts yet.
    pub(super) async fn to(service: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let budget = Arc::new(Budget { left: AtomicI64::new(-1) });
        let shared = Arc::clone(&budget);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, service, Arc::clone(&shared)));
            }
        });
        Ok(Self { address, budget, accepting })
    }

    /// Where clients connect.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets so many more bytes pass towards the client, then cuts, and cuts every new connection too.
    pub(super) fn cut_after(&self, bytes: u32) {
        self.budget.left.store(i64::from(bytes), Ordering::SeqCst);
    }

    /// Nothing cuts any more.
    pub(super) fn mend(&self) {
        self.budget.left.store(-1, Ordering::SeqCst);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Carries one connection both ways until either side, or the wire, ends it.
async fn carry(client: TcpStream, service: SocketAddr, budget: Arc<Budget>) {
    let Ok(service) = TcpStream::connect(service).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_service, mut to_service) = service.into_split();
    let up = async move {
        tokio::io::copy(&mut from_client, &mut to_service).await?;
        to_service.shutdown().await?;
        // The service may still have something to say.
        std::future::pending().await
    };
    let down = async move {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let got = from_service.read(&mut piece).await?;
            if got == 0 || !budget.take(got) {
                return Ok(());
            }
            to_client.write_all(&piece[..got]).await?;
        }
    };
    // An error is the end of the connection like any other.
    let _: Result<(), std::io::Error> = tokio::select! {
        ended = up => ended,
        ended = down => ended,
    };
}

impl Budget {
    /// Whether these bytes may pass.
    fn take(&self, bytes: usize) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let taken = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| match left {
            ..0 => Some(left),
            _ if bytes > left => None,
            _ => Some(left - bytes),
        });
        taken.is_ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = socket.split();
                    tokio::io::copy(&mut from, &mut to).await.ok();
                });
            }
        });
        address
    }

    async fn answered(wire: &Wire, bytes: usize) -> usize {
        let mut socket = TcpStream::connect(wire.address).await.unwrap();
        socket.write_all(&vec![7; bytes]).await.unwrap();
        socket.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // A cut may show as an end or as a reset.
        socket.read_to_end(&mut answer).await.ok();
        answer.len()
    }

    #[tokio::test]
    async fn a_wire_carries_until_it_is_cut_and_again_when_it_is_mended() {
        let wire = Wire::to(echo().await).await.unwrap();
        assert_eq!(answered(&wire, 10_000).await, 10_000);
        wire.cut_after(5_000);
        assert!(answered(&wire, 100_000).await <= 5_000);
        wire.mend();
        assert_eq!(answered(&wire, 10_000).await, 10_000);
    }
}
