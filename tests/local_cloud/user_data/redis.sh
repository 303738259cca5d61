#!/bin/sh
# User data of the local cloud's instances: a real Redis with a password and append-only files. On EC2 infra/user-data.sh does the
# same with Docker. Nothing restarts it when it dies.
set -eu

# The password is in a file of its owner alone and on no command line. A save of its own by the server would be one more than
# the append-only files need, and a failed one would stop writes.
(umask 077 && cat >"$HOME/redis.conf") <<END
bind 127.0.0.1
port $LOCAL_CLOUD_PORTS
dir $PERENNIAL_DATA_DIR
requirepass $ENGINE_API_KEY
appendonly yes
save ""
daemonize yes
pidfile $HOME/redis.pid
logfile $LOCAL_CLOUD_LOGS/$PERENNIAL_INSTANCE_ID-redis.log
# A title of its own would be written over the environment, by which the local cloud knows its instance's processes.
set-proc-title no
END

# What the settings' `service` calls, as systemd or Docker would do it.
cat >"$HOME/bin/redis-service" <<'END'
#!/bin/sh
set -eu
# A process that has ended and was not waited for has no program any more.
running() { pid=$(cat "$HOME/redis.pid" 2>/dev/null) && [ -e "/proc/$pid/exe" ]; }
case "$1" in
  start) running || redis-server "$HOME/redis.conf" ;;
  stop) if running; then kill "$pid"; while [ -e "/proc/$pid/exe" ]; do sleep 0.05; done; fi ;;
  pid) if running; then echo "$pid"; fi ;;
esac
END
chmod 755 "$HOME/bin/redis-service"
redis-service start
