# Packs the handler (there are no weights) and starts zts in the background.
set -e
mkdir -p store
zts archive --model-name words --version 1.0 --handler handler.py --config-file model-config.yaml --export-path store -f
zts start --model-store store --models words.mar --ncs --ts-config config.properties
