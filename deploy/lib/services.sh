# shellcheck shell=bash
# Private servers and other background processes: started under one directory, on free loopback ports, and ended by their pids.
#
# To be sourced into a script with `set -euo pipefail`. The script calls services_stop in its EXIT trap.
#   services_start DIR      PostgreSQL and RabbitMQ (with management) in parallel, until both answer; exports PG_PORT, AMQP_PORT, MGMT_PORT
#   services_spawn DIR      only the first half of it: starts them and returns at once
#   services_wait DIR       the second half
#   services_stop [DIR]     ends what was started under DIR (default: the directory of this shell) and removes DIR; harmless when repeated
#   process_spawn DIR NAME SIGNAL COMMAND...   a process of the caller's that services_stop ends too, before the servers
#   process_alive DIR NAME  true while it runs
#   pg_bin                  prints the directory of PostgreSQL's programs
#   run_job COMMAND...      a long command that ends at once when the script gets a signal
#
# SERVICES_POSTGRES_OPTIONS   more options for postgres, an array
# SERVICES_TLS=1              both speak TLS too, with certificates made for them in DIR/tls; exports AMQPS_PORT (see services_certificates)
# SERVICES_OUTLIVE=1          what is started survives this shell (otherwise it ends with it, even on SIGKILL)
# SERVICES_KEEP_LOGS=1        services_stop leaves DIR/log in place
#
# DIR/processes holds a line for each process: name, pid, start time, signal. Every process writes its own line before it becomes what it
# is to be, so there is no moment at which something runs that services_stop does not know of.

services_dir=
services_job=
PG_PORT='' AMQP_PORT='' MGMT_PORT='' AMQPS_PORT=''
services_dist_port='' services_epmd_port=''
declare -a SERVICES_POSTGRES_OPTIONS=()

# ---- processes ----------------------------------------------------------------------------------------------------------------

# Prints the start time of a process in clock ticks since boot; fails if it has ended. With the pid this names a process for good.
process_start_time() {
  local stat fields
  { stat=$(<"/proc/$1/stat"); } 2>/dev/null || return 1
  # The name, in parentheses, may hold anything; field 3 (state) is the first after it.
  read -ra fields <<<"${stat##*) }"
  # An orphan may stay a zombie for a while: it has ended all the same.
  [[ ${fields[0]} != Z && ${fields[0]} != X ]] || return 1
  echo "${fields[19]}"
}

# process_is PID START: true while this very process runs.
process_is() {
  [[ $(process_start_time "$1") == "$2" ]]
}

process_line() {
  local name pid start signal
  while read -r name pid start signal; do
    if [[ $name == "$2" ]]; then echo "$pid $start $signal"; fi
  done 2>/dev/null <"$1/processes" | tail -n 1
}

process_alive() {
  local pid start
  read -r pid start _ <<<"$(process_line "$1" "$2")"
  [[ -n $pid ]] && process_is "$pid" "$start"
}

process_spawn() {
  local dir=$1 name=$2 signal=$3
  shift 3
  mkdir -p "$dir/log"
  (
    # The traps of the script are not for this process.
    trap - EXIT INT TERM HUP
    me=$BASHPID # taken here: in a command substitution it would be another
    echo "$name $me $(process_start_time "$me") $signal" >>"$dir/processes"
    # services_stop makes this file before it reads the list: either it has read our line, or we see the file.
    if [[ -e $dir/stopping ]]; then exit 143; fi
    # A session of its own: Ctrl-C in the terminal is for the script alone, and its group is everything it starts.
    if [[ ${SERVICES_OUTLIVE:-} == 1 ]]; then exec setsid "$@"; fi
    exec setsid setpriv --pdeathsig "$signal" "$@"
  ) </dev/null >>"$dir/log/$name.log" 2>&1 &
  local pid=$!
  # So that the caller may ask for the process at once.
  until [[ -n $(process_line "$dir" "$name") ]] || ! process_start_time "$pid" >/dev/null; do sleep 0.01; done
}

# process_end NAME PID START SIGNAL: waits for a process that got its signal, then SIGKILL for it and what is left of its group.
process_end() {
  local name=$1 pid=$2 start=$3 signal=$4 tries=200
  process_is "$pid" "$start" || return 0
  while process_is "$pid" "$start"; do
    if ((tries-- <= 0)); then
      echo "services: $name (pid $pid) did not end on SIG$signal within 20 seconds, killing it" >&2
      break
    fi
    # Servers do not hear the signal before they are far enough. To our own programs a second one would mean something else.
    if [[ $(services_group "$name") == servers ]] && ((tries % 10 == 0)); then kill -s "$signal" "$pid" 2>/dev/null || true; fi
    sleep 0.1
  done
  kill -s KILL -- "-$pid" 2>/dev/null || true
  tries=100
  while process_is "$pid" "$start" && ((tries-- > 0)); do sleep 0.1; done
}

# Runs a command in a process group of its own and waits for it; a signal to the script then reaches all of the command at once
# (through services_stop), instead of after its end.
run_job() {
  local status=0
  set -m
  "$@" </dev/null &
  services_job=$!
  set +m
  wait "$services_job" || status=$?
  services_job=
  return "$status"
}

services_end_job() {
  local tries=100
  if [[ -z $services_job ]]; then return 0; fi
  kill -s TERM -- "-$services_job" 2>/dev/null || true
  while kill -0 -- "-$services_job" 2>/dev/null && ((tries-- > 0)); do sleep 0.1; done
  kill -s KILL -- "-$services_job" 2>/dev/null || true
  services_job=
}

# ---- ports --------------------------------------------------------------------------------------------------------------------

# Prints "PORT STATE INODE" of every TCP socket, in decimal; state 10 is listening, 6 waits for its end.
tcp_sockets() {
  cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | while read -r number local_address _ state _ _ _ _ _ inode _; do
    if [[ $number == sl ]]; then continue; fi
    echo "$((16#${local_address##*:})) $((16#$state)) $inode"
  done
}

# Six free ports in a row, below the range from which outgoing connections take theirs: one of those could get the port after we have
# found it free. Two runs that choose the same ports at the same time are told apart by port_is_owned, and the later one tries again.
services_choose_ports() {
  local sockets base port tries=200
  sockets=$(tcp_sockets)
  while ((tries-- > 0)); do
    base=$((15000 + (RANDOM * 32768 + RANDOM) % 2900 * 6))
    for port in $base $((base + 1)) $((base + 2)) $((base + 3)) $((base + 4)) $((base + 5)); do
      if grep -q "^$port \(1\?[0-57-9]\|10\|11\) " <<<"$sockets"; then continue 2; fi
    done
    PG_PORT=$base AMQP_PORT=$((base + 1)) MGMT_PORT=$((base + 2))
    services_dist_port=$((base + 3)) services_epmd_port=$((base + 4)) AMQPS_PORT=$((base + 5))
    export PG_PORT AMQP_PORT MGMT_PORT AMQPS_PORT
    return 0
  done
  echo "error: no six free ports in a row between 15000 and 32500" >&2
  return 1
}

# port_is_owned PORT PID: true if this process itself listens on the port (and not another run's server).
port_is_owned() {
  local inode fd
  for inode in $(tcp_sockets | sed -n "s/^$1 10 //p"); do
    for fd in "/proc/$2/fd"/*; do
      if [[ $(readlink "$fd") == "socket:[$inode]" ]]; then return 0; fi
    done
  done
  return 1
}

# ---- TLS ----------------------------------------------------------------------------------------------------------------------

# Makes in DIR/tls: ca.pem, server.pem and server.key (for the name localhost alone, not for 127.0.0.1), client.pem and client.key (for the
# user with_cert), and stranger-ca.pem, which has signed nothing here.
services_certificates() {
  local dir=$1/tls name
  mkdir -p "$dir"
  for name in ca stranger-ca; do
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 30 -subj "/CN=$name" \
      -addext 'basicConstraints=critical,CA:TRUE' -addext 'keyUsage=critical,keyCertSign,cRLSign' \
      -keyout "$dir/$name.key" -out "$dir/$name.pem"
  done
  services_certificate "$dir" server localhost 'subjectAltName=DNS:localhost' 'extendedKeyUsage=serverAuth'
  services_certificate "$dir" client with_cert 'subjectAltName=DNS:with_cert' 'extendedKeyUsage=clientAuth'
  # For each server a copy of its own: each insists that nobody else can read its key.
  for name in postgres rabbitmq; do
    cp "$dir/server.pem" "$dir/$name.pem"
    cp "$dir/server.key" "$dir/$name.key"
    chmod 0600 "$dir/$name.key"
  done
  if ((EUID == 0)); then chown postgres: "$dir/postgres.key"; fi
}

# services_certificate DIR NAME COMMON-NAME EXTENSION...: signed by the CA there.
services_certificate() {
  local dir=$1 name=$2 common=$3
  shift 3
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -subj "/CN=$common" -keyout "$dir/$name.key" -out "$dir/$name.csr"
  printf '%s\n' 'basicConstraints=CA:FALSE' "$@" >"$dir/$name.ext"
  openssl x509 -req -days 30 -in "$dir/$name.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -CAcreateserial -extfile "$dir/$name.ext" \
    -out "$dir/$name.pem"
}

# ---- PostgreSQL ---------------------------------------------------------------------------------------------------------------

pg_bin() {
  local initdb
  initdb=$(compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1) ||
    initdb=$(compgen -G '/usr/pgsql-*/bin/initdb' | sort -V | tail -n 1) || initdb=$(command -v initdb) || {
    echo "error: no PostgreSQL server programs found" >&2
    return 1
  }
  dirname "$(readlink -f "$initdb")"
}

services_spawn_postgres() {
  local dir=$1 bin as_postgres=()
  bin=$(pg_bin)
  mkdir -p "$dir/postgres"
  if ((EUID == 0)); then
    # The server refuses to run as root.
    chown postgres: "$dir/postgres"
    as_postgres=(setpriv --reuid=postgres --regid=postgres --init-groups)
    if ! "${as_postgres[@]}" test -w "$dir/postgres"; then
      echo "error: the user postgres cannot reach $dir: set TMPDIR to a directory that everybody can enter" >&2
      return 1
    fi
    # The change of user clears what process_spawn has set.
    if [[ ${SERVICES_OUTLIVE:-} != 1 ]]; then as_postgres+=(--pdeathsig INT); fi
  fi
  local options=("${SERVICES_POSTGRES_OPTIONS[@]}")
  if [[ ${SERVICES_TLS:-} == 1 ]]; then
    options+=(-c ssl=on -c ssl_cert_file="$dir/tls/postgres.pem" -c ssl_key_file="$dir/tls/postgres.key" -c ssl_ca_file="$dir/tls/ca.pem")
    # Whoever is called with_cert shows a certificate, with_password knows a password and speaks TLS; others are trusted.
    printf '%s\n' 'hostssl all with_cert 127.0.0.1/32 cert' 'hostssl all with_password 127.0.0.1/32 scram-sha-256' \
      'host all with_cert,with_password all reject' 'host all all 127.0.0.1/32 trust' 'local all all trust' >"$dir/postgres/hba.conf"
    options+=(-c hba_file="$dir/postgres/hba.conf")
  fi
  # SIGINT is the fast shutdown.
  # shellcheck disable=SC2016 # expanded by the inner shell
  process_spawn "$dir" postgres INT "${as_postgres[@]}" env -u PGDATA HOME="$dir/postgres" bash -c '
    dir=$1 bin=$2 port=$3
    shift 3
    cd "$dir/postgres"
    "$bin/initdb" -D data -A trust -U postgres -E UTF8 --locale=C --no-sync >initdb.log 2>&1 || { cat initdb.log; exit 1; }
    if [[ -e $dir/stopping ]]; then exit 143; fi
    exec "$bin/postgres" -D data -c listen_addresses=127.0.0.1 -c port="$port" -c unix_socket_directories="$dir/postgres" "$@"
  ' services-postgres "$dir" "$bin" "$PG_PORT" "${options[@]}"
}

services_postgres_answers() {
  local dir=$1 pid
  read -r pid _ <<<"$(process_line "$dir" postgres)"
  port_is_owned "$PG_PORT" "$pid" && "$(pg_bin)/pg_isready" -q -t 2 -h 127.0.0.1 -p "$PG_PORT" -U postgres
}

# ---- RabbitMQ -----------------------------------------------------------------------------------------------------------------

services_spawn_rabbitmq() {
  local dir=$1 home=$1/rabbitmq
  mkdir -p "$home"
  chmod 0700 "$home"
  (umask 077 && od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$home/.erlang.cookie")
  chmod 0400 "$home/.erlang.cookie"
  local plugins=rabbitmq_management
  if [[ ${SERVICES_TLS:-} == 1 ]]; then plugins+=,rabbitmq_auth_mechanism_ssl; fi
  echo "[$plugins]." >"$home/enabled_plugins"
  : >"$home/env.conf"
  cat >"$home/rabbitmq.conf" <<END
loopback_users = none
vm_memory_high_watermark.absolute = 1GiB
disk_free_limit.absolute = 50MB
management.tcp.ip = 127.0.0.1
management.tcp.port = $MGMT_PORT
END
  if [[ ${SERVICES_TLS:-} == 1 ]]; then
    cat >>"$home/rabbitmq.conf" <<END
listeners.ssl.1 = 127.0.0.1:$AMQPS_PORT
ssl_options.cacertfile = $dir/tls/ca.pem
ssl_options.certfile = $dir/tls/rabbitmq.pem
ssl_options.keyfile = $dir/tls/rabbitmq.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = false
auth_mechanisms.1 = PLAIN
auth_mechanisms.2 = AMQPLAIN
auth_mechanisms.3 = EXTERNAL
ssl_cert_login_from = common_name
END
  fi
  # epmd of our own and in the foreground: the one a node starts by itself outlives everything, so nodes are also told not to.
  process_spawn "$dir" epmd TERM env HOME="$home" epmd -port "$services_epmd_port" -address 127.0.0.1
  local tries=50
  while ((tries-- > 0)) && ! services_epmd_answers "$dir"; do sleep 0.1; done

  # The script of the library directory: the one in /usr/sbin changes user and drops the environment. RUNNING_UNDER_SYSTEMD makes it
  # become the VM, so that our child is the broker itself.
  process_spawn "$dir" rabbitmq TERM env HOME="$home" \
    RABBITMQ_NODENAME="repack-$$-$RANDOM@localhost" \
    RABBITMQ_NODE_PORT="$AMQP_PORT" RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_DIST_PORT="$services_dist_port" \
    RABBITMQ_MNESIA_BASE="$home/mnesia" RABBITMQ_LOG_BASE="$dir/log" \
    RABBITMQ_ENABLED_PLUGINS_FILE="$home/enabled_plugins" \
    RABBITMQ_CONFIG_FILE="$home/rabbitmq.conf" RABBITMQ_ADVANCED_CONFIG_FILE="$home/advanced.config" \
    RABBITMQ_CONF_ENV_FILE="$home/env.conf" \
    ERL_EPMD_PORT="$services_epmd_port" ERL_EPMD_ADDRESS=127.0.0.1 ERL_CRASH_DUMP_SECONDS=0 \
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}' \
    ERL_AFLAGS='-start_epmd false' RUNNING_UNDER_SYSTEMD=true \
    /usr/lib/rabbitmq/bin/rabbitmq-server
}

services_epmd_answers() {
  local dir=$1 pid
  read -r pid _ <<<"$(process_line "$dir" epmd)"
  port_is_owned "$services_epmd_port" "$pid"
}

# The log line and the pid file come at other times: only a broker that answers a handshake is ready. A frame begins with byte 1.
services_amqp_answers() {
  # shellcheck disable=SC2016 # expanded by the inner shell
  [[ $(timeout 3 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$0" && printf "AMQP\0\0\011\001" >&3 && head -c 1 <&3 | od -An -tu1' "$1" 2>/dev/null) == *1* ]]
}

services_management_answers() {
  # shellcheck disable=SC2016 # expanded by the inner shell
  [[ $(timeout 3 bash -c '
    exec 3<>"/dev/tcp/127.0.0.1/$0"
    printf "GET /api/overview HTTP/1.0\r\nAuthorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n\r\n" >&3
    head -n 1 <&3' "$1" 2>/dev/null) == *' 200 '* ]]
}

services_rabbitmq_answers() {
  local dir=$1 pid
  read -r pid _ <<<"$(process_line "$dir" rabbitmq)"
  port_is_owned "$AMQP_PORT" "$pid" && services_amqp_answers "$AMQP_PORT" &&
    port_is_owned "$MGMT_PORT" "$pid" && services_management_answers "$MGMT_PORT"
}

# ---- all together -------------------------------------------------------------------------------------------------------------

services_spawn() {
  mkdir -p "$1"
  services_dir=$(cd "$1" && pwd)
  services_choose_ports
  if [[ ${SERVICES_TLS:-} == 1 ]]; then
    mkdir -p "$services_dir/log"
    services_certificates "$services_dir" >"$services_dir/log/certificates.log" 2>&1 || {
      cat "$services_dir/log/certificates.log" >&2
      return 1
    }
  fi
  services_spawn_rabbitmq "$services_dir"
  services_spawn_postgres "$services_dir"
}

# Waits until every server answers; fails when one has ended or the time is over, and says which in services_why.
services_wait_once() {
  local dir=$1 name deadline=$((SECONDS + 120)) waiting=(postgres rabbitmq) still
  while ((${#waiting[@]} > 0)); do
    for name in epmd postgres rabbitmq; do
      if ! process_alive "$dir" "$name"; then
        services_why="$name ended while starting"
        return 1
      fi
    done
    still=()
    for name in "${waiting[@]}"; do
      if ! "services_${name}_answers" "$dir"; then still+=("$name"); fi
    done
    waiting=("${still[@]}")
    if ((${#waiting[@]} == 0)); then break; fi
    if ((SECONDS > deadline)); then
      services_why="no answer from ${waiting[*]} within 120 seconds"
      return 1
    fi
    sleep 0.2
  done
}

services_wait() {
  local dir attempt name
  dir=$(cd "$1" && pwd)
  for attempt in 1 2 3; do
    if services_wait_once "$dir"; then return 0; fi
    # Most likely another run took one of the ports between our look and the server's.
    echo "services: $services_why (attempt $attempt of 3)" >&2
    for name in postgres rabbitmq epmd; do
      tail -n 5 "$dir/log/$name.log" 2>/dev/null | sed "s/^/services: $name: /" >&2
    done
    if ((attempt == 3)); then break; fi
    services_end_all "$dir"
    rm -rf "$dir"
    services_spawn "$dir"
  done
  echo "error: the private servers did not start: $services_why" >&2
  return 1
}

services_start() {
  services_spawn "$1"
  services_wait "$1"
}

# Ends every process of DIR: the caller's own first, then RabbitMQ and PostgreSQL, epmd last.
services_end_all() {
  local dir=$1 name pid start signal group
  if [[ ! -d $dir ]]; then return 0; fi
  : >"$dir/stopping"
  if [[ ! -f $dir/processes ]]; then return 0; fi
  for group in others servers epmd; do
    # All of a group get their signal before the first is waited for.
    while read -r name pid start signal; do
      if [[ $(services_group "$name") == "$group" ]] && process_is "$pid" "$start"; then
        kill -s "$signal" "$pid" 2>/dev/null || true
      fi
    done <"$dir/processes"
    while read -r name pid start signal; do
      if [[ $(services_group "$name") == "$group" ]]; then process_end "$name" "$pid" "$start" "$signal"; fi
    done <"$dir/processes"
  done
}

services_group() {
  case "$1" in
    epmd) echo epmd ;;
    postgres | rabbitmq) echo servers ;;
    *) echo others ;;
  esac
}

services_stop() {
  local dir=${1:-$services_dir}
  services_end_job
  if [[ -z $dir || ! -d $dir ]]; then return 0; fi
  services_end_all "$dir"
  if [[ ${SERVICES_KEEP_LOGS:-} == 1 ]]; then
    find "$dir" -mindepth 1 -maxdepth 1 ! -name log -exec rm -rf {} +
  else
    rm -rf "$dir"
  fi
}
