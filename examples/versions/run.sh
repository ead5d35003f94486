# Packs two versions of one model and another model, and starts zts with the first version in the background.
set -e
mkdir -p store
for version in 1.0 2.0; do
  zts archive --model-name spam --version $version --handler handler.py --extra-files spam-$version/keywords.json \
    --config-file model-config.yaml --export-path store -f
  mv store/spam.mar store/spam-$version.mar
done
zts archive --model-name language --version 1.0 --handler handler.py --extra-files language/keywords.json \
  --config-file model-config.yaml --export-path store -f
zts start --ncs --ts-config config.properties
