"""The documentation's site: it is built without a warning, so no link in it leads nowhere."""

import re
import subprocess
import sys

import pytest

from scripts.processes import ROOT


@pytest.mark.system
def test_the_site_is_built_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", tmp_path / "out"]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    page = (tmp_path / "out" / "options.html").read_text(encoding="utf-8")
    options = re.sub(r"<[^>]+>", "", page)
    for written in ("--packet-tokens N", "--catch-up speed|jump|none", "--jobs N"):
        assert written in options  # of the sender, of the listener, of muc
