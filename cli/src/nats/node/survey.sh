
# How the server is, in its own documents: each compressed, on one line.
document() { # <name> <path>
  printf 'document %s ' "$1"
  monitor "$2" | gzip --best | base64 --wrap 0
  printf '\n'
}
echo 'documents:'
if [ "${process:-0}" != 0 ]; then
  document varz varz
  document enabled 'healthz?js-enabled-only=true'
  document meta 'healthz?js-meta-only=true'
  document full healthz
  accounts=$(monitor jsz | tr -d ' ,"' | sed -n 's/^accounts://p' | head -n 1)
  offset=0
  while :; do
    document jsz "jsz?accounts=true&streams=true&consumers=true&config=true&limit=256&offset=$offset"
    offset=$((offset + 256))
    [ "$offset" -lt "${accounts:-0}" ] || break
  done
fi
echo 'documents: end'
