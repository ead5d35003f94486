# Makes the packages, packs one handler twice with different requirements, and starts zts in the background.
set -e
python make_wheels.py
mkdir -p store
zts archive --model-name formal --version 1.0 --handler handler.py --requirements-file formal/requirements.txt \
  --extra-files made/greeting-1.0-py3-none-any.whl --config-file formal/model-config.yaml --export-path store -f
zts archive --model-name casual --version 1.0 --handler handler.py --requirements-file casual/requirements.txt \
  --extra-files made/greeting-2.0-py3-none-any.whl --config-file casual/model-config.yaml --export-path store -f
zts start --model-store store --models all --ncs --ts-config config.properties
