# Makes a certificate for this host, packs the handler and starts zts in the background.
set -e
mkdir -p made store
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=localhost \
  -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout made/key.pem -out made/certificate.pem 2>made/openssl.log
zts archive --model-name shout --version 1.0 --handler handler.py --export-path store -f
zts start --ncs --ts-config config.properties
