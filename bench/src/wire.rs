//! Somebody between client and service who counts the bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Notify;

/// What a socket to the client may hold back, so that nearly all that is counted has arrived.
const SOCKET_BYTES: u32 = 32 << 10;
const LISTENERS_MAX: u32 = 128;
const PIECE_BYTES: usize = 16 << 10;

/// Passes everything on, and counts it.
#[derive(Clone, Default)]
pub(crate) struct Wire {
    counted: Arc<Counted>,
}

#[derive(Default)]
struct Counted {
    to_client: AtomicU64,
    to_service: AtomicU64,
    moved: Notify,
}

impl Wire {
    /// Begins to listen; answers itself and where clients find it.
    pub(crate) fn to(service: String) -> Result<(Self, String)> {
        let wire = Self::default();
        let socket = TcpSocket::new_v4()?;
        // Connections have it from the listener.
        socket.set_send_buffer_size(SOCKET_BYTES)?;
        socket.bind(([127, 0, 0, 1], 0).into())?;
        let listener = socket.listen(LISTENERS_MAX)?;
        let address = format!("http://{}", listener.local_addr()?);
        let counted = Arc::clone(&wire.counted);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&service).await else { return };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                tokio::spawn(carry(client, server, Arc::clone(&counted)));
            }
        });
        Ok((wire, address))
    }

    /// Bytes that have passed to clients so far.
    pub(crate) fn to_client(&self) -> u64 {
        self.counted.to_client.load(Ordering::SeqCst)
    }

    /// Bytes that have passed so far, both ways.
    pub(crate) fn both_ways(&self) -> u64 {
        self.to_client() + self.counted.to_service.load(Ordering::SeqCst)
    }

    /// Waits until so many bytes have passed to clients.
    pub(crate) async fn wait_until(&self, to_client: u64) {
        loop {
            let moved = self.counted.moved.notified();
            if self.to_client() >= to_client {
                return;
            }
            moved.await;
        }
    }
}

/// Until either side hangs up.
async fn carry(client: TcpStream, server: TcpStream, counted: Arc<Counted>) {
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let up = pass(client_read, server_write, &counted, &counted.to_service);
    let down = pass(server_read, client_write, &counted, &counted.to_client);
    let _ = tokio::try_join!(up, down);
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    counted: &Counted,
    count: &AtomicU64,
) -> std::io::Result<()> {
    let mut bytes = vec![0; PIECE_BYTES];
    loop {
        let read = from.read(&mut bytes).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&bytes[..read]).await?;
        count.fetch_add(read as u64, Ordering::SeqCst);
        counted.moved.notify_waiters();
    }
}
