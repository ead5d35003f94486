"""Write two releases of a package as wheels into made/: they stand for packages that really come from an index."""

import zipfile
from pathlib import Path

RELEASES = {
    "1.0": 'def greet(name):\n    return f"Good day, {name}."\n',
    "2.0": 'def greet(name):\n    return f"Hi {name}!"\n',
}

Path("made").mkdir(exist_ok=True)
for version, code in RELEASES.items():
    info = f"greeting-{version}.dist-info"
    files = {
        "greeting.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: greeting\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: make_wheels\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(f"made/greeting-{version}-py3-none-any.whl", "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
