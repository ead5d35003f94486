# Makes the model, packs it with each of the two handlers, and starts zts in the background.
set -e
python make_model.py
mkdir -p store
zts archive --model-name houses --version 1.0 --handler handler.py \
  --extra-files made/weights.json --config-file model-config.yaml --export-path store -f
zts archive --model-name houses_ts --version 1.0 --handler ts_handler.py \
  --extra-files made/weights.json --config-file model-config.yaml --export-path store -f
zts start --model-store store --models all --ncs --disable-token-auth
