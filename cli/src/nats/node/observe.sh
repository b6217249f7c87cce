# Says what there is of nats-server on this node, one fact in a line. Changes nothing.
set -uo pipefail

etc=/etc/nats opt=/opt/nats unit=/etc/systemd/system/nats.service

say() { printf '%s: %s\n' "$1" "$2"; }
# As nats.conf says it.
monitor() { curl --silent --noproxy '*' --max-time 5 "http://$(sed -n 's/^http: "\(.*\)"$/\1/p' "$etc/nats.conf")/$1"; }
digest() { [ -e "$1" ] && sha256sum "$1" | cut -d ' ' -f 1; }

say name "$(uname -n)"
say machine "$(uname -m)"
if mountpoint --quiet /var/lib/nats; then say mounted yes; else say mounted no; fi
if getent passwd nats >/dev/null && [ -d "$etc" ] && [ -d /var/lib/nats/jetstream ]; then say prepared yes; else say prepared no; fi
say owner "$(cat /var/lib/nats/natsctl-server 2>/dev/null)"
say state "$(systemctl is-active nats 2>/dev/null)"
for folder in "$opt"/*/; do
  if [ -e "$folder/archive.sha256" ] && [ ! -L "${folder%/}" ]; then say installed "$(basename "$folder") $(cat "$folder/archive.sha256")"; fi
done
say accounts "$(digest "$etc/accounts.conf")"
for folder in "$etc"/tls/*/; do
  if [ -e "$folder/server-tls.crt" ]; then
    say certificates "$(basename "$folder") $(openssl x509 -enddate -noout -in "$folder/server-tls.crt" 2>/dev/null | cut -d = -f 2)"
  fi
done
if [ -e "$etc/accounts.conf" ]; then
  sed -n 's/^  "*\(A[A-Z0-9]*\)"*: "\(.*\)"$/\1 \2/p' "$etc/accounts.conf" | while read -r account jwt; do
    say account "$account $(printf %s "$jwt" | sha256sum | cut -c 1-16)"
  done
fi

process=$(systemctl show --property MainPID --value nats 2>/dev/null)
if [ "${process:-0}" != 0 ]; then
  say running "$(basename "$(dirname "$(readlink "/proc/$process/exe")")")"
  say running-unit "$(tr '\0' '\n' <"/proc/$process/environ" | sed -n 's/^NATSCTL_UNIT=//p')"
  say running-config "$(monitor varz | tr -d ' ,"' | sed -n 's/^config_digest://p')"
  program=$(readlink "/proc/$process/exe")
  say file-config "$(runuser -u nats -- "$program" --config "$etc/nats.conf" -t 2>&1 | sed -n 's/.*(\(sha256:[0-9a-f]*\)).*/\1/p')"
  say health "$(monitor 'healthz?js-meta-only=true' | tr '\n' ' ')"
  meta=$(monitor jsz | tr -d ' ,"')
  say leader "$(echo "$meta" | sed -n '/^meta_cluster:/,$ s/^leader://p' | head -n 1)"
fi
for file in "$etc/nats.conf" "$unit"; do
  if [ -e "$file" ]; then
    say file "$file"
    sed 's/^/| /' "$file"
  fi
done
