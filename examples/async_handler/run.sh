# Packs the handler and starts zts in the background.
set -e
mkdir -p store
zts archive --model-name questions --version 1.0 --handler handler.py --extra-files slow_service.py \
  --config-file model-config.yaml --export-path store -f
zts start --model-store store --models questions.mar --ncs --disable-token-auth
