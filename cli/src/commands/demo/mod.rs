//! `syncline demo`: the whole thing in one process, over real gRPC, on databases in a temporary directory.
//!
//! [`shop`] is the application, which knows nothing of Syncline; [`stage`] the hub, the service and the leaves; [`wire`]
//! the network between them; this file is the story.

mod shop;
mod stage;
mod wire;

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use syncline_engine::dialect::meta::conflicts as log;
use tokio_util::sync::CancellationToken;

use super::conflicts::both_rows;
use super::sync::report;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{Output, bytes, count};
use stage::{Leaf, Stage};

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "Example: syncline demo")]
pub(crate) struct DemoArgs {
    /// Put the databases into this new directory and keep them, instead of a temporary one
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Runs the command.
pub(crate) async fn run(
    arguments: DemoArgs,
    output: &Output,
    interrupt: &CancellationToken,
) -> Result<Exit, Failure> {
    let temporary = tempfile::tempdir().map_err(Failure::internal)?;
    let directory = match &arguments.keep {
        Some(directory) => {
            std::fs::create_dir(directory).map_err(|error| {
                Failure::internal(error).with_remedy("name a directory that is not there yet")
            })?;
            directory.as_path()
        }
        None => temporary.path(),
    };
    let mut story = Story { output, interrupt, steps: 0 };
    let rows = story.tell(directory).await?;
    let document = json!({ "same_rows": rows.is_some(), "rows": rows.unwrap_or(0) });
    output.answer(&document, || match rows {
        Some(rows) => format!("\nAll three databases hold the same {} rows.", count(rows)),
        None => "\nThe databases differ. This is a fault of ours; please report it.".to_owned(),
    });
    Ok(if rows.is_some() { Exit::Done } else { Exit::Failed })
}

struct Story<'a> {
    output: &'a Output,
    interrupt: &'a CancellationToken,
    steps: u32,
}

impl Story<'_> {
    /// From nothing to three equal databases; answers how many rows they hold, if they are equal.
    async fn tell(&mut self, directory: &Path) -> Result<Option<u64>, Failure> {
        let stage = self.provision(directory).await?;
        self.first_downloads(&stage).await?;
        self.edits_everywhere(&stage).await?;
        self.conflict(&stage).await?;
        self.deletes(&stage).await?;
        let same = same_rows(&stage)?;
        stage.stop().await?;
        Ok(same)
    }

    fn step(&mut self, title: &str) {
        self.steps += 1;
        self.output.line(&format!("\n{}. {title}", self.steps));
    }

    fn say(&self, text: &str) {
        for line in text.lines() {
            self.output.line(&format!("   {line}"));
        }
    }

    async fn provision(&mut self, directory: &Path) -> Result<Stage, Failure> {
        self.step("A shop's database becomes a hub");
        let file = directory.join("hub.db");
        let rows = shop::create(&file).map_err(Failure::internal)?;
        self.say(&format!(
            "hub.db has 4 tables with {} rows, made by an application with plain SQL.",
            count(rows)
        ));
        let stage = Stage::build(directory, &file).await?;
        self.say(&format!(
            "Scope \"shop\" is defined: tracking triggers stand beside the tables, not a row was touched.\n\
             The service listens on {}.",
            stage.address,
        ));
        Ok(stage)
    }

    async fn first_downloads(&mut self, stage: &Stage) -> Result<(), Failure> {
        self.step("A branch office fills its empty database");
        let first = self.sync(&stage.office).await?;
        self.step("A phone does the same, and the connection breaks");
        // Where it breaks: after two thirds of what the office has received.
        let budget = u32::try_from(first / 3 * 2).unwrap_or(u32::MAX);
        stage.wire.cut_after(budget);
        match stage.phone.sync(self.interrupt).await {
            Ok(_) => return Err(Failure::internal("the connection was cut, and the phone did not notice")),
            Err(failure) if Exit::of(&failure) == Exit::Temporary => {
                self.say(&format!("phone.db: cut after {}: {}", bytes(budget.into()), failure.message));
            }
            Err(failure) => return Err(failure),
        }
        stage.wire.mend();
        self.say("The network is back; the phone synchronises again.");
        self.sync(&stage.phone).await?;
        Ok(())
    }

    async fn edits_everywhere(&mut self, stage: &Stage) -> Result<(), Failure> {
        self.step("Everybody edits, with plain SQL, at the same time");
        stage.hub_writes(shop::raise_prices)?;
        self.say("hub.db: the prices of 40 products go up.");
        stage.office.writes(shop::new_purchase)?;
        self.say("office.db: a new customer and a purchase of three lines, in one transaction.");
        stage.phone.writes(shop::move_customers)?;
        self.say("phone.db: 25 customers move to Lisboa.");
        for leaf in [&stage.office, &stage.phone, &stage.office] {
            self.sync(leaf).await?;
        }
        Ok(())
    }

    async fn conflict(&mut self, stage: &Stage) -> Result<(), Failure> {
        self.step("Office and phone change the same customer");
        stage.office.writes(|shop| shop::set_city(shop, "Zürich"))?;
        // Two clocks agree no better than the network lets them: this is well above it.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        stage.phone.writes(|shop| shop::set_city(shop, "Napoli"))?;
        self.say("office.db: customer 7 moves to Zürich. A moment later phone.db: to Napoli.");
        self.sync(&stage.office).await?;
        self.sync(&stage.phone).await?;
        let entries = stage.hub.read(log::list(None, 1, 0)).await?;
        let entry = match entries.first() {
            Some(row) => log::from_row(row)?,
            None => return Err(Failure::internal("the conflict is not in the hub's log")),
        };
        self.say(&format!(
            "The hub's conflict log holds both; {} kept the {} row:",
            entry.summary.policy.as_str(),
            entry.summary.outcome.as_str(),
        ));
        self.say(&both_rows(&entry));
        self.sync(&stage.office).await?;
        Ok(())
    }

    async fn deletes(&mut self, stage: &Stage) -> Result<(), Failure> {
        self.step("Rows are deleted at both ends");
        let at_hub = stage.hub_writes(shop::delete_old_purchases)?;
        let at_phone = stage.phone.writes(shop::delete_recent_purchases)?;
        self.say(&format!(
            "hub.db: {at_hub} old purchases are deleted; phone.db: {at_phone} recent ones; and all of their lines."
        ));
        for leaf in [&stage.phone, &stage.office] {
            self.sync(leaf).await?;
        }
        self.step("Everybody asks once more");
        for leaf in [&stage.phone, &stage.office] {
            self.sync(leaf).await?;
        }
        Ok(())
    }

    /// Answers the bytes that were downloaded.
    async fn sync(&self, leaf: &Leaf) -> Result<u64, Failure> {
        let (done, kept) = leaf.sync(self.interrupt).await?;
        let text = report::text(&done, kept);
        let text = text.strip_prefix("shop: ").unwrap_or(&text);
        self.say(&format!("{}: {text}", leaf.name));
        Ok(done.downloaded.bytes)
    }
}

/// Compares all cells of all rows; answers how many rows there are, if they are the same everywhere.
fn same_rows(stage: &Stage) -> Result<Option<u64>, Failure> {
    let content = |file: &Path| shop::content(file).map_err(Failure::internal);
    let hub = content(&stage.hub_file)?;
    let same = hub == content(&stage.office.file)? && hub == content(&stage.phone.file)?;
    Ok(same.then_some(hub.len() as u64))
}
