#!/bin/sh
# User data of the local cloud's instances: a real Weaviate, natively, with the settings that matter to a backup tool. On EC2
# infra/user-data.sh does the same with Docker. Nothing restarts it when it dies.
set -eu
p=$LOCAL_CLOUD_PORTS

export PERSISTENCE_DATA_PATH="$PERENNIAL_DATA_DIR"
# A data folder belongs to the node's name: it must not change with the machine.
export CLUSTER_HOSTNAME=weaviate-0
export RAFT_BOOTSTRAP_EXPECT=1 RAFT_PORT=$((p + 1)) RAFT_INTERNAL_RPC_PORT=$((p + 2))
export CLUSTER_GOSSIP_BIND_PORT=$((p + 3)) CLUSTER_DATA_BIND_PORT=$((p + 4)) GRPC_PORT=$((p + 5))
export CLUSTER_BIND_ADDR=127.0.0.1 CLUSTER_ADVERTISE_ADDR=127.0.0.1 CLUSTER_IN_LOCALHOST=true

export AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED=false AUTHENTICATION_APIKEY_ENABLED=true
export AUTHENTICATION_APIKEY_ALLOWED_KEYS="$ENGINE_API_KEY" AUTHENTICATION_APIKEY_USERS=admin
export AUTHORIZATION_ADMINLIST_ENABLED=true AUTHORIZATION_ADMINLIST_USERS=admin
export DEFAULT_VECTORIZER_MODULE=none API_BASED_MODULES_DISABLED=true

export ENABLE_MODULES=backup-s3 BACKUP_S3_BUCKET="$BUCKET" BACKUP_S3_PATH="$PREFIX/backups"
export BACKUP_S3_ENDPOINT="${AWS_ENDPOINT_URL_S3#http://}" BACKUP_S3_USE_SSL=false

# Several instances share a small machine, and nothing may leave it.
export GOMAXPROCS=1 GOMEMLIMIT=512MiB LIMIT_RESOURCES=false GO_PROFILING_DISABLE=true DISABLE_TELEMETRY=true LOG_LEVEL=info

nohup weaviate-server --scheme http --host 127.0.0.1 --port "$p" >>"$LOCAL_CLOUD_LOGS/$PERENNIAL_INSTANCE_ID-weaviate.log" 2>&1 &
