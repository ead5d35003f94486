# Makes the model, packs it and starts zts in the background.
set -e
python make_model.py
mkdir -p store
zts archive --model-name unusual --version 1.0 --handler handler.py --extra-files made/usual.json --export-path store -f
zts start --ncs --ts-config config.properties
