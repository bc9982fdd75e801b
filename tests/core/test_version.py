"""Which build it is: a commit can be told from another, and nothing else of a checkout is told."""

import subprocess
from importlib.metadata import version

from depin_node.core.version import commit_of, software_version


def git(root, *command):
    name = ["-c", "user.name=secret", "-c", "user.email=secret@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", root, *name, *command], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_a_commit_is_told_by_its_hash_and_by_nothing_else(tmp_path):
    root = tmp_path / "secret"
    git(tmp_path, "init", "-q", "-b", "secret", root)
    assert commit_of(root) == "", "it has no commit yet"
    (root / "a").write_text("1")
    git(root, "add", "a")
    git(root, "commit", "-qm", "secret")
    git(root, "tag", "-a", "secret", "-m", "secret")
    first = commit_of(root)
    assert first == "g" + git(root, "rev-parse", "HEAD")[:10]
    (root / "a").write_text("2")
    assert commit_of(root) == f"{first}.changed"
    git(root, "worktree", "add", "-q", tmp_path / "beside")
    assert commit_of(tmp_path / "beside") == first
    git(root, "commit", "-qam", "secret")
    assert commit_of(root) not in (first, "")


def test_a_folder_in_somebody_elses_checkout_is_none(tmp_path):
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "x")
    (tmp_path / "site-packages").mkdir()
    assert commit_of(tmp_path / "site-packages") == ""


def test_a_version_fits_an_advert():
    assert software_version().startswith(version("depin-node").partition("+")[0])
    assert len(software_version()) <= 32
