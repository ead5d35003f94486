# Trains the model, packs it with the ready-made handler object_detector, and starts zts in the background.
set -e
python make_model.py
mkdir -p store
zts archive --model-name detector --version 1.0 --handler object_detector \
  --model-file model.py --serialized-file made/detector.pt --extra-files index_to_name.json \
  --config-file model-config.yaml --export-path store -f
zts start --model-store store --models detector.mar --ncs --disable-token-auth
