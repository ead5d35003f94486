# Makes the TorchScript file, packs it and starts zts in the background.
set -e
python make_model.py
mkdir -p store
zts archive --model-name tide --version 1.0 --serialized-file made/tide.pt --handler handler.py \
  --config-file model-config.yaml --export-path store -f
zts start --model-store store --models tide.mar --ncs --disable-token-auth
