# Trains the model, packs it with the ready-made handler image_classifier, and starts zts in the background.
set -e
python make_model.py
mkdir -p store
zts archive --model-name shapes --version 1.0 --handler image_classifier \
  --model-file model.py --serialized-file made/shapes.pt --extra-files index_to_name.json \
  --config-file model-config.yaml --export-path store -f
zts start --model-store store --models shapes.mar --ncs --disable-token-auth
