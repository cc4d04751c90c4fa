"""``fcnkern.info()``: complete, and honest about what is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import torch

import fcnkern

WITHOUT_EXTENSION = """
import sys, warnings
sys.modules["fcnkern._C"] = None
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import fcnkern
print(caught[0].message)
print(fcnkern.format_info())
"""


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


def test_info_is_plain_data_with_versions_and_build() -> None:
    facts = json.loads(json.dumps(fcnkern.info()))
    assert facts["fcnkern"] == fcnkern.__version__
    assert facts["torch"] == str(torch.__version__)
    assert facts["threads"] == torch.get_num_threads()
    assert facts["build"]["version"] == fcnkern.__version__
    assert facts["build"]["isa"] in facts["build"]["isas"]
    assert facts["build"]["isas"][0] == "generic"


def test_each_backend_is_available_or_has_a_reason() -> None:
    backends = fcnkern.info()["backends"]
    assert set(backends) == {"cpu", "reference", "triton", "cuda"}
    for state in backends.values():
        assert state["available"] == (state["reason"] is None)
    assert backends["cpu"]["available"]


def test_text_names_every_backend() -> None:
    text = fcnkern.format_info()
    for name in fcnkern.info()["backends"]:
        assert f"backend {name}" in text


def test_import_works_and_tells_without_the_extension() -> None:
    result = run_python(WITHOUT_EXTENSION)
    assert result.returncode == 0, result.stderr
    warning, *lines = result.stdout.splitlines()
    assert "slow reference backend" in warning
    assert "fcnkern._C" in warning
    cpu_line = next(line for line in lines if line.startswith("backend cpu"))
    assert "missing" in cpu_line
    assert "fcnkern._C" in cpu_line


def test_isa_can_be_chosen() -> None:
    result = run_python("import fcnkern; print(fcnkern.info()['build']['isa'])", FCNKERN_ISA="generic")
    assert result.stdout.strip() == "generic", result.stderr


def test_unknown_isa_is_an_error_that_lists_the_known() -> None:
    result = run_python("import fcnkern", FCNKERN_ISA="sse9")
    assert result.returncode == 1
    assert "FCNKERN_ISA: instruction-set level 'sse9'" in result.stderr
    assert "generic" in result.stderr.splitlines()[-1]
