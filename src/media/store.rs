//! The object store, with keys that only a bound tenant can make.

use crate::config::Config;
use crate::database::Tenant;
use crate::error::{Error, Result};
use futures::stream::BoxStream;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::{Path, PathPart};
use object_store::signer::Signer;
use object_store::{
    Attribute, Attributes, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMultipartOptions,
    WriteMultipart,
};
use secrecy::ExposeSecret as _;
use std::ffi::OsStr;
use std::sync::Arc;
use std::time::SystemTime;
use std::{fmt, fs, io};
use uuid::Uuid;

/// The resource type of bytes that are not checked yet. No media can have it.
pub const STAGING: &str = "upload";
/// The folder of exports of the tenant's history. No upload can have it as its resource type: those begin with a letter.
pub const EXPORTS: &str = "_exports";
/// The folder of what was purged from the tenant's history. No media can have it as its resource type: those begin with a letter.
const HISTORY: &str = "_history";
/// The prefix of the anchors of histories. No tenant can have it: slugs begin with a letter.
const ANCHORS: &str = "_audit";
/// What the resource types of thumbnails begin with. No media's does.
pub const THUMBNAIL: &str = "thumbnail-";

/// Seconds that a link lives at most.
pub const MAX_LINK: i32 = 3600;

/// Where the bytes are: a directory, or a container of Azure Blob Storage.
#[derive(Clone)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    signer: Option<Arc<dyn Signer>>,
    /// None if it is a container.
    directory: Option<Arc<std::path::Path>>,
    place: Arc<str>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.place)
    }
}

impl Store {
    /// The store of a configuration. A directory is made if it is not there.
    pub fn open(config: &Config) -> Result<Self> {
        match config.media_url.as_deref() {
            None => Self::directory(&config.data_dir.join("media")),
            Some(url) => match url.split_once("://") {
                Some(("azure", container)) => Self::azure(config, container),
                Some((scheme, _)) => Err(Error::config(format!(
                    "BULKHEAD_MEDIA_URL: {scheme}:// is not supported; use azure://<container> or a directory"
                ))),
                None => Self::directory(std::path::Path::new(url)),
            },
        }
    }

    fn directory(directory: &std::path::Path) -> Result<Self> {
        let cannot = |e: &dyn fmt::Display| {
            Error::config(format!(
                "media cannot be kept in {}: {e}",
                directory.display()
            ))
        };
        std::fs::create_dir_all(directory).map_err(|e| cannot(&e))?;
        let objects = LocalFileSystem::new_with_prefix(directory).map_err(|e| cannot(&e))?;
        Ok(Self {
            objects: Arc::new(objects.with_automatic_cleanup(true).with_fsync(true)),
            signer: None,
            directory: Some(directory.into()),
            place: directory.display().to_string().into(),
        })
    }

    fn azure(config: &Config, container: &str) -> Result<Self> {
        let (Some(account), Some(key)) = (&config.media_azure_account, &config.media_azure_key)
        else {
            return Err(Error::config(
                "azure:// needs BULKHEAD_MEDIA_AZURE_ACCOUNT and BULKHEAD_MEDIA_AZURE_KEY",
            ));
        };
        let mut builder = MicrosoftAzureBuilder::new()
            .with_account(account)
            .with_access_key(key.expose_secret())
            .with_container_name(container);
        if let Some(endpoint) = &config.media_azure_endpoint {
            builder = builder
                .with_endpoint(endpoint.clone())
                .with_allow_http(endpoint.starts_with("http://"));
        }
        let azure = Arc::new(
            builder
                .build()
                .map_err(|e| Error::config(format!("Azure cannot be used for media: {e}")))?,
        );
        Ok(Self {
            objects: Arc::clone(&azure) as Arc<dyn ObjectStore>,
            signer: Some(azure),
            directory: None,
            place: format!("azure://{container}").into(),
        })
    }

    /// The objects, by [`Key`].
    pub fn objects(&self) -> &dyn ObjectStore {
        &*self.objects
    }

    /// Everything under the tenant's prefix.
    pub fn list(&self, tenant: &Tenant) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.objects
            .list(Some(&Path::from_iter([tenant.slug.as_str()])))
    }

    /// The bytes of uploads that are not checked yet, or not removed yet.
    pub fn staged(&self, tenant: &Tenant) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.folder(tenant, STAGING)
    }

    /// The exports of the tenant's history.
    pub fn exports(&self, tenant: &Tenant) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.folder(tenant, EXPORTS)
    }

    /// The anchors of the tenant's history.
    pub fn anchors(&self, tenant: &Tenant) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let prefix = Path::from_iter([ANCHORS, &tenant.id.to_string()]);
        self.objects.list(Some(&prefix))
    }

    /// What was purged from the tenant's history.
    pub fn archives(
        &self,
        tenant: &Tenant,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.folder(tenant, HISTORY)
    }

    fn folder(
        &self,
        tenant: &Tenant,
        name: &str,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        let prefix = Path::from_iter([tenant.slug.as_str(), name]);
        self.objects.list(Some(&prefix))
    }

    /// Removes what was left when the writing of an object of the tenant's was cut off before this time, by a kill: a directory
    /// keeps it beside the objects, and lists it nowhere. Azure forgets it by itself.
    pub async fn remove_parts(&self, tenant: &Tenant, before: SystemTime) -> Result<()> {
        let Some(directory) = &self.directory else {
            return Ok(());
        };
        let directory = directory.join(&tenant.slug);
        let removed = tokio::task::spawn_blocking(move || remove_parts(&directory, before)).await;
        removed.map_err(Error::internal)?.map_err(Error::internal)
    }

    /// Removes an object. One that is gone already is no error.
    pub async fn remove(&self, object: &Path) -> Result<()> {
        match self.objects.delete(object).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Copies an object of one tenant to where it is of another. One that is gone meanwhile is left out, and one that is there
    /// is left as it is: on disk, to copy it once more would leave a second name for it that nobody erases.
    pub async fn copy(&self, object: &Path, to: &Tenant) -> Result<()> {
        let prefix = std::iter::once(PathPart::from(to.slug.as_str()));
        let path: Path = prefix.chain(object.parts().skip(1)).collect();
        match self.objects.copy_if_not_exists(object, &path).await {
            Ok(())
            | Err(
                object_store::Error::NotFound { .. } | object_store::Error::AlreadyExists { .. },
            ) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// What signs links, if the store can.
    pub fn signer(&self) -> Option<&dyn Signer> {
        self.signer.as_deref()
    }

    /// Begins to write an object, of which there is nothing until it is finished. A store that serves it itself answers with
    /// its type, and how a browser is to show it; a directory keeps neither, our own route says it there.
    pub async fn write(
        &self,
        key: &Key,
        mime: &str,
        disposition: String,
    ) -> Result<WriteMultipart> {
        let attributes = match self.signer {
            None => Attributes::new(),
            Some(_) => Attributes::from_iter([
                (Attribute::ContentType, mime.to_owned()),
                (Attribute::ContentDisposition, disposition),
            ]),
        };
        let options = PutMultipartOptions {
            attributes,
            ..Default::default()
        };
        let parts = self.objects.put_multipart_opts(key.path(), options).await?;
        Ok(WriteMultipart::new(parts))
    }

    /// Where it is, for people.
    pub fn place(&self) -> &str {
        &self.place
    }
}

/// The same in a tenant's directory. What is gone meanwhile is what was wanted.
fn remove_parts(directory: &std::path::Path, before: SystemTime) -> io::Result<()> {
    for folder in there(fs::read_dir(directory))?.into_iter().flatten() {
        for file in there(fs::read_dir(folder?.path()))?.into_iter().flatten() {
            let file = file?;
            if !is_part(&file.file_name()) {
                continue;
            }
            let written = file.metadata().and_then(|found| found.modified());
            if there(written)?.is_some_and(|written| written < before) {
                there(fs::remove_file(file.path()))?;
            }
        }
    }
    Ok(())
}

/// What is found, if it is there and what is looked for.
fn there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whether it is what `object_store` writes to before it has a whole object: the name of that, and a number.
fn is_part(name: &OsStr) -> bool {
    let parts = name.to_str().and_then(|name| name.rsplit_once('#'));
    parts.is_some_and(|(_, number)| number.parse::<u32>().is_ok())
}

/// The key of an object: `{tenant-slug}/{resource-type}/{uuid}.{ext}`. This is the one place that builds it, from the tenant
/// that the unit of work is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    path: Path,
}

impl Key {
    /// The key of a tenant's object.
    pub fn new(tenant: &Tenant, resource_type: &str, id: Uuid, ext: &str) -> Self {
        Self {
            path: Path::from_iter([&tenant.slug, resource_type, &format!("{id}.{ext}")]),
        }
    }

    /// Where the bytes of an upload wait until they are checked.
    pub fn staging(tenant: &Tenant, id: Uuid) -> Self {
        Self::new(tenant, STAGING, id, "bin")
    }

    /// Where what was purged from the tenant's history is kept, from the entry with this number on.
    pub fn history(tenant: &Tenant, first: i64) -> Self {
        let name = format!("{first:020}.jsonl.gz");
        Self {
            path: Path::from_iter([tenant.slug.as_str(), HISTORY, &name]),
        }
    }

    /// Where the head of the tenant's history is anchored, with so many entries.
    pub fn anchor(tenant: &Tenant, number: i64) -> Self {
        Self {
            path: Path::from_iter([
                ANCHORS,
                &tenant.id.to_string(),
                &format!("{number:020}.json"),
            ]),
        }
    }

    /// As the store takes it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As it is signed.
    pub fn as_str(&self) -> &str {
        self.path.as_ref()
    }
}

/// A store that fails can work again: logged here, for whoever is told that it cannot be had is not told why.
impl From<object_store::Error> for Error {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::NotFound("file"),
            error => {
                tracing::error!(?error, "the media store fails");
                Self::Unavailable
            }
        }
    }
}
