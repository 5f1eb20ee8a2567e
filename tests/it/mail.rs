//! Mail, against a server of the tests' own: what is sent, what is refused for good, what is tried again.

use crate::harness::{Tenant, World, bare, finish, run, until};
use bulkhead::config::{MailSettings, MailTls};
use bulkhead::jobs;
use bulkhead::mail::{Message, jobs::SendMail};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

/// A server that takes mail (RFC 5321), but none for `refused@…`, and for `later@…` not at first.
#[derive(Clone)]
struct Server {
    port: u16,
    taken: Arc<Mutex<Vec<String>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            taken: Arc::default(),
            asked: Arc::default(),
        };
        let serving = server.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serving.clone().converse(stream));
            }
        });
        server
    }

    async fn converse(self, stream: TcpStream) {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        write.write_all(b"220 test\r\n").await.unwrap();
        let mut data: Option<String> = None;
        while let Ok(Some(line)) = lines.next_line().await {
            let answer = match &mut data {
                Some(text) if line == "." => {
                    self.taken.lock().unwrap().push(std::mem::take(text));
                    data = None;
                    "250 2.0.0 taken as 42"
                }
                Some(text) => {
                    text.push_str(&line);
                    text.push('\n');
                    continue;
                }
                None => {
                    let seen = self.asked.lock().unwrap().contains(&line);
                    self.asked.lock().unwrap().push(line.clone());
                    match line.split([' ', ':']).next().unwrap() {
                        "RCPT" if line.contains("refused@") => {
                            "550 5.1.1 nobody at smtp.internal.test"
                        }
                        "RCPT" if line.contains("later@") && !seen => "451 4.3.0 come again",
                        "DATA" => {
                            data = Some(String::new());
                            "354 go on"
                        }
                        _ => "250 fine",
                    }
                }
            };
            if write
                .write_all(format!("{answer}\r\n").as_bytes())
                .await
                .is_err()
            {
                return;
            }
        }
    }

    fn settings(&self, tls: MailTls) -> MailSettings {
        MailSettings {
            host: Some("127.0.0.1".to_owned()),
            port: Some(self.port),
            tls,
            from: Some("Bulkhead <noreply@example.com>".to_owned()),
            ..MailSettings::default()
        }
    }

    fn taken(&self) -> Vec<String> {
        self.taken.lock().unwrap().clone()
    }
}

async fn tenant(settings: MailSettings) -> Tenant {
    let world = World::private(|config| config.mail = settings).await;
    world.app.worker().await;
    Tenant::of(world).await
}

fn message(to: &str) -> Message {
    Message {
        to: to.to_owned(),
        subject: "Grüße\r\nBcc: everybody@example.com".to_owned(),
        text: "Hello.\n.\nIt goes on after the dot.\n".to_owned(),
    }
}

async fn send(tenant: &Tenant, to: &str) -> Uuid {
    let tx = tenant.write().await;
    let job = SendMail {
        message: message(to),
    };
    let id = jobs::enqueue(&tx, &job).await.unwrap();
    tx.commit().await.unwrap();
    id
}

/// The job's state, what its tenant is told of its last failure, and what operators are.
async fn standing(tenant: &Tenant, job: Uuid) -> (String, String, String) {
    let mut show = tenant.world.command();
    let show = show.args(["jobs", "show", &job.to_string(), "--json"]);
    let (code, out, err) = finish(show, "");
    assert_eq!(code, Some(0), "{err}");
    let shown: serde_json::Value = serde_json::from_str(&out).unwrap();
    let last = shown["errors"]
        .as_array()
        .unwrap()
        .last()
        .cloned()
        .unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    (
        text(&shown["state"]),
        text(&last["public"]),
        text(&last["detail"]),
    )
}

async fn reaches(tenant: &Tenant, job: Uuid, state: &str) -> (String, String) {
    until(&format!("the message is {state}"), async || {
        let (now, public, detail) = standing(tenant, job).await;
        (now == state).then_some((public, detail))
    })
    .await
}

#[test]
fn a_message_goes_out_once_it_is_committed() {
    run(async {
        let server = Server::start().await;
        let tenant = tenant(server.settings(MailTls::None)).await;
        let tx = tenant.write().await;
        let lost = SendMail {
            message: message("nobody@example.com"),
        };
        jobs::enqueue(&tx, &lost).await.unwrap();
        tx.rollback().await.unwrap();
        let job = send(&tenant, "Anna <anna@example.com>").await;
        reaches(&tenant, job, "done").await;
        let [taken] = &server.taken()[..] else {
            panic!("{:?}", server.taken())
        };
        let (head, body) = taken.split_once("\n\n").unwrap();
        assert!(head.contains("To: Anna <anna@example.com>"), "{head}");
        assert!(
            head.contains("From: Bulkhead <noreply@example.com>"),
            "{head}"
        );
        assert!(
            head.contains(&format!("Message-ID: <{job}@example.com>")),
            "{head}"
        );
        assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
        assert!(body.contains("It goes on after the dot."), "{body}");
        let asked = server.asked.lock().unwrap().clone();
        assert!(
            asked
                .iter()
                .any(|line| line.contains("MAIL FROM:<noreply@example.com>"))
        );
    });
}

#[test]
fn what_is_refused_is_over_and_what_may_pass_is_tried_again() {
    run(async {
        let server = Server::start().await;
        let tenant = tenant(server.settings(MailTls::None)).await;
        let refused = send(&tenant, "refused@example.com").await;
        let nowhere = send(&tenant, "no address").await;
        let later = send(&tenant, "later@example.com").await;
        let (public, _) = reaches(&tenant, refused, "dead").await;
        assert_eq!(public, "The mail server refuses this message (SMTP 550).");
        let (public, _) = reaches(&tenant, nowhere, "dead").await;
        assert_eq!(public, "This is not an address that mail can be sent to.");
        // The pause is a few seconds.
        reaches(&tenant, later, "done").await;
        assert_eq!(server.taken().len(), 1);
    });
}

#[test]
fn mail_is_not_sent_in_the_clear_where_tls_is_asked_for() {
    run(async {
        let server = Server::start().await;
        let tenant = tenant(server.settings(MailTls::Starttls)).await;
        let job = send(&tenant, "anna@example.com").await;
        let (public, detail) = reaches(&tenant, job, "scheduled").await;
        assert_eq!(
            public, "Something went wrong on our side.",
            "the tenant's part"
        );
        let place = format!("127.0.0.1:{}", server.port);
        assert!(detail.contains(&place), "operators read it all: {detail}");
        assert_eq!(server.taken(), Vec::<String>::new());
        let asked = server.asked.lock().unwrap().clone();
        assert!(
            !asked.iter().any(|line| line.starts_with("MAIL")),
            "{asked:?}"
        );
    });
}

#[test]
fn operators_try_it_and_without_a_server_mail_is_logged() {
    run(async {
        let server = Server::start().await;
        let test = |to: &str, env: &[(&str, String)]| {
            let mut command = bare();
            command.args(["mail", "test", to]);
            command.envs(env.iter().map(|(name, value)| (*name, value.as_str())));
            finish(&mut command, "")
        };
        let env = [
            ("BULKHEAD_MAIL__HOST", "127.0.0.1".to_owned()),
            ("BULKHEAD_MAIL__PORT", server.port.to_string()),
            ("BULKHEAD_MAIL__TLS", "none".to_owned()),
            ("BULKHEAD_MAIL__FROM", "noreply@example.com".to_owned()),
        ];
        let (code, out, err) = test("anna@example.com", &env);
        assert_eq!(code, Some(0), "{err}");
        let said = format!(
            "127.0.0.1:{} has taken a message to anna@example.com: 2.0.0 taken as 42\n",
            server.port
        );
        assert_eq!(out, said);
        assert_eq!(server.taken().len(), 1);
        let (code, _, err) = test("refused@example.com", &env);
        assert!(
            code == Some(1) && err.contains("refuses this message (SMTP 550)"),
            "{err}"
        );
        let (code, _, err) = test("anna@example.com", &[]);
        assert!(
            code == Some(1) && err.contains("set mail.host and mail.from"),
            "{err}"
        );
        assert!(
            err.contains("mail is not sent") && err.contains("anna@example.com"),
            "{err}"
        );
        assert!(err.contains("was sent by `bulkhead mail test`"), "{err}");
        let production = [("BULKHEAD_ENV", "production".to_owned())];
        let (_, _, err) = test("anna@example.com", &production);
        assert!(
            err.contains("mail is not sent") && !err.contains("was sent by"),
            "it may let somebody in: {err}"
        );
        let (code, _, err) = test("anna@example.com", &env[..3]);
        assert!(
            code == Some(1) && err.contains("mail.host needs mail.from"),
            "{err}"
        );

        let tenant = tenant(MailSettings::default()).await;
        let job = send(&tenant, "anna@example.com").await;
        reaches(&tenant, job, "done").await;
    });
}
