# Lays the model out as a folder of the model store and starts zts in the background.
set -e
mkdir -p store
zts archive --model-name count --version 1.0 --handler handler.py --archive-format no-archive --export-path store -f
zts start --model-store store --models count --ncs --disable-token-auth
