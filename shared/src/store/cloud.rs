//! Google Cloud Storage and Azure Blob Storage, through the crate `object_store`.
//!
//! Promises: what S3's store promises, with what these services have: `create` by `x-goog-if-generation-match: 0` and
//! `If-None-Match: *`, `replace` by the generation or the `ETag`. Neither service ends an upload in parts by a
//! condition (through this crate), so an upload goes to a name of its own below `.perennial/`, is read back and held to
//! its checksum there, and is copied inside the service to its key where there is none ([`upload`]).
//!
//! Fails: [`StoreError`], after the crate's own bounded retries. These services answer 404 for a missing bucket as for
//! a missing object, so the bucket is listed before an object is called missing.
//!
//! A crash leaves at most an upload below `.perennial/uploads/`, which no listing shows and which a later upload
//! removes after a week. Parts of an upload that was not ended are ended by the service (Azure, a week) or by the
//! bucket's rule for them (Google: `AbortIncompleteMultipartUpload`).

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{
    ClientOptions, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    RetryConfig, UpdateVersion,
};

mod body;
mod refusal;
mod upload;

use super::{Meta, Object, Part, Reader, Store, StoreError, Upload, Version, check_key, check_prefix, parts};
use upload::CloudUpload;

/// The store's own: uploads on their way.
const OWN: &str = ".perennial/";
const UPLOADS: &str = ".perennial/uploads/";
/// The crate's own attempts for one call, after the first.
const RETRIES: usize = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Until the reply's head is there, and between two pieces of a body.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A bucket as the crate knows it: objects, and uploads in parts.
pub trait Bucket: ObjectStore + MultipartStore {}

impl<T: ObjectStore + MultipartStore> Bucket for T {}

/// A prefix of a bucket or container.
#[derive(Clone)]
pub struct CloudStore {
    bucket: Arc<dyn Bucket>,
    /// The same bucket without a limit on how long a request may take: for parts, whose sending has its own.
    patient: Arc<dyn Bucket>,
    prefix: String,
    location: String,
}

impl fmt::Debug for CloudStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudStore").field("location", &self.location).finish_non_exhaustive()
    }
}

impl CloudStore {
    /// `gs://bucket/prefix`. Credentials come from the environment (`GOOGLE_…`), the application default credentials or
    /// the metadata service, when the first call needs them.
    pub fn google(bucket: &str, prefix: &str) -> Result<Self, StoreError> {
        let location = format!("gs://{bucket}/{prefix}").trim_end_matches('/').to_owned();
        let build = |options: ClientOptions| {
            let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).with_retry(retries());
            builder.with_client_options(options).build().map_err(|error| refusal::explain(error, "", &location))
        };
        Ok(Self::new(Arc::new(build(hasty())?), Arc::new(build(patient())?), prefix, &*location))
    }

    /// `az://container/prefix` of a storage account. Credentials come from the environment (`AZURE_…`) or the instance's
    /// managed identity, when the first call needs them.
    pub fn azure(account: &str, container: &str, prefix: &str) -> Result<Self, StoreError> {
        let location = format!("az://{container}/{prefix}").trim_end_matches('/').to_owned();
        let build = |options: ClientOptions| {
            let builder = MicrosoftAzureBuilder::from_env().with_account(account).with_container_name(container);
            let builder = builder.with_retry(retries()).with_client_options(options);
            builder.build().map_err(|error| refusal::explain(error, "", &location))
        };
        Ok(Self::new(Arc::new(build(hasty())?), Arc::new(build(patient())?), prefix, &*location))
    }

    /// Any bucket of the crate, given twice: the second for requests that may take long.
    pub fn new(bucket: Arc<dyn Bucket>, patient: Arc<dyn Bucket>, prefix: &str, location: impl Into<String>) -> Self {
        Self { bucket, patient, prefix: prefix.trim_matches('/').to_owned(), location: location.into() }
    }

    fn full_key(&self, key: &str) -> String {
        if self.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.prefix) }
    }

    /// Where an object is, if the key is one that a caller may use.
    fn path(&self, key: &str) -> Result<Path, StoreError> {
        check_key(key, &self.location)?;
        if key.starts_with(OWN) {
            return Err(StoreError::invalid(key, &*self.location, format!("{OWN} is the store's own")));
        }
        self.own_path(key)
    }

    fn own_path(&self, key: &str) -> Result<Path, StoreError> {
        Path::parse(self.full_key(key)).map_err(|error| StoreError::invalid(key, &*self.location, error))
    }

    /// What the crate said, sorted; a 404 may also mean the bucket.
    async fn explain(&self, error: object_store::Error, key: &str) -> StoreError {
        let explained = refusal::explain(error, key, &self.location);
        if !matches!(explained, StoreError::NotFound { .. }) {
            return explained;
        }
        match self.bucket.list(None).next().await {
            Some(Err(error)) => refusal::explain_listing(error, key, &self.location),
            Some(Ok(_)) | None => explained,
        }
    }

    /// A store that leaves out what both of these send is one that nothing can be built on.
    fn meta(&self, key: &str, found: &ObjectMeta) -> Result<Meta, StoreError> {
        let at = &found.last_modified;
        let modified = jiff::Timestamp::new(at.timestamp(), at.timestamp_subsec_nanos().cast_signed());
        let (Some(etag), Ok(modified)) = (&found.e_tag, modified) else {
            return Err(StoreError::unavailable(key, &*self.location, "the reply lacks the ETag or the time"));
        };
        Ok(Meta { key: key.to_owned(), size: found.size, version: version(etag), modified })
    }

    async fn fetch(&self, key: &str) -> Result<(Meta, GetResult), StoreError> {
        match self.bucket.get(&self.path(key)?).await {
            Ok(found) => Ok((self.meta(key, &found.meta)?, found)),
            Err(error) => Err(self.explain(error, key).await),
        }
    }

    async fn found(&self, key: &str) -> Result<ObjectMeta, StoreError> {
        match self.bucket.head(&self.path(key)?).await {
            Ok(found) => Ok(found),
            Err(error) => Err(self.explain(error, key).await),
        }
    }

    async fn write(&self, key: &str, body: Bytes, mode: PutMode) -> Result<Version, StoreError> {
        let path = self.path(key)?;
        let options = PutOptions { mode, ..PutOptions::default() };
        match self.bucket.put_opts(&path, body.clone().into(), options).await {
            Ok(written) => {
                let lacks = || StoreError::unavailable(key, &*self.location, "the reply to the write lacks the ETag");
                written.e_tag.as_deref().map(version).ok_or_else(lacks)
            }
            Err(error) => self.settle(key, &body, self.explain(error, key).await).await,
        }
    }

    /// A refused condition is also what a repeated write meets after the reply to its first attempt got lost, so what
    /// is stored decides: our own bytes mean that we did it.
    async fn settle(&self, key: &str, body: &Bytes, refused: StoreError) -> Result<Version, StoreError> {
        if !matches!(refused, StoreError::AlreadyExists { .. } | StoreError::Changed { .. }) {
            return Err(refused);
        }
        match self.get(key).await {
            Ok(stored) if stored.body == body => Ok(stored.meta.version),
            Ok(_) => Err(refused),
            Err(gone @ StoreError::NotFound { .. }) if matches!(refused, StoreError::Changed { .. }) => Err(gone),
            // It came and went: nothing was decided.
            Err(StoreError::NotFound { .. }) => Err(StoreError::unavailable(key, &*self.location, refused)),
            Err(unreadable) => Err(unreadable),
        }
    }

    /// Everything below the folder that `prefix` ends in, as the crate lists by folders only.
    async fn list_all(&self, prefix: &str) -> Result<Vec<(String, ObjectMeta)>, StoreError> {
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        let start = self.full_key(folder);
        let start = Path::parse(start.trim_end_matches('/'))
            .map_err(|error| StoreError::invalid(prefix, &*self.location, error))?;
        let own = self.full_key("");
        let listed: Result<Vec<ObjectMeta>, _> = self.bucket.list(Some(&start)).try_collect().await;
        let listed = listed.map_err(|error| refusal::explain_listing(error, prefix, &self.location))?;
        let key = |meta: ObjectMeta| Some((meta.location.as_ref().strip_prefix(&own)?.to_owned(), meta));
        Ok(listed.into_iter().filter_map(key).filter(|(key, _)| key.starts_with(prefix)).collect())
    }

    async fn fetch_range(&self, key: &str, range: &Range<u64>) -> Result<Bytes, object_store::Error> {
        let path = Path::parse(self.full_key(key))?;
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        self.bucket.get_opts(&path, options).await?.bytes().await
    }
}

/// Azure's listings leave out the quotation marks that its other replies have.
fn version(etag: &str) -> Version {
    Version::new(etag.trim_matches('"'))
}

fn retries() -> RetryConfig {
    RetryConfig { max_retries: RETRIES, ..RetryConfig::default() }
}

fn hasty() -> ClientOptions {
    ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT).with_read_timeout(READ_TIMEOUT).with_timeout_disabled()
}

fn patient() -> ClientOptions {
    ClientOptions::new().with_connect_timeout(CONNECT_TIMEOUT).with_read_timeout_disabled().with_timeout_disabled()
}

#[async_trait]
impl Store for CloudStore {
    async fn get(&self, key: &str) -> Result<Object, StoreError> {
        let (meta, found) = self.fetch(key).await?;
        let body = found.bytes().await.map_err(|error| refusal::explain(error, key, &self.location))?;
        if body.len() as u64 != meta.size {
            let why = format!("{} bytes came of {}", body.len(), meta.size);
            return Err(StoreError::corrupt(key, &*self.location, why));
        }
        Ok(Object { body, meta })
    }

    async fn read(&self, key: &str) -> Result<Reader, StoreError> {
        let (meta, found) = self.fetch(key).await?;
        Ok(body::stream(found, meta, self.location.clone()))
    }

    async fn read_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.path(key)?;
        parts::check_range(&range, key, &self.location)?;
        if !range.is_empty() {
            match self.fetch_range(key, &range).await {
                Ok(bytes) if bytes.len() as u64 == range.end - range.start => return Ok(bytes),
                // A range past the end is an error like any other here, so the size decides.
                Ok(_) | Err(object_store::Error::Generic { .. }) => (),
                Err(error) => return Err(self.explain(error, key).await),
            }
        }
        let size = self.found(key).await?.size;
        if range.end > size {
            return Err(parts::too_short(&range, size, key, &self.location));
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        Err(StoreError::unavailable(key, &*self.location, "the service did not answer with the range asked for"))
    }

    async fn head(&self, key: &str) -> Result<Meta, StoreError> {
        self.meta(key, &self.found(key).await?)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Meta>, StoreError> {
        check_prefix(prefix, &self.location)?;
        let listed = self.list_all(prefix).await?;
        let all = listed.iter().filter(|(key, _)| !key.starts_with(OWN) && !key.is_empty());
        let mut found = all.map(|(key, meta)| self.meta(key, meta)).collect::<Result<Vec<_>, _>>()?;
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<Version, StoreError> {
        self.write(key, body, PutMode::Create).await
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        Ok(Box::new(CloudUpload::begin(self, key).await?))
    }

    async fn resume(&self, key: &str, _token: &str) -> Result<Option<Box<dyn Upload>>, StoreError> {
        self.path(key)?;
        Ok(None)
    }

    async fn completed(&self, key: &str, parts: &[Part]) -> Result<Option<Meta>, StoreError> {
        let (whole, _) = parts::whole(parts, key, &self.location)?;
        upload::standing(self, key, whole).await
    }

    async fn replace(&self, key: &str, body: Bytes, expected: &Version) -> Result<Version, StoreError> {
        // A listing has no generation, so a version is the ETag alone and Google's generation is asked for.
        let found = self.found(key).await?;
        if found.e_tag.as_deref().map(version).as_ref() != Some(expected) {
            let why = format!("it is {} and was expected to be {expected}", found.e_tag.unwrap_or_default());
            return self.settle(key, &body, StoreError::changed(key, &*self.location, why)).await;
        }
        let update = UpdateVersion { e_tag: found.e_tag, version: found.version };
        self.write(key, body, PutMode::Update(update)).await
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<Version, StoreError> {
        self.write(key, body, PutMode::Overwrite).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let path = self.path(key)?;
        match self.bucket.delete(&path).await {
            Ok(()) => Ok(()),
            Err(error) => match self.explain(error, key).await {
                StoreError::NotFound { .. } => Ok(()),
                refused => Err(refused),
            },
        }
    }

    fn location(&self) -> String {
        self.location.clone()
    }
}
