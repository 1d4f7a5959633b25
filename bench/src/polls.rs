//! Many connections that ask the same thing again and again, as fast as they are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use syncline::ids::ReplicaId;
use syncline::knowledge::{Knowledge, ViewKnowledge};
use syncline_client::{RemoteHub, RemoteOptions};
use syncline_engine::replica::{HubReplica as _, Pending, PollRequest};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::leaf::Leaf;
use crate::scope::SCOPE;
use crate::store;

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Asking {
    /// Whether there is something new, as leaves that know what this one knows; nobody may be told that there is.
    Polls(Leaf),
    /// Whether the service is healthy.
    Health,
}

/// How many ask, and for how long.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) connections: usize,
    pub(crate) millis: u64,
}

/// Asks over so many connections for so long; answers the calls a second of all of them together. Every connection is
/// there and has been answered before the clock starts.
pub(crate) async fn calls_a_second(server: &str, asking: &Asking, load: Load) -> Result<f64> {
    let callers = match asking {
        Asking::Polls(leaf) => {
            pollers(server, leaf, load.connections).await?.into_iter().map(Caller::Poll).collect()
        }
        Asking::Health => health_callers(server, load.connections)?,
    };
    let mut running = JoinSet::new();
    let ready = Arc::new(Barrier::new(load.connections));
    for caller in callers {
        let ready = Arc::clone(&ready);
        running.spawn(async move {
            caller.call().await?;
            ready.wait().await;
            let (started, mut count) = (Instant::now(), 0_u64);
            while started.elapsed() < Duration::from_millis(load.millis) {
                caller.call().await?;
                count += 1;
            }
            anyhow::Ok(count as f64 / started.elapsed().as_secs_f64())
        });
    }
    let mut sum = 0.0;
    while let Some(rate) = running.join_next().await {
        sum += rate??;
    }
    Ok(sum)
}

/// Somebody with a connection of their own.
enum Caller {
    Poll(Poller),
    Health(HealthClient<Channel>),
}

impl Caller {
    async fn call(&self) -> Result<()> {
        match self {
            Self::Poll(poller) => {
                let pending = poller.ask().await?;
                ensure!(pending == Pending::None, "{pending:?} is new where nothing is");
            }
            Self::Health(client) => {
                let request = HealthCheckRequest { service: String::new() };
                client.clone().check(request).await.context("the service is not healthy")?;
            }
        }
        Ok(())
    }
}

fn health_callers(server: &str, connections: usize) -> Result<Vec<Caller>> {
    (0..connections)
        .map(|_| Ok(Caller::Health(HealthClient::new(RemoteOptions::plain(server).channel()?))))
        .collect()
}

/// A leaf that asks whether there is something new, as a client of this SDK does.
pub(crate) struct Poller {
    hub: RemoteHub,
    request: PollRequest,
}

impl Poller {
    /// Asks.
    pub(crate) async fn ask(&self) -> Result<Pending> {
        Ok(self.hub.poll(self.request.clone()).await?)
    }
}

/// So many leaves, each with an id and a connection of its own, that know what this one knows.
pub(crate) async fn pollers(server: &str, leaf: &Leaf, connections: usize) -> Result<Vec<Poller>> {
    let store = store::open_leaf(&leaf.database).await?;
    let stored = store.subscription(&SCOPE.parse()?).await?.context("the leaf has not synchronised")?;
    let known = ViewKnowledge::decode(&stored.knowledge)?;
    let poller = |_| {
        let replica = ReplicaId::fresh();
        let mut clocks = known.knowledge.clocks().clone();
        if let Some(own) = clocks.remove(&stored.replica) {
            clocks.insert(replica, own);
        }
        let knowledge = ViewKnowledge { view: known.view.clone(), knowledge: Knowledge::from_clocks(clocks) };
        let request = PollRequest {
            replica,
            scope: stored.schema.name.clone(),
            parameters: Vec::new(),
            knowledge: knowledge.encode()?,
            schema_fingerprint: stored.schema.fingerprint(),
        };
        Ok(Poller { hub: RemoteHub::new(&RemoteOptions::plain(server))?, request })
    };
    (0..connections).map(poller).collect()
}

/// Commits once while all of them ask: fails if one that asks after the commit was acknowledged is told of nothing.
pub(crate) async fn check_commit(
    pollers: Vec<Poller>,
    commit: impl Future<Output = Result<()>>,
) -> Result<()> {
    let mut running = JoinSet::new();
    let (ready, committed) = (Arc::new(Barrier::new(pollers.len() + 1)), Arc::new(AtomicBool::new(false)));
    for poller in pollers {
        let (ready, committed) = (Arc::clone(&ready), Arc::clone(&committed));
        running.spawn(async move {
            poller.ask().await?;
            ready.wait().await;
            loop {
                // Before the call: whatever is acknowledged by now must be told of.
                let acknowledged = committed.load(Ordering::SeqCst);
                let pending = poller.ask().await?;
                if acknowledged {
                    ensure!(pending != Pending::None, "a commit that was acknowledged was not told of");
                    return anyhow::Ok(());
                }
            }
        });
    }
    ready.wait().await;
    commit.await?;
    committed.store(true, Ordering::SeqCst);
    while let Some(told) = running.join_next().await {
        told??;
    }
    Ok(())
}
