#!/usr/bin/env bash
# Installs the Debian packages that are missing, and keeps them from starting or enabling system services.
#
# To be sourced:
#   need_packages PACKAGE...   installs what is missing, through sudo unless root; says what it does on stderr
#   package_is_there PACKAGE   true if the package, or what we use of it, is there
#
# Executed (`packages.sh install PACKAGE...`, as root) it is the privileged half of need_packages. That half is a program of its own,
# so that its traps, which put everything back, are in the same process as the changes, also under sudo.

# What we use of a package is what counts: PostgreSQL may come from another repository, cc may be clang.
package_is_there() {
  local found
  case "$1" in
    prometheus) command -v prometheus >/dev/null && command -v promtool >/dev/null ;;
    gcc) command -v cc >/dev/null ;;
    git | jq | shellcheck | openssl | tmux) command -v "$1" >/dev/null ;;
    postgresql)
      found=$(compgen -G '/usr/lib/postgresql/*/bin/initdb' || compgen -G '/usr/pgsql-*/bin/initdb' || command -v initdb) && [[ -n $found ]]
      ;;
    rabbitmq-server) [[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]] && command -v epmd >/dev/null ;;
    systemd) command -v systemd-analyze >/dev/null ;;
    rpm) command -v rpmbuild >/dev/null ;;
    util-linux) command -v setpriv >/dev/null && command -v setsid >/dev/null ;;
    ca-certificates) [[ -n ${SSL_CERT_FILE:-} || -e /etc/ssl/certs/ca-certificates.crt || -e /etc/pki/tls/certs/ca-bundle.crt ]] ;;
    libc6-dev) [[ -e /usr/include/stdlib.h ]] ;;
    *) [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]] ;;
  esac
}

need_packages() {
  local package missing=() here=()
  for package in "$@"; do
    if package_is_there "$package"; then here+=("$package"); else missing+=("$package"); fi
  done
  echo "packages: needed: $*" >&2
  if ((${#missing[@]} == 0)); then
    echo "packages: all there, nothing to install" >&2
    return 0
  fi
  echo "packages: there: ${here[*]:-none}; missing: ${missing[*]}" >&2
  if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
    echo "error: this is no Debian: install what corresponds to these Debian 12 packages, then run this again: ${missing[*]}" >&2
    return 1
  fi

  local as_root=()
  if ((EUID != 0)); then
    if ! command -v sudo >/dev/null; then
      echo "error: installing packages needs root, and there is no sudo: as root, run" >&2
      echo "       apt-get update && apt-get install --no-install-recommends ${missing[*]}" >&2
      return 1
    fi
    as_root=(sudo)
    if [[ ! -t 0 ]]; then as_root+=(-n); fi
  fi
  "${as_root[@]}" bash "${BASH_SOURCE[0]}" install "${missing[@]}" >&2 || return 1

  for package in "${missing[@]}"; do
    if ! package_is_there "$package"; then
      echo "error: $package was installed, but what we need of it is not there" >&2
      return 1
    fi
  done
}

# ---- the privileged half ------------------------------------------------------------------------------------------------------

packages_policy=/usr/sbin/policy-rc.d
packages_policy_before=/usr/sbin/policy-rc.d.before-cta-ops-repack
packages_cluster_conf=/etc/postgresql-common/createcluster.conf
packages_mark='# temporary: written by cta-ops-repack'
packages_units=(rabbitmq-server.service epmd.service epmd.socket prometheus.service)
packages_units_before=()
packages_log=

packages_is_ours() {
  [[ -f $1 ]] && grep -qF "$packages_mark" "$1"
}

packages_enabled_units() {
  local unit
  for unit in "${packages_units[@]}"; do
    if compgen -G "/etc/systemd/system/*.wants/$unit" >/dev/null; then echo "$unit"; fi
  done
}

# Puts everything back; also what an earlier run left behind because it was killed.
packages_restore() {
  if packages_is_ours "$packages_policy"; then rm -f "$packages_policy"; fi
  if [[ -e $packages_policy_before || -L $packages_policy_before ]]; then
    mv -f "$packages_policy_before" "$packages_policy"
  fi
  if packages_is_ours "$packages_cluster_conf"; then
    # Where it finds ours, the package puts its own file beside it, or leaves it away: put there what it would have installed.
    if [[ -f $packages_cluster_conf.ucf-dist ]]; then
      mv -f "$packages_cluster_conf.ucf-dist" "$packages_cluster_conf"
    elif [[ -f /usr/share/postgresql-common/createcluster.conf ]]; then
      cp /usr/share/postgresql-common/createcluster.conf "$packages_cluster_conf"
    else
      rm -f "$packages_cluster_conf"
      rmdir --ignore-fail-on-non-empty "${packages_cluster_conf%/*}"
    fi
  fi
}

# A package enables its units for the next boot; those that this run brought are ours to disable again.
packages_disable_new_units() {
  local unit
  for unit in $(packages_enabled_units); do
    if [[ " ${packages_units_before[*]} " != *" $unit "* ]]; then
      echo "packages: disabling $unit, which has just been installed: only private servers are used"
      # As a package's own script would: this also works where systemd is not there (yet).
      DPKG_MAINTSCRIPT_PACKAGE=${unit%.*} deb-systemd-helper disable "$unit" >/dev/null || true
    fi
  done
}

packages_on_exit() {
  local status=$?
  trap '' INT TERM HUP
  rm -f "$packages_log"
  packages_disable_new_units
  packages_restore
  exit "$status"
}

packages_install() {
  if ((EUID != 0)); then
    echo "error: to be run as root" >&2
    exit 2
  fi
  mkdir -p /run/lock
  # One at a time, so that what is found marked as ours below is left over, not in use.
  exec {packages_lock}>/run/lock/cta-ops-repack-packages
  flock "$packages_lock"

  mapfile -t packages_units_before < <(packages_enabled_units)
  trap packages_on_exit EXIT
  trap 'exit 129' HUP
  trap 'exit 130' INT
  trap 'exit 143' TERM
  packages_restore

  if [[ -e $packages_policy || -L $packages_policy ]]; then
    mv "$packages_policy" "$packages_policy_before"
  fi
  printf '%s\n' '#!/bin/sh' "$packages_mark" 'exit 101' >"$packages_policy"
  chmod 0755 "$packages_policy"
  if [[ ! -e $packages_cluster_conf ]]; then
    mkdir -p "${packages_cluster_conf%/*}"
    printf '%s\n' "$packages_mark" 'create_main_cluster = false' >"$packages_cluster_conf"
  fi

  # Services that needrestart would restart afterwards are services we never meant to touch.
  export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
  local apt=(apt-get -qq -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o Dpkg::Use-Pty=0) wanted
  packages_log=$(mktemp)
  echo "packages: apt-get update"
  packages_run "${apt[@]}" update
  wanted=$("${apt[@]}" install --no-install-recommends --simulate "$@" | sed -n 's/^Inst \([^ ]*\).*/\1/p' | sort | tr '\n' ' ')
  echo "packages: apt-get install $* (takes a minute or two)"
  echo "packages: with what they need, these are: $wanted" | fold -s -w 120
  packages_run "${apt[@]}" install -y --no-install-recommends "$@"
  echo "packages: installed"
}

# Runs a command that says much, and shows what it said only if it fails.
packages_run() {
  if ! "$@" >"$packages_log" 2>&1 </dev/null; then
    tail -n 30 "$packages_log"
    echo "error: failed: $*"
    exit 1
  fi
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  set -euo pipefail
  if [[ ${1:-} != install || $# -lt 2 ]]; then
    echo "usage: packages.sh install PACKAGE... (as root); otherwise to be sourced" >&2
    exit 2
  fi
  shift
  packages_install "$@"
fi
