# Makes the weights, packs them and starts zts in the background.
set -e
python make_model.py
mkdir -p store
zts archive --model-name notes --version 1.0 --model-file model.py --serialized-file made/notes.pt \
  --handler handler.py --config-file model-config.yaml --export-path store -f
zts start --model-store store --models notes.mar --ncs --disable-token-auth
