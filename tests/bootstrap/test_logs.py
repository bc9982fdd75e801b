import json
import subprocess
import sys

import pytest

from depin_node.bootstrap import logs
from depin_node.core.errors import ConfigError

SCRIPT = """
import logging, sys
from pathlib import Path
import structlog
from depin_node.bootstrap import logs
logs.set_up("info", Path(sys.argv[1]))
log = structlog.get_logger("depin_node.test")
log.debug("unseen")
log.info("a peer said", reason="\\x1b[2Jgone\\u202e", key=b"\\x00\\x01", n=3)
logging.getLogger("libp2p.host").warning("chatter")
logging.getLogger("libp2p.host").error("libp2p \\x1b broke")
try:
    raise ValueError("\\x1b]0;title\\x07")
except ValueError:
    log.exception("failed")
"""


def test_what_peers_wrote_is_harmless_on_stderr_and_in_the_file(tmp_path):
    file = tmp_path / "logs" / "node.log"
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(file)], check=True, capture_output=True, text=True)
    assert done.stdout == ""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["a peer said", r"libp2p \x1b broke", "failed"]
    assert lines[0]["reason"] == r"\x1b[2Jgone\u202e"
    assert lines[0]["key"] == "0001"
    assert lines[0]["n"] == 3
    assert r"ValueError: \x1b]0;title\x07" in lines[2]["exception"]
    assert "\n" in lines[2]["exception"]
    for text in (done.stderr, file.read_text()):
        assert not any(char in text for char in "\x1b\x07\u202e")
    assert "a peer said" in done.stderr
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_files_are_bounded(tmp_path):
    script = """
import sys
from pathlib import Path
import structlog
from depin_node.bootstrap import logs
logs.FILE_BYTES_MAX = 10_000
logs.set_up("info", Path(sys.argv[1]))
for n in range(1000):
    structlog.get_logger("x").info("event", n=n, text="y" * 100_000)
"""
    file = tmp_path / "node.log"
    done = [sys.executable, "-c", script, str(file)]
    subprocess.run(done, check=True, stderr=subprocess.DEVNULL)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 1 + logs.FILES_KEPT
    assert all(file.stat().st_size <= 10_000 for file in files)
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)


def test_a_log_that_cannot_be_written_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="the log cannot be written"):
        logs.set_up("info", tmp_path / "file" / "node.log")
