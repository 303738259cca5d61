#!/bin/bash
# First boot of a database instance on Amazon Linux 2023: data disk, agent, the engine in Docker. No restore and no address here:
# Perennial does both once the engine answers. infra/group.yaml sets the variables and carries a copy of this file.
#
# Fails: stops at the first error. The engine then never answers, the restore fails and the instance is replaced; the
# reason is in /var/log/cloud-init-output.log. Nothing here is needed again after a reboot.
set -euo pipefail
: "$AWS_REGION" "$BUCKET" "$PREFIX" "$AGENT_KEY" "$AGENT_SHA256" "$API_KEY_SECRET" "$ENGINE" "$ENGINE_IMAGE" "$DATA_DISK" "${PRIVATE_IP:=}"

# The local NVMe disk holds all the data. It is empty after every stop, so making a file system on it loses nothing that
# could be kept; a disk that has one already (a reboot during the first boot) is left as it is.
mount_data_disk() {
  local disk
  disk=$(find /dev/disk/by-id -name 'nvme-Amazon_EC2_NVMe_Instance_Storage_*' | sort | head -n 1)
  if [ -z "$disk" ]; then
    echo "no NVMe instance storage: choose an instance type with one, or set DataDisk to root" >&2
    return 1
  fi
  [ "$(lsblk --noheadings --output FSTYPE "$disk")" = xfs ] || mkfs.xfs -L data "$disk"
  mkdir -p /workspace
  # After a reboot Docker waits for the disk: the engine must never start on an empty folder of the root disk.
  echo 'LABEL=data /workspace xfs noatime,nofail,x-systemd.before=docker.service,x-systemd.required-by=docker.service 0 2' >>/etc/fstab
  mount /workspace
}

# Where Perennial moves a private address (endpoint.kind: private_ip), every instance answers at it, always: the VPC decides who
# gets the packets, so nothing has to be set up in the moment it moves. Before Docker, whose rules ask which addresses are local.
answer_at_private_ip() {
  printf '%s\n' \
    '[Unit]' 'Description=The private address that Perennial moves' 'Before=docker.service' \
    '[Service]' 'Type=oneshot' 'RemainAfterExit=yes' "ExecStart=/usr/sbin/ip address replace $PRIVATE_IP/32 dev lo" \
    '[Install]' 'WantedBy=multi-user.target' >/etc/systemd/system/perennial-address.service
  systemctl enable --now perennial-address.service
}

# The hash pins what is run as root, whoever can write the bucket.
install_agent() {
  local file=/usr/local/bin/perennial.new
  aws s3 cp --only-show-errors "s3://$BUCKET/$AGENT_KEY" "$file"
  echo "$AGENT_SHA256  $file" | sha256sum --check --quiet
  chmod 755 "$file"
  mv "$file" /usr/local/bin/perennial
}

# The key goes from Secrets Manager into a file below a folder that only root can enter. printf is part of the shell, so the key is on
# no command line.
api_key() {
  aws secretsmanager get-secret-value --secret-id "$API_KEY_SECRET" --query SecretString --output text
}

write_secret() { # file, lines...
  install -d -m 700 "/etc/$ENGINE"
  (umask 077 && printf '%s\n' "${@:2}" >"/etc/$ENGINE/$1")
}

# What follows is options of the container, the image and its arguments. Ports are bound to all interfaces, because the private address
# changes with every instance; the security group decides who gets in.
run=(docker run --detach --name "$ENGINE" --restart unless-stopped)

start_weaviate() {
  local key
  key=$(api_key)
  write_secret environment \
    "AUTHENTICATION_APIKEY_ALLOWED_KEYS=$key" \
    AUTHENTICATION_APIKEY_ENABLED=true \
    AUTHENTICATION_APIKEY_USERS=admin \
    AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED=false \
    AUTHORIZATION_ADMINLIST_ENABLED=true \
    AUTHORIZATION_ADMINLIST_USERS=admin \
    PERSISTENCE_DATA_PATH=/var/lib/weaviate \
    CLUSTER_HOSTNAME=weaviate-0 \
    RAFT_BOOTSTRAP_EXPECT=1 \
    DEFAULT_VECTORIZER_MODULE=none \
    ENABLE_MODULES=backup-s3 \
    "BACKUP_S3_BUCKET=$BUCKET" \
    "BACKUP_S3_PATH=$PREFIX/backups" \
    "AWS_REGION=$AWS_REGION" \
    DISABLE_TELEMETRY=true
  install -d -o 1000 -g 1000 /workspace/weaviate/data
  "${run[@]}" --env-file /etc/weaviate/environment --publish 0.0.0.0:8080:8080 --publish 0.0.0.0:50051:50051 \
    --volume /workspace/weaviate/data:/var/lib/weaviate "$ENGINE_IMAGE" --host 0.0.0.0 --port 8080 --scheme http
}

# Snapshots are made on the disk of the data: a backup makes one, and fetches and deletes it.
start_qdrant() {
  local key
  key=$(api_key)
  write_secret environment "QDRANT__SERVICE__API_KEY=$key" QDRANT__TELEMETRY_DISABLED=true
  install -d /workspace/qdrant/data /workspace/qdrant/snapshots
  "${run[@]}" --env-file /etc/qdrant/environment --publish 0.0.0.0:6333:6333 --publish 0.0.0.0:6334:6334 \
    --volume /workspace/qdrant/data:/qdrant/storage --volume /workspace/qdrant/snapshots:/qdrant/snapshots "$ENGINE_IMAGE"
}

# Append-only files keep what was written, so the server takes no snapshots by itself, of which a failed one would stop writes. A backup
# asks it for one, which forks: without overcommitting that fails on a machine more than half full.
start_redis() {
  local key
  key=$(api_key)
  key=${key//\\/\\\\}
  write_secret redis.conf 'dir /data' 'appendonly yes' 'save ""' "requirepass \"${key//\"/\\\"}\""
  chown 999 /etc/redis/redis.conf # whom the image's server runs as
  echo vm.overcommit_memory=1 >/etc/sysctl.d/90-redis.conf
  sysctl --quiet --load /etc/sysctl.d/90-redis.conf
  install -d -o 999 /workspace/redis/data
  "${run[@]}" --publish 0.0.0.0:6379:6379 --volume /workspace/redis/data:/data \
    --volume /etc/redis/redis.conf:/usr/local/etc/redis/redis.conf:ro "$ENGINE_IMAGE" \
    redis-server /usr/local/etc/redis/redis.conf
}

if [ "$DATA_DISK" = instance-store ]; then mount_data_disk; fi
if [ -n "$PRIVATE_IP" ]; then answer_at_private_ip; fi
dnf install --assumeyes --quiet docker
systemctl enable --now docker
install_agent
case $ENGINE in
  weaviate) start_weaviate ;;
  qdrant) start_qdrant ;;
  redis) start_redis ;;
esac
