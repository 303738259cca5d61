//! A bucket, or a prefix in one, through the AWS SDK.
//!
//! Promises: conditional writes by `If-None-Match: *` and `If-Match`; a CRC-64/NVME checksum on every write and its
//! validation on every read; SSE-KMS and the expected bucket owner on every call, where set.
//!
//! Fails with bounded effort: five attempts with backoff for what the service or the network may have lost, a few more
//! for conflicting writes (409), each attempt under a time limit; then [`StoreError`].
//!
//! A crash leaves no half object: one is there whole or not at all. The parts of an upload stay ([`upload`]).
//!
//! S3 answers 403 instead of 404 for a missing key when the caller lacks `s3:ListBucket`, so a denial is never read as
//! absence: grant `s3:ListBucket` on the bucket, or nothing can ever be found missing.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::SdkConfig;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{Builder, Region};
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::get_object::GetObjectOutput;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::operation::put_object::PutObjectError;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, ServerSideEncryption};
use bytes::Bytes;

mod body;
mod pieces;
mod range;
mod refusal;
mod upload;

use super::{
    Cause, Meta, Object, Part, Pieces, Reader, Store, StoreError, Upload, Version, check_key, check_prefix, parts,
};
use refusal::Refusal;
use upload::S3Upload;

/// Of every call, by the SDK: throttling, 5xx, lost connections, time-outs.
const ATTEMPTS: u32 = 5;
/// Of a whole read whose body broke off or arrived damaged, and of a write that met another one in flight (409).
const REPEATS: u32 = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Until the reply's head is there; a body that stalls later is ended by the SDK's stalled-stream protection.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);

/// A body up to this size is sent in the time that the account's other requests have.
const SMALL: usize = 1 << 20;

/// Where in S3, and how to write there.
#[derive(Clone, Debug)]
pub struct S3Options {
    /// The bucket's name.
    pub bucket: String,
    /// What every key starts with, without slashes at its ends; may be empty.
    pub prefix: String,
    /// The bucket's region, where it is not the caller's.
    pub region: Option<String>,
    /// Encrypt with this KMS key (SSE-KMS); else as the bucket does by default.
    pub kms_key: Option<String>,
    /// Refuse a bucket that belongs to another account.
    pub bucket_owner: Option<String>,
    /// The first pause before a repeated attempt; it doubles from there, with jitter. Tests shorten it.
    pub backoff: Duration,
}

impl S3Options {
    /// A bucket and prefix with nothing else set.
    pub fn new(bucket: impl Into<String>, prefix: impl AsRef<str>) -> Self {
        Self {
            bucket: bucket.into(),
            prefix: prefix.as_ref().trim_matches('/').to_owned(),
            region: None,
            kms_key: None,
            bucket_owner: None,
            backoff: Duration::from_millis(500),
        }
    }
}

/// A prefix of an S3 bucket.
#[derive(Clone, Debug)]
pub struct S3Store {
    client: Client,
    options: S3Options,
}

/// What must be true of the stored object for a write to happen.
#[derive(Clone, Copy)]
enum Condition<'a> {
    Absent,
    Is(&'a Version),
    Anything,
}

impl S3Store {
    /// Connects nothing yet: the first call does.
    pub fn new(aws: &SdkConfig, options: S3Options) -> Self {
        let mut config = Builder::from(aws)
            .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(options.backoff))
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(CONNECT_TIMEOUT)
                    .read_timeout(READ_TIMEOUT)
                    .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                    .build(),
            )
            .force_path_style(has_own_endpoint(aws));
        if let Some(region) = &options.region {
            config = config.region(Region::new(region.clone()));
        }
        Self { client: Client::from_conf(config.build()), options }
    }

    fn full_key(&self, key: &str) -> String {
        if self.options.prefix.is_empty() { key.to_owned() } else { format!("{}/{key}", self.options.prefix) }
    }

    fn owner(&self) -> Option<String> {
        self.options.bucket_owner.clone()
    }

    async fn fetch(&self, key: &str) -> Result<(Meta, ByteStream), StoreError> {
        let mut reply = self
            .client
            .get_object()
            .bucket(&self.options.bucket)
            .key(self.full_key(key))
            .checksum_mode(ChecksumMode::Enabled)
            .set_expected_bucket_owner(self.owner())
            .send()
            .await
            .map_err(|error| refusal::explain(error, key, self.location()))?;
        let body = std::mem::take(&mut reply.body);
        Ok((self.meta_of_read(key, &reply)?, body))
    }

    fn meta_of_read(&self, key: &str, reply: &GetObjectOutput) -> Result<Meta, StoreError> {
        self.meta(key.to_owned(), reply.content_length, reply.e_tag.as_deref(), reply.last_modified)
    }

    /// A store that leaves out what every S3 sends is one that nothing can be built on.
    fn meta(
        &self,
        key: String,
        size: Option<i64>,
        etag: Option<&str>,
        modified: Option<DateTime>,
    ) -> Result<Meta, StoreError> {
        let size = size.and_then(|size| u64::try_from(size).ok());
        let modified = modified.and_then(|at| jiff::Timestamp::new(at.secs(), at.subsec_nanos().cast_signed()).ok());
        let (Some(size), Some(etag), Some(modified)) = (size, etag, modified) else {
            return Err(StoreError::unavailable(
                &key,
                self.location(),
                "the reply lacks the size, the ETag or the time",
            ));
        };
        Ok(Meta { key, size, version: Version::new(etag), modified })
    }

    /// Writes, repeats a write that met another one in flight, and settles a refused condition.
    async fn write(&self, key: &str, body: Bytes, condition: Condition<'_>) -> Result<Version, StoreError> {
        check_key(key, &self.location())?;
        let mut repeats = 0;
        loop {
            let error = match self.put_once(key, body.clone(), condition).await {
                Ok(etag) => {
                    let lacks =
                        || StoreError::unavailable(key, self.location(), "the reply to the write lacks the ETag");
                    return etag.map(Version::new).ok_or_else(lacks);
                }
                Err(error) => error,
            };
            match refusal::of(&error) {
                Refusal::Conflict if repeats < REPEATS => {
                    self.pause(repeats).await;
                    repeats += 1;
                }
                refused @ (Refusal::Condition | Refusal::Conflict) => {
                    return self.settle(key, &body, condition, refused, error).await;
                }
                _ => return Err(refusal::explain(error, key, self.location())),
            }
        }
    }

    async fn put_once(
        &self,
        key: &str,
        body: Bytes,
        condition: Condition<'_>,
    ) -> Result<Option<String>, SdkError<PutObjectError>> {
        let size = body.len();
        let mut request = self
            .client
            .put_object()
            .bucket(&self.options.bucket)
            .key(self.full_key(key))
            .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
            .set_expected_bucket_owner(self.owner())
            .body(body.into());
        if let Some(kms_key) = &self.options.kms_key {
            request = request.server_side_encryption(ServerSideEncryption::AwsKms).ssekms_key_id(kms_key);
        }
        request = match condition {
            Condition::Absent => request.if_none_match("*"),
            Condition::Is(version) => request.if_match(version.as_str()),
            Condition::Anything => request,
        };
        let mut request = request.customize();
        if size > SMALL {
            request = request.config_override(upload::sending(size as u64));
        }
        Ok(request.send().await?.e_tag)
    }

    /// The condition was refused. That is also what a repeated write meets after the reply to its first attempt got
    /// lost, so what is stored decides: our own bytes mean that we did it.
    async fn settle(
        &self,
        key: &str,
        body: &Bytes,
        condition: Condition<'_>,
        refused: Refusal,
        error: SdkError<PutObjectError>,
    ) -> Result<Version, StoreError> {
        let stored = match self.get(key).await {
            Ok(stored) if stored.body == body => return Ok(stored.meta.version),
            Ok(_) => true,
            Err(StoreError::NotFound { .. }) => false,
            Err(unreadable) => return Err(unreadable),
        };
        let (location, cause) = (self.location(), refusal::cause(error));
        Err(match (refused, condition, stored) {
            (Refusal::Condition, Condition::Absent, true) => StoreError::already_exists(key, location, cause),
            (Refusal::Condition, Condition::Is(_), true) => StoreError::changed(key, location, cause),
            (Refusal::Condition, Condition::Is(_), false) => StoreError::not_found(key, location, cause),
            // Writers kept meeting each other, or the object came and went: nothing was decided.
            _ => StoreError::unavailable(key, location, cause),
        })
    }

    /// Anything from nothing to the doubled step, so that writers that met do not meet again.
    async fn pause(&self, repeats: u32) {
        let longest = self.options.backoff.saturating_mul(1 << repeats.min(6));
        tokio::time::sleep(longest.mul_f64(rand::random())).await;
    }

    async fn ask_head(&self, key: &str, checksums: Option<ChecksumMode>) -> Result<HeadObjectOutput, StoreError> {
        let asked = self
            .client
            .head_object()
            .bucket(&self.options.bucket)
            .key(self.full_key(key))
            .set_checksum_mode(checksums)
            .set_expected_bucket_owner(self.owner())
            .send()
            .await;
        match asked {
            Ok(reply) => Ok(reply),
            Err(error) if refusal::of(&error) == Refusal::Unnamed => {
                Err(self.missing(key, refusal::cause(error)).await)
            }
            Err(error) => Err(refusal::explain(error, key, self.location())),
        }
    }

    fn meta_of_head(&self, key: &str, reply: &HeadObjectOutput) -> Result<Meta, StoreError> {
        self.meta(key.to_owned(), reply.content_length, reply.e_tag.as_deref(), reply.last_modified)
    }

    /// What a HEAD's 404 means: it has no body that would tell whether the object is missing or the bucket.
    async fn missing(&self, key: &str, cause: Cause) -> StoreError {
        let asked =
            self.client.head_bucket().bucket(&self.options.bucket).set_expected_bucket_owner(self.owner()).send().await;
        match asked {
            Ok(_) => StoreError::not_found(key, self.location(), cause),
            Err(error) if refusal::of(&error) == Refusal::Unnamed => {
                StoreError::invalid(key, self.location(), format!("there is no bucket {}", self.options.bucket))
            }
            Err(error) => refusal::explain(error, key, self.location()),
        }
    }
}

/// Servers other than AWS rarely have a DNS name for every bucket.
fn has_own_endpoint(aws: &SdkConfig) -> bool {
    aws.endpoint_url().is_some() || std::env::var_os("AWS_ENDPOINT_URL_S3").is_some()
}

#[async_trait]
impl Store for S3Store {
    async fn get(&self, key: &str) -> Result<Object, StoreError> {
        check_key(key, &self.location())?;
        let mut repeats = 0;
        loop {
            // The SDK's own attempts end with the reply's head.
            let (meta, body) = self.fetch(key).await?;
            match body::whole(body, &meta, &self.location()).await {
                Ok(body) => return Ok(Object { body, meta }),
                Err(error) if repeats == REPEATS => return Err(error),
                Err(_) => self.pause(repeats).await,
            }
            repeats += 1;
        }
    }

    async fn read(&self, key: &str) -> Result<Reader, StoreError> {
        check_key(key, &self.location())?;
        let (meta, body) = self.fetch(key).await?;
        Ok(body::stream(body, meta, self.location()))
    }

    async fn read_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        range::whole(self, key, range).await
    }

    fn stream_range(&self, key: &str, range: Range<u64>) -> Pieces<'_> {
        range::pieces(self, key, range)
    }

    async fn head(&self, key: &str) -> Result<Meta, StoreError> {
        check_key(key, &self.location())?;
        let reply = self.ask_head(key, None).await?;
        self.meta_of_head(key, &reply)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Meta>, StoreError> {
        check_prefix(prefix, &self.location())?;
        let own = self.full_key("");
        let mut pages = self
            .client
            .list_objects_v2()
            .bucket(&self.options.bucket)
            .prefix(self.full_key(prefix))
            .set_expected_bucket_owner(self.owner())
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| refusal::explain(error, prefix, self.location()))?;
            for object in page.contents.unwrap_or_default() {
                let Some(key) = object.key.as_deref().and_then(|key| key.strip_prefix(&own)) else {
                    return Err(StoreError::unavailable(
                        prefix,
                        self.location(),
                        "the listing has a key nobody asked for",
                    ));
                };
                // The console's "folders" are empty objects, not anybody's data.
                if key.is_empty() || key.ends_with('/') {
                    continue;
                }
                found.push(self.meta(key.to_owned(), object.size, object.e_tag.as_deref(), object.last_modified)?);
            }
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<Version, StoreError> {
        self.write(key, body, Condition::Absent).await
    }

    async fn upload(&self, key: &str) -> Result<Box<dyn Upload>, StoreError> {
        Ok(Box::new(S3Upload::begin(self, key).await?))
    }

    async fn resume(&self, key: &str, token: &str) -> Result<Option<Box<dyn Upload>>, StoreError> {
        let upload = S3Upload::resume(self, key, token).await?;
        Ok(upload.map(|upload| Box::new(upload) as Box<dyn Upload>))
    }

    async fn completed(&self, key: &str, parts: &[Part]) -> Result<Option<Meta>, StoreError> {
        check_key(key, &self.location())?;
        let (whole, _) = parts::whole(parts, key, &self.location())?;
        upload::standing(self, key, whole).await
    }

    async fn replace(&self, key: &str, body: Bytes, expected: &Version) -> Result<Version, StoreError> {
        self.write(key, body, Condition::Is(expected)).await
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<Version, StoreError> {
        self.write(key, body, Condition::Anything).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        check_key(key, &self.location())?;
        let asked = self
            .client
            .delete_object()
            .bucket(&self.options.bucket)
            .key(self.full_key(key))
            .set_expected_bucket_owner(self.owner())
            .send()
            .await;
        match asked {
            Ok(_) => Ok(()),
            Err(error) if refusal::of(&error) == Refusal::Missing => Ok(()),
            Err(error) => Err(refusal::explain(error, key, self.location())),
        }
    }

    fn location(&self) -> String {
        format!("s3://{}/{}", self.options.bucket, self.options.prefix).trim_end_matches('/').to_owned()
    }
}
