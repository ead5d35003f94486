# Packs the handler and starts zts in the background, with tokens: they are on unless somebody switches them off.
set -e
mkdir -p store
zts archive --model-name shout --version 1.0 --handler handler.py --export-path store -f
zts start --ncs --ts-config config.properties
