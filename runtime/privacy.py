"""Libraries that report their use to their makers are kept from it: what is scored where stays on the machine.

    import runtime.privacy  # before anything that loads ONNX Runtime or OpenVINO

The first queues events for Microsoft and keeps a number for this machine in ~/.cache; the second sends its import to
Google Analytics and keeps its number in ~/intel; huggingface_hub tells its hub what it is used by. All read what is set
here when they are loaded, and never again; that is why this is a module, and why ruff sorts it before all others
(pyproject.toml). A user who has set it otherwise is obeyed.

source    https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md
source    https://github.com/openvinotoolkit/telemetry
source    https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

HERE = Path(__file__).parents[1]
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", cast(Any, None))  # OpenVINO does without this package, silently

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        program = "import runtime.privacy, onnxruntime; onnxruntime.SessionOptions()"
        subprocess.run([sys.executable, "-c", program], cwd=HERE, env=os.environ | {"HOME": home}, check=True)
        left = sorted(str(path.relative_to(home)) for path in Path(home).rglob("*"))
        print("ONNX Runtime, loaded, leaves in the home folder:", left or "nothing")
        assert left == []
