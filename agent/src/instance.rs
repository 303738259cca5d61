//! Which EC2 instance this is: `PERENNIAL_INSTANCE_ID`, else the instance metadata service, version 2.
//!
//! No answer at all means that this is no EC2 instance. A refusal is an error: an instance that cannot name itself would
//! otherwise be taken for somebody's laptop.

use std::time::Duration;

use crate::failure::{Exit, Failure};

const SERVICE: &str = "http://169.254.169.254";
const TIMEOUT: Duration = Duration::from_secs(2);
const ATTEMPTS: u32 = 3;

/// The id of this instance; `None` outside EC2.
pub async fn id() -> Result<Option<String>, Failure> {
    if let Ok(id) = std::env::var("PERENNIAL_INSTANCE_ID") {
        return Ok(Some(id).filter(|id| !id.is_empty()));
    }
    if std::env::var("AWS_EC2_METADATA_DISABLED").is_ok_and(|v| v.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let service = std::env::var("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|_| SERVICE.into());
    let service = service.trim_end_matches('/');
    for _ in 1..ATTEMPTS {
        if let Ok(id) = ask(service).await {
            return id.map(Some);
        }
    }
    ask(service).await.map_or(Ok(None), |id| id.map(Some))
}

/// The outer error is no answer, the inner one a refusal.
async fn ask(service: &str) -> Result<Result<String, Failure>, reqwest::Error> {
    let http = reqwest::Client::builder().no_proxy().timeout(TIMEOUT).build()?;
    let token = http.put(format!("{service}/latest/api/token")).header("X-aws-ec2-metadata-token-ttl-seconds", "60");
    let token = token.send().await?;
    if !token.status().is_success() {
        return Ok(Err(refused(token.status())));
    }
    let token = token.text().await?;
    let id = http.get(format!("{service}/latest/meta-data/instance-id")).header("X-aws-ec2-metadata-token", token);
    let id = id.send().await?;
    if !id.status().is_success() {
        return Ok(Err(refused(id.status())));
    }
    Ok(Ok(id.text().await?.trim().to_owned()))
}

fn refused(status: reqwest::StatusCode) -> Failure {
    Failure::new(
        Exit::CouldNotTell,
        "InstanceUnknown",
        format!(
            "the instance metadata service answered {status}; allow IMDSv2 on this instance, or set PERENNIAL_INSTANCE_ID"
        ),
    )
}
