//! Which of the installed versions is taken.

use std::path::Path;
use std::process::Command;

use bulkhead::database::managed::{Error, Server, Settings};

use super::{settings, temporary};

/// Programs that say their version, and nothing else. A shell writes them: a file that this process
/// has open while another test forks could not be run.
fn install(root: &Path, version: &str) {
    let (major, _) = version.split_once('.').unwrap();
    let dir = root.join("usr/lib/postgresql").join(major).join("bin");
    let script = format!(
        "mkdir -p $0 && cd $0 && umask 022 &&
        printf '#!/bin/sh\\necho \"postgres (PostgreSQL) {version}\"\\n' > postgres &&
        printf '#!/bin/sh\\necho initdb of {version}; exit 1\\n' > initdb && chmod 755 *"
    );
    let status = Command::new("sh").arg("-c").arg(script).arg(dir).status();
    assert!(status.unwrap().success());
}

#[tokio::test]
async fn the_newest_is_taken_and_the_data_decides() {
    let dir = temporary();
    let data = dir.path().join("data");
    let settings = Settings {
        path: None,
        root: dir.path().to_owned(),
        ..settings(data.clone())
    };
    let start = async || Server::start(&settings).await.unwrap_err();

    install(dir.path(), "9.6");
    install(dir.path(), "13.9");
    let error = start().await;
    assert!(
        error.to_string().contains("not found (only 13.9, 9.6)"),
        "{error}"
    );

    install(dir.path(), "14.1");
    install(dir.path(), "100.2");
    let error = start().await;
    assert!(error.to_string().contains("initdb of 100.2"), "{error}");

    std::fs::create_dir(data.join("pgdata")).unwrap();
    std::fs::write(data.join("pgdata/PG_VERSION"), "13\n").unwrap();
    let error = start().await;
    assert!(
        matches!(error, Error::MajorVersion { wanted: 13, .. }),
        "{error}"
    );
}
