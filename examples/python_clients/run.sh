# Makes the vectors, packs them and starts zts in the background.
set -e
python make_model.py
mkdir -p store
zts archive --model-name nearest --version 1.0 --handler handler.py --extra-files made/vectors.npy \
  --config-file model-config.yaml --export-path store -f
zts start --model-store store --models nearest.mar --ncs --disable-token-auth
