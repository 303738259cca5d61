#!/bin/sh
# User data of the local cloud's instances: Qdrant's storage engine behind tests/qdrant_server, which stands in for Qdrant's own
# server. On EC2 infra/user-data.sh starts the real one in Docker. Nothing restarts it when it dies.
set -eu

cd "$LOCAL_CLOUD_TESTS"
nohup "$LOCAL_CLOUD_PYTHON" -m qdrant_server --port "$LOCAL_CLOUD_PORTS" --api-key-env ENGINE_API_KEY \
  --storage "$PERENNIAL_DATA_DIR" --snapshots "$HOME/snapshots" >>"$LOCAL_CLOUD_LOGS/$PERENNIAL_INSTANCE_ID-qdrant.log" 2>&1 &
