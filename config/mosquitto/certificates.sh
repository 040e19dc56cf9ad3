#!/bin/sh
# Makes certificates where there is no authority to ask:
#
#   sh certificates.sh DIRECTORY BROKER [CLIENT...]
#
# DIRECTORY gets ca.pem and ca.key, broker.pem and broker.key, and a pair for each client (lab-7.pem, lab-7.key).
# BROKER is the name or the address that nodes have in mqtt.host. A CLIENT is a node, or another user of the ACL; only
# with a broker that asks for client certificates are there any. An authority that is there already is used again, the
# rest is made anew: run it again before the 397 days are over. Keep ca.key away from the broker and from the nodes.
set -eu
umask 077
[ $# -ge 2 ] || { sed -n '2,4p' "$0" >&2; exit 2; }
directory=$1 broker=$2
shift 2
mkdir -p "$directory"
cd "$directory"

if [ ! -e ca.key ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=neuromodd" \
        -addext "keyUsage=critical,keyCertSign,cRLSign" -keyout ca.key -out ca.pem
fi

# NAME PURPOSE ALTERNATIVE FILE
sign() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" -keyout "$4.key" -out "$4.csr"
    printf '%s\n' "basicConstraints=critical,CA:FALSE" "keyUsage=critical,digitalSignature" "extendedKeyUsage=$2" \
        "subjectAltName=$3" "subjectKeyIdentifier=hash" "authorityKeyIdentifier=keyid" > "$4.ext"
    openssl x509 -req -in "$4.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 397 -extfile "$4.ext" -out "$4.pem"
    rm "$4.csr" "$4.ext"
}

case $broker in
    *[!0-9.]*) case $broker in *:*) kind=IP ;; *) kind=DNS ;; esac ;;
    *) kind=IP ;;
esac
sign "$broker" serverAuth "$kind:$broker" broker
for client in "$@"; do
    sign "$client" clientAuth "DNS:$client" "$client"
done
chmod 644 -- *.pem
