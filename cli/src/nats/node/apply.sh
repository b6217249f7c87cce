# Brings this node to what natsctl has planned: the release, certificates, configuration and unit of nats-server. What is as it should
# be is left alone. The variables in lower case above this line are set by natsctl.
set -euo pipefail
umask 027

data=/var/lib/nats etc=/etc/nats new=/etc/nats/.new opt=/opt/nats unit=/etc/systemd/system/nats.service

fail() {
  echo "failed: $1"
  exit 1
}

# One at a time: a command whose answer was lost may have been sent twice.
mkdir -p /run/natsctl
exec 9>/run/natsctl/apply.lock
flock --wait 120 9 || fail "another natsctl has been working on this node for two minutes"

# --- What Terraform has prepared.

for tool in aws awk base64 curl flock gzip runuser sha256sum systemctl tar; do
  command -v "$tool" >/dev/null || fail "\`$tool\` is not installed on this node"
done
[ "$(uname -n)" = "$node" ] || fail "this machine calls itself \`$(uname -n)\`, not \`$node\`"
mountpoint --quiet "$data" || fail "the data volume is not mounted at $data"
getent passwd nats >/dev/null || fail "there is no user \`nats\`: the user data of the instance has not ended, or it failed (/var/log/cloud-init-output.log)"
for folder in "$data/jetstream" /var/log/nats "$etc"; do
  [ -d "$folder" ] || fail "$folder is missing: the user data of the instance has not ended, or it failed (/var/log/cloud-init-output.log)"
done

# The volume remembers whose it is: another server's store under this server's name would be two servers with one name.
owner="$cluster $node"
if [ -e "$data/natsctl-server" ]; then
  [ "$(cat "$data/natsctl-server")" = "$owner" ] ||
    fail "the data volume belongs to server \`$(cut -d ' ' -f 2 "$data/natsctl-server")\` of cluster \`$(cut -d ' ' -f 1 "$data/natsctl-server")\`, not to \`$node\` of \`$cluster\`"
elif [ -n "$(ls -A "$data/jetstream")" ] && ! systemctl --quiet is-active nats; then
  fail "$data/jetstream has data of a server that natsctl does not know; move it away, or write \`$owner\` into $data/natsctl-server if it is its own"
fi

# --- The release, beside the one that runs.

case "$(uname -m)" in
  x86_64) url=$url_amd64 sum=$sha256_amd64 ;;
  aarch64) url=$url_arm64 sum=$sha256_arm64 ;;
  *) fail "there is no nats-server for $(uname -m)" ;;
esac
program=$opt/$version/nats-server
if [ ! -x "$program" ] || [ "$(cat "$opt/$version/archive.sha256" 2>/dev/null)" != "$sum" ]; then
  install --directory --mode 0755 "$opt"
  rm -rf "$opt"/.download.*
  work=$(mktemp -d "$opt/.download.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  curl --fail --silent --show-error --location --connect-timeout 10 --max-time 300 --retry 3 --output "$work/archive" "$url" ||
    fail "$url cannot be downloaded"
  found=$(sha256sum "$work/archive" | cut -d ' ' -f 1)
  [ "$found" = "$sum" ] || fail "the SHA-256 of $url is $found, not $sum"
  mkdir "$work/release"
  tar --extract --gzip --file "$work/archive" --directory "$work/release" --strip-components 1 --no-same-owner
  says=$("$work/release/nats-server" --version) || fail "the nats-server of $url does not run on this node"
  [ "$says" = "nats-server: v$version" ] || fail "the archive at $url holds \`$says\`, not version $version"
  echo "$sum" >"$work/release/archive.sha256"
  chmod --recursive u=rwX,go=rX "$work/release"
  if [ -e "$opt/$version" ]; then mv "$opt/$version" "$work/replaced"; fi
  mv "$work/release" "$opt/$version"
  rm -rf "$work"
  trap - EXIT
  echo "did: installed nats-server $version"
fi

# --- Accounts, sent in parts before this script, and certificates, from this node's own secret.

rm -rf "$new"
install --directory --owner root --group nats --mode 0750 "$new" "$etc/tls"
if [ "$(sha256sum "$etc/accounts.conf" 2>/dev/null | cut -d ' ' -f 1)" = "$accounts" ]; then
  cp "$etc/accounts.conf" "$new/accounts.conf"
else
  cat "/run/natsctl/accounts-$accounts".* 2>/dev/null | base64 --decode | gzip --decompress >"$new/accounts.conf" ||
    fail "the accounts did not arrive"
  [ "$(sha256sum "$new/accounts.conf" | cut -d ' ' -f 1)" = "$accounts" ] || fail "the accounts did not arrive complete"
fi
rm -f /run/natsctl/accounts-*

if [ ! -d "$etc/tls/$certificates" ]; then
  rm -rf "$etc/tls"/.fetched.*
  fetched=$(mktemp -d "$etc/tls/.fetched.XXXXXX")
  trap 'rm -rf "$fetched"' EXIT
  # The value goes from one program to the other, and is in no variable, argument or output.
  aws secretsmanager get-secret-value --region "$region" --secret-id "$secret" --query SecretString --output text |
    awk -v folder="$fetched" '/^# file: [a-z]+\/[a-z]+\.(crt|key)$/ { sub("/", "-", $3); file = folder "/" $3; next } file && NF { print >file }' ||
    fail "the secret \`$secret\` cannot be read by this node"
  for file in server-ca.crt server-tls.crt server-tls.key routes-ca.crt routes-tls.crt routes-tls.key; do
    [ -s "$fetched/$file" ] || fail "the secret \`$secret\` holds no ${file/-//}"
  done
  found=$(cat "$fetched"/{server-ca,server-tls,routes-ca,routes-tls}.crt | sha256sum | cut -c 1-16)
  [ "$found" = "$certificates" ] || fail "the secret \`$secret\` holds other certificates ($found) than natsctl has planned ($certificates); run it again"
  chown --recursive root:nats "$fetched"
  chmod 0750 "$fetched"
  chmod 0640 "$fetched"/*
  mv "$fetched" "$etc/tls/$certificates"
  trap - EXIT
  echo "did: fetched certificates $certificates"
fi

# --- Configuration: valid before it replaces the one that runs.

varz() { curl --silent --noproxy '*' --max-time 5 "http://$address:8222/varz" | tr -d ' ,"' | sed -n "s/^$1://p" | head -n 1; }
digest() { runuser -u nats -- "$1" --config "$2" -t 2>&1; }
put() { # <from> <to>: replaced as a whole
  cp "$1" "$2.new"
  chown root:nats "$2.new"
  chmod 0640 "$2.new"
  mv "$2.new" "$2"
}

state=$(systemctl is-active nats || true)
running=$program
if [ "$state" = active ] && [ "$reload" != restart ]; then
  running=$(readlink "/proc/$(systemctl show --property MainPID --value nats)/exe")
fi

if [ "$state" = active ] && [ "$reload" = no ]; then
  # What it would take a restart for stays as it is.
  cp "$etc/nats.conf" "$new/nats.conf"
else
  configuration >"$new/nats.conf"
fi
chown root:nats "$new"/*
chmod 0640 "$new"/*
checked=$(digest "$running" "$new/nats.conf") || fail "nats-server refuses the configuration: ${checked//$'\n'/; }"
wanted=$(echo "$checked" | sed -n 's/.*(\(sha256:[0-9a-f]*\)).*/\1/p')

if ! service_unit | cmp --silent - "$unit"; then
  service_unit >"$unit.new"
  chmod 0644 "$unit.new"
  mv "$unit.new" "$unit"
  systemctl daemon-reload
  echo "did: wrote the unit"
fi
systemctl --quiet is-enabled nats 2>/dev/null || systemctl --quiet enable nats
echo "$owner" >"$data/natsctl-server.new"
mv "$data/natsctl-server.new" "$data/natsctl-server"

case "$state $reload" in
  "active restart")
    put "$new/accounts.conf" "$etc/accounts.conf"
    put "$new/nats.conf" "$etc/nats.conf"
    ln --symbolic --force --no-dereference "$version" "$opt/current.new"
    mv --no-target-directory "$opt/current.new" "$opt/current"
    rm -rf "$new"
    # It leaves by lame duck, which takes longer than a command should wait; systemd goes on by itself.
    systemctl restart --no-block nats
    echo "did: restarting with nats-server $version"
    exit 0
    ;;
  "active "*)
    if [ "$(varz config_digest)" != "$wanted" ]; then
      rm -rf "$etc/.old"
      install --directory --owner root --group nats --mode 0750 "$etc/.old"
      cp "$etc/nats.conf" "$etc/accounts.conf" "$etc/.old/"
      put "$new/accounts.conf" "$etc/accounts.conf"
      put "$new/nats.conf" "$etc/nats.conf"
      systemctl reload nats
      for _ in $(seq 100); do
        [ "$(varz config_digest)" = "$wanted" ] && break
        sleep 0.1
      done
      if [ "$(varz config_digest)" != "$wanted" ]; then
        put "$etc/.old/accounts.conf" "$etc/accounts.conf"
        put "$etc/.old/nats.conf" "$etc/nats.conf"
        fail "nats-server did not take the configuration by a reload, and keeps the one before: $(grep -F '[ERR]' /var/log/nats/nats.log | tail -n 1)"
      fi
      echo "did: reloaded"
    fi
    ;;
  *)
    put "$new/accounts.conf" "$etc/accounts.conf"
    put "$new/nats.conf" "$etc/nats.conf"
    ln --symbolic --force --no-dereference "$version" "$opt/current.new"
    mv --no-target-directory "$opt/current.new" "$opt/current"
    systemctl reset-failed nats 2>/dev/null || true
    systemctl start nats || fail "nats-server does not start: $(journalctl --unit nats --no-pager --lines 3 --output cat | tr '\n' ';')"
    echo "did: started nats-server $version"
    ;;
esac
rm -rf "$new"

# --- Healthy: in contact with a leader of JetStream's cluster, which there is when a majority of the servers runs.

health=
for _ in $(seq "$((patience * 4))"); do
  health=$(curl --silent --noproxy '*' --max-time 5 "http://$address:8222/healthz?js-meta-only=true" || true)
  case "$health" in *'"status":"ok"'*) break ;; esac
  sleep 0.25
done
case "$health" in
  *'"status":"ok"'*) ;;
  *) fail "nats-server is not healthy after $patience s: ${health:-no answer}; $(tail -n 3 /var/log/nats/nats.log 2>/dev/null | tr '\n' ';')" ;;
esac

# Certificates that no configuration names any more.
for folder in "$etc"/tls/*; do
  if ! grep --quiet --fixed-strings "$folder/" "$etc/nats.conf" && [ "$folder" != "$etc/tls/$certificates" ]; then rm -rf "$folder"; fi
done
echo "did: healthy"
