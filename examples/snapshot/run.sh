# Packs two models and starts zts in the background with one of them. Without --ncs it keeps snapshots in logs/config.
set -e
mkdir -p store
zts archive --model-name shout --version 1.0 --handler shout.py --export-path store -f
zts archive --model-name whisper --version 1.0 --handler whisper.py --export-path store -f
zts start
