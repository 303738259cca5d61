//! The conformance suite against Azurite, Microsoft's emulator of Azure Blob Storage: `make azurite` installs it and runs this.

mod support;

use std::process::Command;
use std::sync::Arc;

use object_store::ClientOptions;
use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential, MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::client::{HttpConnector, HttpRequest, HttpRequestBody, ReqwestConnector};
use perennial_shared::store::cloud::CloudStore;
use perennial_shared::store::{Store, StoreError, conformance};
use support::{Server, installed};

const ACCOUNT: &str = "perennial";
const KEY: &str = "bm90IGEgc2VjcmV0";

#[tokio::test]
#[ignore = "needs Azurite: make azurite"]
async fn azure_conforms() {
    let azurite = Azurite::start();
    for container in ["whole", "shared"] {
        azurite.create_container(container).await;
    }
    conformance::all(&azurite.store("whole", "", KEY)).await;

    let neighbour = azurite.store("shared", "teams/docs-old", KEY);
    neighbour.create("a", "theirs".into()).await.expect("create");
    conformance::all(&azurite.store("shared", "teams/docs", KEY)).await;
    assert_eq!(neighbour.list("").await.expect("list").len(), 1);

    let missing = azurite.store("nowhere", "docs", KEY);
    for refusal in [missing.get("a").await.map(drop), missing.list("").await.map(drop)] {
        assert!(matches!(refusal, Err(StoreError::Invalid { .. })), "a missing container is no empty one: {refusal:?}");
    }
    let denied = azurite.store("whole", "", "d3Jvbmc=");
    for refusal in [denied.get("a").await.map(drop), denied.list("").await.map(drop)] {
        assert!(matches!(refusal, Err(StoreError::Denied { .. })), "{refusal:?}");
    }
}

struct Azurite {
    server: Server,
}

impl Azurite {
    fn start() -> Self {
        let server = Server::start(|port| {
            let mut command = Command::new(installed("azurite-blob", " --azurite"));
            command.args(["--inMemoryPersistence", "--silent", "--disableTelemetry", "--blobPort", &port.to_string()]);
            command.env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{KEY}"));
            command
        });
        Self { server }
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/{ACCOUNT}", self.server.port)
    }

    fn store(&self, container: &str, prefix: &str, key: &str) -> CloudStore {
        let builder = MicrosoftAzureBuilder::new().with_account(ACCOUNT).with_access_key(key);
        let builder = builder.with_container_name(container).with_endpoint(self.endpoint()).with_allow_http(true);
        let bucket: Arc<MicrosoftAzure> = Arc::new(builder.build().expect("settings"));
        CloudStore::new(bucket.clone(), bucket, prefix, format!("az://{container}/{prefix}"))
    }

    /// The crate makes no containers; it signs the request for one.
    async fn create_container(&self, name: &str) {
        let mut request = HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = reqwest::Method::PUT;
        *request.uri_mut() = format!("{}/{name}?restype=container", self.endpoint()).parse().expect("an address");
        let credential = AzureCredential::AccessKey(AzureAccessKey::try_new(KEY).expect("base64"));
        AzureAuthorizer::new(&credential, ACCOUNT).try_authorize(&mut request).expect("signed");
        let client =
            ReqwestConnector::default().connect(&ClientOptions::new().with_allow_http(true)).expect("a client");
        let reply = client.execute(request).await.expect("a reply");
        assert_eq!(reply.status().as_u16(), 201, "{reply:?}");
    }
}
