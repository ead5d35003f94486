# Trains the model, packs it with the ready-made handler text_classifier, and starts zts in the background.
set -e
python make_model.py
mkdir -p store
zts archive --model-name topics --version 1.0 --handler text_classifier \
  --model-file model.py --serialized-file made/topics.pt \
  --extra-files made/source_vocab.pt,index_to_name.json --config-file model-config.yaml --export-path store -f
zts start --model-store store --models topics.mar --ncs --disable-token-auth
