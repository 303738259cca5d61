//! Multipart uploads.
//!
//! Promises: every part is sent with its CRC-64/NVME, every part is named with it again at the end, and S3 holds the
//! whole to the checksum that the parts make; then the object's size and checksum are asked for once more, so that a
//! server that ignores one of these is found out. The object appears by `If-None-Match: *`.
//!
//! The CRC takes the place of the payload's SHA-256 in the signature, which would cost a core at a gigabyte or two a
//! second and protect against nothing more: the request travels in TLS, and its header is signed.
//!
//! A crash leaves the parts in S3, invisible and paid for, until the upload is resumed, aborted, or ended by the
//! bucket's rule `AbortIncompleteMultipartUpload`.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::config::Builder;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::complete_multipart_upload::CompleteMultipartUploadError;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::operation::list_parts::ListPartsError;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart, Part as S3Part,
    ServerSideEncryption,
};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

use super::refusal::{self, Completion};
use super::{ATTEMPT_TIMEOUT, REPEATS, S3Store, pieces};
use crate::store::parts::{self, Whole};
use crate::store::{Meta, Part, Store, StoreError, Upload, check_key};

/// Of every part but the last.
const SMALLEST: u64 = 5 * 1024 * 1024;
/// A connection among many on a slow line may be this slow; one that stands still is ended by the SDK's
/// stalled-stream protection.
const SLOWEST: u64 = 128 * 1024;

#[derive(Debug)]
pub(super) struct S3Upload {
    store: S3Store,
    key: String,
    id: String,
}

impl S3Upload {
    pub(super) async fn begin(store: &S3Store, key: &str) -> Result<Self, StoreError> {
        check_key(key, &store.location())?;
        let mut request = store
            .client
            .create_multipart_upload()
            .bucket(&store.options.bucket)
            .key(store.full_key(key))
            .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
            .checksum_type(ChecksumType::FullObject)
            .set_expected_bucket_owner(store.owner());
        if let Some(kms_key) = &store.options.kms_key {
            request = request.server_side_encryption(ServerSideEncryption::AwsKms).ssekms_key_id(kms_key);
        }
        let begun = request.send().await.map_err(|error| refusal::explain(error, key, store.location()))?;
        let lacks = || StoreError::unavailable(key, store.location(), "the reply lacks the upload's id");
        let id = begun.upload_id.filter(|id| !id.is_empty()).ok_or_else(lacks)?;
        Ok(Self { store: store.clone(), key: key.to_owned(), id })
    }

    pub(super) async fn resume(store: &S3Store, key: &str, token: &str) -> Result<Option<Self>, StoreError> {
        check_key(key, &store.location())?;
        if token.is_empty() {
            return Ok(None);
        }
        let upload = Self { store: store.clone(), key: key.to_owned(), id: token.to_owned() };
        match upload.list(None).await {
            Ok(_) => Ok(Some(upload)),
            Err(error) if refusal::is_unknown_upload(&error) => Ok(None),
            Err(error) => Err(upload.explain(error)),
        }
    }

    async fn list(
        &self,
        after: Option<String>,
    ) -> Result<aws_sdk_s3::operation::list_parts::ListPartsOutput, SdkError<ListPartsError>> {
        self.store
            .client
            .list_parts()
            .bucket(&self.store.options.bucket)
            .key(self.store.full_key(&self.key))
            .upload_id(&self.id)
            .set_part_number_marker(after)
            .set_expected_bucket_owner(self.store.owner())
            .send()
            .await
    }

    /// A part that somebody sent without our checksum is none of ours, so it counts as not arrived.
    fn listed(part: &S3Part) -> Option<Part> {
        Some(Part {
            number: part.part_number.and_then(|number| u32::try_from(number).ok())?,
            size: part.size.and_then(|size| u64::try_from(size).ok())?,
            crc64: part.checksum_crc64_nvme.as_deref().and_then(decode)?,
            tag: part.e_tag.clone()?,
        })
    }

    async fn complete_once(&self, whole: Whole, parts: &[Part]) -> Result<(), SdkError<CompleteMultipartUploadError>> {
        let named = parts.iter().map(|part| {
            CompletedPart::builder()
                .part_number(part.number.cast_signed())
                .e_tag(&part.tag)
                .checksum_crc64_nvme(encode(part.crc64))
                .build()
        });
        self.store
            .client
            .complete_multipart_upload()
            .bucket(&self.store.options.bucket)
            .key(self.store.full_key(&self.key))
            .upload_id(&self.id)
            .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(named.collect())).build())
            .checksum_type(ChecksumType::FullObject)
            .checksum_crc64_nvme(encode(whole.crc64))
            .if_none_match("*")
            .set_expected_bucket_owner(self.store.owner())
            .customize()
            // S3 may put the parts together for minutes, and answers then.
            .config_override(patient(COMPLETION_TIMEOUT))
            .send()
            .await
            .map(drop)
    }

    /// S3 said that it is done.
    async fn verify(&self, whole: Whole) -> Result<Meta, StoreError> {
        let (meta, crc64) = stored(&self.store, &self.key).await?;
        let Some(crc64) = crc64 else {
            let why = "the server keeps no CRC-64/NVME of a whole object, so nobody can tell whether it is complete";
            return Err(StoreError::invalid(&self.key, self.store.location(), why));
        };
        if whole.is(meta.size, crc64) {
            return Ok(meta);
        }
        let why = format!(
            "the parts make {} bytes with CRC-64/NVME {:016x}, the object has {} with {crc64:016x}",
            whole.size, whole.crc64, meta.size
        );
        Err(StoreError::corrupt(&self.key, self.store.location(), why))
    }

    /// S3 refused because of what stands at the key or because the upload is over. That is also what a repeated
    /// completion meets after the reply to the first got lost, so what is stored decides.
    async fn settle(
        &self,
        whole: Whole,
        refused: Completion,
        error: SdkError<CompleteMultipartUploadError>,
    ) -> Result<Meta, StoreError> {
        let (key, location) = (&self.key, self.store.location());
        let settled = match standing(&self.store, key, whole).await {
            Ok(Some(meta)) => Ok(meta),
            Ok(None) if refused == Completion::UnknownUpload => return Err(parts::unknown_upload(key, &location)),
            // The object came and went, or is still coming: nothing was decided.
            Ok(None) => return Err(StoreError::unavailable(key, location, refusal::cause(error))),
            Err(StoreError::AlreadyExists { .. }) => {
                Err(StoreError::already_exists(key, location, refusal::cause(error)))
            }
            Err(unreadable) => return Err(unreadable),
        };
        if refused != Completion::UnknownUpload {
            // What stands at the key is the answer, whether the parts can be removed or are left to the bucket's rule.
            let _ = self.abort().await;
        }
        settled
    }

    fn check_sizes(&self, parts: &[Part]) -> Result<(), StoreError> {
        let (_, all_but_last) = parts.split_last().unwrap_or((&parts[0], &[]));
        match all_but_last.iter().find(|part| part.size < SMALLEST) {
            None => Ok(()),
            Some(part) => {
                let why =
                    format!("part {} has {} bytes; all but the last have {SMALLEST} at least", part.number, part.size);
                Err(StoreError::invalid(&self.key, self.store.location(), why))
            }
        }
    }

    fn explain<E>(&self, error: SdkError<E>) -> StoreError
    where
        E: aws_sdk_s3::error::ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        if refusal::is_unknown_upload(&error) {
            return parts::unknown_upload(&self.key, &self.store.location());
        }
        refusal::explain(error, &self.key, self.store.location())
    }
}

#[async_trait]
impl Upload for S3Upload {
    fn token(&self) -> Option<String> {
        Some(self.id.clone())
    }

    async fn arrived(&self) -> Result<Vec<Part>, StoreError> {
        let (mut arrived, mut after) = (Vec::new(), None);
        loop {
            let page = self.list(after).await.map_err(|error| self.explain(error))?;
            arrived.extend(page.parts().iter().filter_map(Self::listed));
            match page.next_part_number_marker.filter(|_| page.is_truncated == Some(true)) {
                None if page.is_truncated == Some(true) => {
                    let why = "the list of parts breaks off without saying where";
                    return Err(StoreError::unavailable(&self.key, self.store.location(), why));
                }
                None => break,
                next => after = next,
            }
        }
        arrived.sort_by_key(|part| part.number);
        Ok(arrived)
    }

    async fn send(&self, number: u32, _offset: u64, body: Vec<Bytes>) -> Result<Part, StoreError> {
        parts::check_number(number, &self.key, &self.store.location())?;
        let crc64 = parts::crc64nvme_of(&body, &self.key, &self.store.location()).await?;
        let size = parts::size(&body);
        let sent = self
            .store
            .client
            .upload_part()
            .bucket(&self.store.options.bucket)
            .key(self.store.full_key(&self.key))
            .upload_id(&self.id)
            .part_number(number.cast_signed())
            .checksum_crc64_nvme(encode(crc64))
            .set_expected_bucket_owner(self.store.owner())
            .body(pieces::stream(body))
            .customize()
            .disable_payload_signing()
            .config_override(sending(size))
            .send()
            .await
            .map_err(|error| self.explain(error))?;
        let lacks =
            || StoreError::unavailable(&self.key, self.store.location(), "the reply to the part lacks the ETag");
        Ok(Part { number, size, crc64, tag: sent.e_tag.ok_or_else(lacks)? })
    }

    async fn complete(&self, parts: &[Part]) -> Result<Meta, StoreError> {
        let (whole, parts) = parts::whole(parts, &self.key, &self.store.location())?;
        self.check_sizes(&parts)?;
        let mut repeats = 0;
        loop {
            let Err(error) = self.complete_once(whole, &parts).await else {
                return self.verify(whole).await;
            };
            match refusal::at_completion(&error) {
                Completion::Conflict if repeats < REPEATS => {
                    self.store.pause(repeats).await;
                    repeats += 1;
                }
                refused @ (Completion::Conflict | Completion::Condition | Completion::UnknownUpload) => {
                    return self.settle(whole, refused, error).await;
                }
                Completion::BadParts => {
                    return Err(StoreError::corrupt(&self.key, self.store.location(), refusal::cause(error)));
                }
                Completion::Other => return Err(self.explain(error)),
            }
        }
    }

    async fn abort(&self) -> Result<(), StoreError> {
        let asked = self
            .store
            .client
            .abort_multipart_upload()
            .bucket(&self.store.options.bucket)
            .key(self.store.full_key(&self.key))
            .upload_id(&self.id)
            .set_expected_bucket_owner(self.store.owner())
            .send()
            .await;
        match asked {
            Err(error) if !refusal::is_unknown_upload(&error) => Err(self.explain(error)),
            _ => Ok(()),
        }
    }
}

/// What stands at the key, with its whole checksum where it has one.
async fn stored(store: &S3Store, key: &str) -> Result<(Meta, Option<u64>), StoreError> {
    let reply: HeadObjectOutput = store.ask_head(key, Some(ChecksumMode::Enabled)).await?;
    let is_whole = reply.checksum_type.as_ref().is_none_or(|kind| *kind == ChecksumType::FullObject);
    let crc64 = reply.checksum_crc64_nvme.as_deref().filter(|_| is_whole).and_then(decode);
    Ok((store.meta_of_head(key, &reply)?, crc64))
}

/// The object at the key, if it is this one.
pub(super) async fn standing(store: &S3Store, key: &str, whole: Whole) -> Result<Option<Meta>, StoreError> {
    match stored(store, key).await {
        Ok((meta, Some(crc64))) if whole.is(meta.size, crc64) => Ok(Some(meta)),
        Ok(_) => Err(parts::other_bytes(key, &store.location())),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(unreadable) => Err(unreadable),
    }
}

const COMPLETION_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// One attempt's limit, in place of what the account's other requests may take: theirs would be counted over all attempts. The SDK's
/// read time-out would count the sending too.
fn patient(attempt: Duration) -> Builder {
    let timeouts = TimeoutConfig::builder().disable_read_timeout().disable_operation_timeout();
    Builder::new().timeout_config(timeouts.operation_attempt_timeout(attempt).build())
}

/// For a request with a body of this size.
pub(super) fn sending(size: u64) -> Builder {
    patient(time_to_send(size))
}

fn time_to_send(size: u64) -> Duration {
    ATTEMPT_TIMEOUT + Duration::from_secs(size / SLOWEST)
}

fn encode(crc64: u64) -> String {
    BASE64_STANDARD.encode(crc64.to_be_bytes())
}

fn decode(text: &str) -> Option<u64> {
    let bytes = BASE64_STANDARD.decode(text).ok()?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_spelled_as_s3_does() {
        assert_eq!(encode(0xae8b_1486_0a79_9888), "rosUhgp5mIg=");
        assert_eq!(decode("rosUhgp5mIg="), Some(0xae8b_1486_0a79_9888));
        assert_eq!(decode("rosUhgp5mIg=-3"), None);
        assert_eq!(decode("AAAA"), None);
    }

    #[test]
    fn a_large_part_has_time() {
        assert_eq!(time_to_send(0), ATTEMPT_TIMEOUT);
        assert_eq!(time_to_send(512 * 1024 * 1024), ATTEMPT_TIMEOUT + Duration::from_secs(4096));
    }
}
