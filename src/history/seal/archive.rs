//! Archives: what is purged, written to the tenant's prefix of the object store first: JSON Lines, compressed with gzip.
//!
//! A line has an entry's number, its link and that before it, the key's id, the text that the link was made of (`sealed`), and
//! the same as JSON (`entry`). What it has of persons is left out: nobody has to be erased here. The last line signs all those
//! before it.

use super::chain;
use super::checkpoint::{self, Checkpoint, Link};
use super::{Keys, Places};
use crate::database::{Tenant, TenantTx};
use crate::error::{Error, Result};
use crate::history::line;
use crate::media::store::{Key, Store};
use crate::secret::{equal, hex};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures::TryStreamExt as _;
use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::io::{Read as _, Write as _};
use uuid::Uuid;

/// One entry. Links in hexadecimal.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Line {
    pub(super) number: i64,
    id: Uuid,
    before: String,
    pub(super) link: String,
    key: String,
    sealed: String,
    entry: Value,
}

/// The last line.
#[derive(Debug, Deserialize, Serialize)]
struct Signature {
    tenant: Uuid,
    signed_by: String,
    mac: String,
}

/// The lines of these entries.
pub(super) async fn lines(tx: &TenantTx, links: &[Link]) -> Result<Vec<Line>> {
    let mut lines = Vec::with_capacity(links.len());
    for some in links.chunks(chain::ENTRIES) {
        let ids: Vec<Uuid> = some.iter().map(|link| link.id).collect();
        let sealed = chain::read(tx, &ids).await?;
        let entries = line::of(tx, &ids, line::Persons::LeftOut).await?;
        for ((link, sealed), entry) in some.iter().zip(sealed).zip(entries) {
            lines.push(Line {
                number: link.number,
                id: link.id,
                before: hex(&link.before),
                link: hex(&link.own),
                key: link.key.clone(),
                sealed: sealed
                    .ok_or_else(|| Error::internal("an entry went away"))?
                    .text,
                entry,
            });
        }
    }
    Ok(lines)
}

/// Writes an archive: named by its first entry, it takes the place of what an earlier try has left.
pub(super) async fn put(store: &Store, keys: &Keys, tenant: &Tenant, lines: &[Line]) -> Result<()> {
    let Some(first) = lines.first() else {
        return Ok(());
    };
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, line).map_err(Error::internal)?;
        text.push(b'\n');
    }
    let key = keys.sealing();
    let signature = Signature {
        tenant: tenant.id,
        signed_by: key.id.clone(),
        mac: hex(&key.mac(PURPOSE, &[tenant.id.as_bytes(), &Sha256::digest(&text)])),
    };
    serde_json::to_writer(&mut text, &signature).map_err(Error::internal)?;
    text.push(b'\n');
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(&text).map_err(Error::internal)?;
    let packed = packed.finish().map_err(Error::internal)?;
    let path = Key::history(tenant, first.number);
    store.objects().put(path.path(), packed.into()).await?;
    Ok(())
}

const PURPOSE: &str = "history archive 1";

/// The archives of a tenant, oldest first.
pub(super) async fn all(store: &Store, tenant: &Tenant) -> Result<Vec<Path>> {
    let listed = store.archives(tenant).map_ok(|object| object.location);
    let mut paths: Vec<Path> = listed.try_collect().await?;
    // Their names are their first numbers.
    paths.sort();
    Ok(paths)
}

/// The lines of an archive, if it is one that we wrote, and each link is that of its entry; else the number of the first that is
/// not, or 0.
pub(super) async fn read(
    store: &Store,
    keys: &Keys,
    (tenant, path): (&Tenant, &Path),
) -> Result<std::result::Result<Vec<Line>, i64>> {
    let packed = store.objects().get(path).await?.bytes().await?;
    let mut text = Vec::new();
    if GzDecoder::new(&packed[..]).read_to_end(&mut text).is_err() {
        return Ok(Err(0));
    }
    let Some(lines) = signed(keys, tenant, &text) else {
        return Ok(Err(0));
    };
    let mut next = None;
    for line in &lines {
        let follows =
            next.is_none_or(|(number, link)| (number, link) == (line.number, &line.before));
        if !follows || line.proves(keys, tenant.id) != Some(true) {
            return Ok(Err(line.number));
        }
        next = Some((line.number + 1, &line.link));
    }
    Ok(Ok(lines))
}

/// The lines, if the last one signs them.
fn signed(keys: &Keys, tenant: &Tenant, text: &[u8]) -> Option<Vec<Line>> {
    let text = text.strip_suffix(b"\n")?;
    let end = text.iter().rposition(|byte| *byte == b'\n')? + 1;
    let (lines, signature) = text.split_at(end);
    let signature: Signature = serde_json::from_slice(signature).ok()?;
    let key = keys.named(&signature.signed_by)?;
    let mac = hex(&key.mac(PURPOSE, &[tenant.id.as_bytes(), &Sha256::digest(lines)]));
    if signature.tenant != tenant.id || !equal(mac.as_bytes(), signature.mac.as_bytes()) {
        return None;
    }
    let lines = lines.split(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !line.is_empty());
    lines
        .map(|line| serde_json::from_slice(line).ok())
        .collect()
}

impl Line {
    fn proves(&self, keys: &Keys, tenant: Uuid) -> Option<bool> {
        let link = Link {
            number: self.number,
            id: self.id,
            before: bytes(&self.before)?,
            own: bytes(&self.link)?,
            key: self.key.clone(),
        };
        link.proves(keys, tenant, &self.sealed)
    }
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let pairs = hex.as_bytes().chunks(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect()
}

/// What was found of a tenant's archives.
#[derive(Clone, Debug, Serialize)]
pub struct Archives {
    /// How many there are.
    pub archives: usize,
    /// Entries in them.
    pub entries: usize,
    /// What is wrong.
    pub fault: Option<ArchiveFault>,
}

/// What is wrong with archives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum ArchiveFault {
    /// This object is not what was written: from the entry with this number on, or as a whole.
    Changed {
        /// Its key.
        object: String,
        /// The number; 0 is the whole.
        number: i64,
    },
    /// Of these entries some were archived, and are in no archive.
    Missing {
        /// The number of the first.
        first: i64,
        /// That of the last.
        last: i64,
    },
}

/// Verifies the archives of a tenant: each by itself, and that none is missing by the word of the checkpoints.
pub async fn archives(
    (database, store): Places<'_>,
    keys: &Keys,
    tenant: &Tenant,
) -> Result<Archives> {
    let mut found = Archives {
        archives: 0,
        entries: 0,
        fault: None,
    };
    let mut numbers = Vec::new();
    for path in all(store, tenant).await? {
        match read(store, keys, (tenant, &path)).await? {
            Ok(lines) => numbers.extend(lines.iter().map(|line| line.number)),
            Err(number) => {
                let object = path.to_string();
                found.fault = Some(ArchiveFault::Changed { object, number });
                return Ok(found);
            }
        }
        found.archives += 1;
    }
    found.entries = numbers.len();
    let mut after = 0;
    loop {
        let tx = database.platform().await?;
        let some = checkpoint::after(&tx, tenant.id, after, 10).await?;
        tx.commit().await?;
        let Some(newest) = some.last() else {
            return Ok(found);
        };
        after = newest.first;
        let missing = some.iter().find(|part| {
            let there = numbers
                .iter()
                .filter(|number| (part.first..=part.last).contains(number));
            i64::try_from(there.count()).unwrap_or(i64::MAX) < part.archived
        });
        if let Some(Checkpoint { first, last, .. }) = missing {
            found.fault = Some(ArchiveFault::Missing {
                first: *first,
                last: *last,
            });
            return Ok(found);
        }
    }
}
