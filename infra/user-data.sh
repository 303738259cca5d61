#!/bin/bash
# First boot of a database instance on Amazon Linux 2023: data disk, agent, Weaviate in Docker. No restore and no address here:
# Perennial does both once the engine answers. infra/group.yaml sets the variables and carries a copy of this file.
#
# Fails: stops at the first error. The engine then never answers, the restore fails and the instance is replaced; the
# reason is in /var/log/cloud-init-output.log. Nothing here is needed again after a reboot.
set -euo pipefail
: "$AWS_REGION" "$BUCKET" "$PREFIX" "$AGENT_KEY" "$AGENT_SHA256" "$API_KEY_SECRET" "$WEAVIATE_IMAGE" "$DATA_DISK" "${PRIVATE_IP:=}"

# The local NVMe disk holds all the data. It is empty after every stop, so making a file system on it loses nothing that
# could be kept; a disk that has one already (a reboot during the first boot) is left as it is.
mount_data_disk() {
  local disk
  disk=$(find /dev/disk/by-id -name 'nvme-Amazon_EC2_NVMe_Instance_Storage_*' | sort | head -n 1)
  if [ -z "$disk" ]; then
    echo "no NVMe instance storage: choose an instance type with one, or set DataDisk to root" >&2
    return 1
  fi
  [ "$(lsblk --noheadings --output FSTYPE "$disk")" = xfs ] || mkfs.xfs -L weaviate "$disk"
  mkdir -p /workspace
  # After a reboot Docker waits for the disk: the engine must never start on an empty folder of the root disk.
  echo 'LABEL=weaviate /workspace xfs noatime,nofail,x-systemd.before=docker.service,x-systemd.required-by=docker.service 0 2' >>/etc/fstab
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

# The key goes from Secrets Manager into a file that only root reads. printf is part of the shell, so it is on no command line.
write_environment() {
  local key
  key=$(aws secretsmanager get-secret-value --secret-id "$API_KEY_SECRET" --query SecretString --output text)
  install -d -m 700 /etc/weaviate
  (umask 077 && printf '%s\n' \
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
    DISABLE_TELEMETRY=true >/etc/weaviate/environment)
}

# Bound to all interfaces, because the private address changes with every instance; the security group decides who gets in.
start_weaviate() {
  install -d -o 1000 -g 1000 /workspace/weaviate/data
  docker run --detach --name weaviate --restart unless-stopped \
    --env-file /etc/weaviate/environment \
    --publish 0.0.0.0:8080:8080 --publish 0.0.0.0:50051:50051 \
    --volume /workspace/weaviate/data:/var/lib/weaviate \
    "$WEAVIATE_IMAGE" --host 0.0.0.0 --port 8080 --scheme http
}

if [ "$DATA_DISK" = instance-store ]; then mount_data_disk; fi
if [ -n "$PRIVATE_IP" ]; then answer_at_private_ip; fi
dnf install --assumeyes --quiet docker
systemctl enable --now docker
install_agent
write_environment
start_weaviate
