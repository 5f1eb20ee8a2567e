//! `bulkhead mail`: whether mail goes out.

use super::out;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::mail::{Mailer, Message, Sent};
use clap::Subcommand;
use uuid::Uuid;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Send a message now, and print what the server says
    Test {
        /// To whom
        address: String,
    },
}

pub(super) async fn run(config: &Config, command: Command) -> Result<()> {
    crate::secret::ensure_tls();
    let mailer = Mailer::open(config)?;
    match command {
        Command::Test { address } => test(&mailer, address, config.clock.new_id()).await,
    }
}

async fn test(mailer: &Mailer, to: String, id: Uuid) -> Result<()> {
    let message = Message {
        to: to.clone(),
        subject: "Bulkhead can send mail".to_owned(),
        text: "This message was sent by `bulkhead mail test`.\n".to_owned(),
    };
    match mailer.send(&message, id).await? {
        Sent::Taken(answer) => out::print(&format!(
            "{} has taken a message to {to}: {answer}\n",
            mailer.place()
        )),
        Sent::Logged => Err(Error::config(
            "mail is not set up, and only logged: set mail.host and mail.from",
        )),
    }
}
