# Makes the model, packs it, and starts zts in the background.
set -e
python make_model.py
mkdir -p store
zts archive --model-name story --version 1.0 --handler handler.py \
  --extra-files made/model.json --config-file model-config.yaml --export-path store -f
zts start --model-store store --models story.mar --ncs --disable-token-auth
