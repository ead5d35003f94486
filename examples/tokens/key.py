"""Print a key of key_file.json: python key.py inference|management|API"""

import json
import sys
from pathlib import Path

print(json.loads(Path("key_file.json").read_text())[sys.argv[1]]["key"])
