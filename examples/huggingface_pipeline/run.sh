# Makes the model, packs it together with its tokenizer, and starts zts in the background.
set -e
python make_model.py
mkdir -p store
zts archive --model-name sentiment --version 1.0 --handler handler.py \
  --extra-files made/sentiment --config-file model-config.yaml --export-path store -f
zts start --model-store store --models sentiment.mar --ncs --disable-token-auth
