# Packs both versions and starts zts with them in the background.
set -e
mkdir -p store
for version in 1.0:a.yaml 2.0:b.yaml; do
  zts archive --model-name headline --version ${version%:*} --handler handler.py --config-file ${version#*:} \
    --export-path store -f
  mv store/headline.mar store/headline-${version%:*}.mar
done
zts start --model-store store --models headline-1.0.mar headline-2.0.mar --ncs --disable-token-auth
