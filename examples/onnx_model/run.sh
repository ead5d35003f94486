# Makes the ONNX file, packs it and starts zts in the background.
set -e
python make_model.py
mkdir -p store
zts archive --model-name flowers --version 1.0 --serialized-file made/flowers.onnx --handler handler.py \
  --extra-files index_to_name.json --config-file model-config.yaml --export-path store -f
zts start --model-store store --models flowers.mar --ncs --disable-token-auth
