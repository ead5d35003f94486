# Packs the handler twice, without and with a number of threads of its own, and starts zts in the background.
set -e
mkdir -p store
zts archive --model-name multiply --version 1.0 --handler handler.py --config-file model-config.yaml \
  --export-path store -f
zts archive --model-name multiply_wide --version 1.0 --handler handler.py --config-file wide.yaml --export-path store -f
zts start --ncs --ts-config config.properties
