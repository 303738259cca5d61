//! Weaviate's native backup.
//!
//! Compressed with zstd, whose checksums are the only ones that a native backup has: with no compression, flipped bits restore
//! without an error. A READONLY shard cannot be backed up, so refusing writes comes after the capture, or not at all.

use std::time::{Duration, Instant};

use serde_json::json;

use super::operation::Operation;
use crate::engine::native::Captured;
use crate::engine::{EngineError, Progress, Step};

/// Of the engine's cores. The rest is for its clients.
const CPU_PERCENT: u32 = 50;

pub(super) async fn capture(
    operation: Operation<'_>,
    patience: Duration,
    progress: Progress<'_>,
) -> Result<Captured, EngineError> {
    let mut config = operation.config();
    config.insert("CPUPercentage".into(), json!(CPU_PERCENT));
    config.insert("CompressionLevel".into(), json!("ZstdDefaultCompression"));
    let begun = Instant::now();
    if let Some(refusal) = operation.begin(json!({ "id": operation.place.id, "config": config })).await? {
        return Err(refusal);
    }
    operation.wait(patience, &|state| progress(Step { state, done: None })).await?;
    Ok(Captured { took: begun.elapsed() })
}
