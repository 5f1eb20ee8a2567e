//! Mail: what is sent to people outside. Resources send it by the job [`jobs::SendMail`], so that it goes out if and only if its
//! cause is committed, and again if the server cannot be had.

pub mod jobs;

use crate::config::{Config, Env, MailTls};
use crate::error::{Error, Result};
use lettre::message::header::ContentType;
use lettre::message::{Mailbox, Message as Composed};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;
use uuid::Uuid;

/// How long the server may take for each of its answers.
const PATIENCE: Duration = Duration::from_secs(20);

/// A message to one person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// To whom: an address, or a name and an address in angle brackets.
    pub to: String,
    /// What it is about.
    pub subject: String,
    /// What it says, as plain text.
    pub text: String,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The server has taken it: its answer.
    Taken(String),
    /// No server is configured; it is in the log.
    Logged,
}

/// Sends mail, or logs it.
#[derive(Clone)]
pub struct Mailer {
    server: Option<Server>,
    /// Whether the log has the whole message: what is in it may let somebody in.
    whole: bool,
}

#[derive(Clone)]
struct Server {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    place: String,
}

/// Without the transport: it holds the password.
impl fmt::Debug for Mailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mailer({})", self.place())
    }
}

impl Mailer {
    /// The mailer of a configuration. It connects when it sends.
    pub fn open(config: &Config) -> Result<Self> {
        let settings = &config.mail;
        let whole = config.env == Env::Development;
        let Some(host) = &settings.host else {
            return Ok(Self {
                server: None,
                whole,
            });
        };
        let from = settings.from.as_deref().unwrap_or_default();
        let from = from.parse().map_err(|e| {
            Error::config(format!("mail.from is {from:?}, which is no address: {e}"))
        })?;
        let cannot = |e| Error::config(format!("mail.host is {host:?}, which cannot be used: {e}"));
        let tls = || TlsParameters::new(host.clone()).map_err(cannot);
        let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
            .port(settings.port())
            .timeout(Some(PATIENCE))
            .tls(match settings.tls {
                MailTls::Starttls => Tls::Required(tls()?),
                MailTls::Implicit => Tls::Wrapper(tls()?),
                MailTls::None => Tls::None,
            });
        if let Some(domain) = config.base_domains.first() {
            builder = builder.hello_name(ClientId::Domain(domain.clone()));
        }
        if let (Some(username), Some(password)) = (&settings.username, &settings.password) {
            let password = password.expose_secret().to_owned();
            builder = builder.credentials(Credentials::new(username.clone(), password));
        }
        let server = Server {
            transport: builder.build(),
            from,
            place: format!("{host}:{}", settings.port()),
        };
        Ok(Self {
            server: Some(server),
            whole,
        })
    }

    /// Where mail goes, for people.
    pub fn place(&self) -> &str {
        self.server
            .as_ref()
            .map_or("the log: mail.host is not set", |server| &server.place)
    }

    /// Sends a message, under an identity of its own: whoever gets it twice can tell. Without a server it is logged.
    pub async fn send(&self, message: &Message, id: Uuid) -> Result<Sent> {
        let Some(server) = &self.server else {
            let Message { to, subject, text } = message;
            let text = if self.whole {
                text.as_str()
            } else {
                "(not logged)"
            };
            tracing::warn!(
                to,
                subject,
                text,
                "mail is not sent: set mail.host and mail.from"
            );
            return Ok(Sent::Logged);
        };
        let composed = composed(&server.from, message, id)?;
        match server.transport.send(composed).await {
            Ok(answer) => Ok(Sent::Taken(answer.message().collect::<Vec<_>>().join(" "))),
            Err(error) => Err(refused(error, &server.place)),
        }
    }
}

fn composed(from: &Mailbox, message: &Message, id: Uuid) -> Result<Composed> {
    let to: Mailbox = message
        .to
        .parse()
        .map_err(|_| Error::invalid("to", "This is not an address that mail can be sent to."))?;
    Composed::builder()
        .from(from.clone())
        .to(to)
        .subject(&message.subject)
        .message_id(Some(format!("<{id}@{}>", from.email.domain())))
        .header(ContentType::TEXT_PLAIN)
        .body(message.text.clone())
        .map_err(Error::internal)
}

/// What the server refuses for good is not sent again; all else may pass.
fn refused(error: lettre::transport::smtp::Error, place: &str) -> Error {
    match error.status().filter(|_| error.is_permanent()) {
        Some(code) => {
            tracing::warn!(%error, place, "the mail server refuses a message");
            let told = format!("The mail server refuses this message (SMTP {code}).");
            Error::invalid("to", told)
        }
        None => Error::internal(format!("mail cannot be sent by {place}: {error}")),
    }
}
