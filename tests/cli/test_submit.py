"""``submit`` and ``job`` as users meet them: job files, compilers, nodes, and what is said when it is wrong."""

import json
import re
import resource
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from nodes import command, depin_node, environment

from depin_node.cli import main as cli_main
from depin_node.cli.submit import progress, save
from depin_node.core.errors import ResourceError

pytestmark = pytest.mark.net

SAXPY = """extern "C" __global__ void saxpy(int n, float a, const float *x, const float *y, float *z) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) z[i] = a * x[i] + y[i];
}
"""
JOB = """name = "saxpy"
[kernel]
file = "saxpy.cu"
name = "saxpy"
[launch]
grid = "ceil(n / 256)"
block = 256
[args]
n = { int32 = "x.shape[0]" }
a = { float32 = 2.5 }
x = { in = "x.npy" }
y = { in = "y.npy" }
z = { out = "float32", shape = "n", tile = 256 }
[shards]
count = 4
[verify]
k = 2
n = 3
[limits]
seconds = 10
memory_mib = 64
"""
N = 10_000


def test_without_a_terminal_it_is_said_now_and_then_how_far_a_job_is(monkeypatch, capsys):
    times = iter([0.0, 9.0, 10.0, 10.0, 11.0, 25.0, 25.0])
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    with progress(64) as advance:
        for done, text in ((1, ""), (2, "3 running"), (3, ""), (40, "")):
            advance(done, text)
    monkeypatch.undo()
    assert capsys.readouterr().err == "2 of 64 tasks done; 3 running\n40 of 64 tasks done\n"


def test_a_result_that_does_not_fit_on_the_disk_leaves_the_earlier_one_and_nothing_half(tmp_path):
    save({"z": np.arange(4)}, tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(ResourceError, match=r"z\.npy: the result cannot be written: .*disk.*; say"):
            save({"z": np.zeros(100_000)}, tmp_path, "; say")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["z.npy"]
    assert np.load(tmp_path / "z.npy").tolist() == [0, 1, 2, 3]


def test_other_numbers_that_make_room_for_a_result_are_told_of(tmp_path, capsys):
    for array, is_told in ((np.arange(4), False), (np.arange(4), False), (np.arange(4) + 1, True)):
        save({"z": array}, tmp_path)
        assert (f"{tmp_path / 'z.npy'} is in the place of other numbers" in capsys.readouterr().err) == is_told
        assert np.array_equal(np.load(tmp_path / "z.npy"), array)


@pytest.fixture
def job(tmp_path):
    """A folder with a job that works; tests break it."""
    np.save(tmp_path / "x.npy", np.arange(N, dtype=np.float32))
    np.save(tmp_path / "y.npy", np.ones(N, np.float32))
    (tmp_path / "saxpy.cu").write_text(SAXPY)
    (tmp_path / "job.toml").write_text(JOB)
    return tmp_path / "job.toml"


@pytest.fixture(scope="module")
def mesh(module_nodes):
    config = module_nodes.folder / "config.toml"
    config.write_text("[waits]\nsuitable = 3\n")
    return module_nodes.mesh(3, "--config", config)


def change(job, old, new, file="job.toml"):
    text = (job.parent / file).read_text()
    assert old in text
    (job.parent / file).write_text(text.replace(old, new))


def submit(node, job, *args):
    return node.run("submit", job, "--output", job.parent / "out", *args)


def check(job):
    expected = np.float32(2.5) * np.arange(N, dtype=np.float32) + 1
    np.testing.assert_array_equal(np.load(job.parent / "out" / "z.npy"), expected)
    shutil.rmtree(job.parent / "out")


def test_a_job_file_runs_locally_without_a_node(job):
    done = depin_node("submit", "--local", job, "--output", job.parent / "out", "--data-dir", job.parent / "none")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{job.parent}/out/z.npy\n"
    check(job)


def test_where_results_go_by_default_is_named_after_the_job(job):
    change(job, 'name = "saxpy"\n[kernel]', 'name = "../up/\u202e"\n[kernel]')
    change(job, '"../up/\u202e"', '"../up"')
    done = depin_node("submit", "--local", job, cwd=job.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "_._up-out/z.npy\n"


def test_dry_run_compiles_and_sends_nothing(job):
    done = depin_node("submit", "--dry-run", "--json", job, "--data-dir", job.parent / "none")
    plan = json.loads(done.stdout)
    assert (plan["tasks"], plan["kernels"], plan["outputs"]) == (4, ["saxpy"], {"z": 4 * N})
    assert plan["work"] == {"steps": 1, "threads": 10 * 256}, "what is not known is not zero"
    assert (plan["limits"], plan["results"]) == ({"seconds": 10, "memory_mib": 64}, 4 * 10 * 256)
    assert plan["with 4"].startswith(
        "2.00 attempts a task on providers, 0.002 audits a task here; 96.0000% right where 20% of"
    )
    assert list(job.parent.glob("out*")) == []


def test_a_dry_run_says_what_lenders_take_and_in_which_units(job):
    said = depin_node("submit", "--dry-run", job).stdout
    assert f"inputs          x {4 * N:,} bytes, y {4 * N:,} bytes\n" in said
    assert "a task does     1 step, 2,560 threads at most\n" in said
    assert "a task may      take 10 s and 64 MiB ([limits])\n" in said
    assert "lenders take    3,600 s, 1,024 MiB, 256 MiB of results and 1e+15 threads and operations a task" in said
    assert "too much" not in said
    change(job, "memory_mib = 64", "memory_mib = 4000")
    assert "too much for them: 4,000 MiB; lower [limits] memory_mib" in depin_node("submit", "--dry-run", job).stdout


def test_a_job_goes_through_the_mesh_verified(mesh, job):
    done = submit(mesh[0], job, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    checked = answer["job"]["verification"]
    assert (checked["agreed"], checked["disputed"], checked["liars"]) == (4, 0, [])
    assert (checked["policy"], checked["groups"], checked["provisional"]) == ("quorum 2 of 3, audits 0.002", 2.0, 0)
    assert answer["outputs"] == [f"{job.parent}/out/z.npy"]
    check(job)


def test_what_it_cost_is_told_with_its_unit(mesh, job):
    assert submit(mesh[0], job).returncode == 0
    told = mesh[0].run("receipts", "list").stdout
    assert re.search(r"\d\.\d{3} ref-s +(\d+\.\d{3} s|-) +quorum 2 of 3", told), told
    assert "0.0 ref-s" in mesh[1].run("credit").stdout


def test_any_node_may_submit_also_one_that_lends(mesh, job):
    assert submit(mesh[1], job).returncode == 0
    check(job)


def test_submit_now_and_fetch_later(mesh, job):
    done = submit(mesh[0], job, "--no-wait", "--key", "later")
    (job_id,) = done.stdout.split()
    assert submit(mesh[0], job, "--no-wait", "--key", "later").stdout.split() == [job_id]
    told = json.loads(submit(mesh[0], job, "--no-wait", "--key", "later", "--json").stdout)
    assert told["job"]["id"] == job_id
    shown = mesh[0].run("job", "show", job_id[:10], "--follow")
    assert "4 of 4 done" in shown.stdout
    assert mesh[0].run("job", "result", job_id[:10], "--output", job.parent / "out").returncode == 0
    check(job)
    assert job_id in [view["id"] for view in mesh[0].json("job", "list")]
    story = mesh[0].json("job", "show", job_id, "--story")
    assert story == sorted(story, key=lambda event: event["at_s"])
    kinds = [event["kind"] for event in story]
    assert kinds.index("asked") < kinds.index("bid") < kinds.index("agreed")


def test_unknown_jobs_are_said_to_be_unknown(mesh):
    for args in (["show"], ["result"], ["cancel"]):
        done = mesh[0].run("job", *args, "0123456789")
        assert done.returncode == 1
        assert "no job begins with '0123456789'" in done.stderr


def test_ctrl_c_ends_the_waiting_and_the_job_goes_on(mesh, job):
    change(job, "z[i] = a", "for (volatile int k = 0; ; ) if (k) break; z[i] = a", "saxpy.cu")
    change(job, "seconds = 10", "seconds = 600")
    waiting = subprocess.Popen(
        command("submit", job, "--output", job.parent / "out", "--data-dir", mesh[0].data_dir),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    with waiting:
        try:
            tried = waiting.stderr.readline()
            assert tried.startswith("not tried whether its bits are defined: the task did not end"), tried
            first = waiting.stderr.readline()
            assert first.startswith("job "), first
            short = first.split()[1]
            waiting.send_signal(signal.SIGINT)
            out, err = waiting.communicate(timeout=60)
        finally:
            waiting.kill()  # else an assertion that fails waits for the job
    assert waiting.returncode == 130
    assert out == ""
    assert f"job {short} goes on" in err
    assert f"depin-node job cancel {short} --data-dir {mesh[0].data_dir}\n" in err
    assert "Traceback" not in err
    assert mesh[0].json("job", "show", short)["state"] in ("queued", "running")
    assert mesh[0].run("job", "cancel", short).returncode == 0
    assert mesh[0].json("job", "show", short)["state"] == "cancelled"
    assert mesh[0].run("job", "cancel", short).returncode == 0  # it still is


def test_a_key_that_a_job_had_which_was_cancelled_is_said_to_be_taken(nodes, job, capfd):
    alone = nodes.start()
    (job_id,) = submit(alone, job, "--no-wait", "--key", "k1").stdout.split()
    assert alone.run("job", "cancel", job_id).returncode == 0
    code, err = said(["submit", job, "--key", "k1", "--data-dir", alone.data_dir], capfd)
    assert code == 1
    assert f"key k1 is already job {job_id[:12]}, cancelled" in err
    assert "submitted" not in err


REFUSED = {
    "no such file": (lambda job: job.unlink(), "cannot read"),
    "damaged TOML": (lambda job: job.write_text("[kernel"), "job.toml: not valid TOML"),
    "not text": (lambda job: job.write_bytes(b"\xff\xfe"), "not UTF-8"),
    "unknown key": (lambda job: change(job, "count = 4", "cuont = 4"), "unknown key (did you mean count?)"),
    "missing array": (lambda job: (job.parent / "x.npy").unlink(), "x.npy: No such file"),
    "damaged array": (lambda job: (job.parent / "x.npy").write_bytes(b"x"), "is not a NumPy file"),
    "pickled array": (lambda job: np.save(job.parent / "x.npy", np.array([{}])), "is not a NumPy file"),
    "wrong dtype": (
        lambda job: np.save(job.parent / "x.npy", np.zeros(N)),
        "x is const float32*, its array is float64: convert it with astype('float32')",
    ),
    "wrong shape": (lambda job: change(job, 'shape = "n"', 'shape = "2 * n"'), "z"),
    "wrong expression": (lambda job: change(job, "ceil(n / 256)", "ceil(m / 256)"), "[launch] grid: "),
    "wrong argument": (lambda job: change(job, "a = {", "b = {"), "b is none of them"),
    "missing argument": (lambda job: change(job, "a = {", "# a = {"), "n, a, x, y, z: a is missing"),
    "does not compile": (lambda job: change(job, "a * x", "a ** x", "saxpy.cu"), "saxpy.cu:3:26: error: "),
    "no check for a kernel": (
        lambda job: change(job, "k = 2\nn = 3", 'policy = "algebraic"'),
        "algebraic() checks programs of one array operation",
    ),
    "less memory than it needs": (
        lambda job: (
            np.save(job.parent / "x.npy", np.zeros(1 << 20, np.float32)),
            np.save(job.parent / "y.npy", np.zeros(1 << 20, np.float32)),
            change(job, "memory_mib = 64", "memory_mib = 8"),
        ),
        "job.toml: [limits] memory_mib: a task holds the kernel and all arrays: 13 MiB, not 8",
    ),
    "writes beyond its memory": (
        lambda job: change(job, "z[i] =", "z[i - (1 << 29)] =", "saxpy.cu"),
        "saxpy: task 2 fails: the kernel trapped",
    ),
    "writes where another task does": (
        lambda job: change(job, "z[i] =", "z[i < 256 ? n - 1 : i] =", "saxpy.cu"),
        "saxpy: task 0 fails: the kernel wrote to z outside the tiles of its blocks",
    ),
    "unsupported": (lambda job: change(job, "z[i] = a", "z[i] = clock64() + a", "saxpy.cu"), "saxpy.cu:3:"),
}
BAD = {
    "loops for ever": (
        lambda job: (
            change(job, "z[i] = a", "for (volatile int k = 0; ; ) if (k) break; z[i] = a", "saxpy.cu"),
            change(job, "seconds = 10", "seconds = 1"),
        ),
        1,
        "raise [limits] seconds",
    ),
    "too much memory": (
        lambda job: change(job, "memory_mib = 64", "memory_mib = 4000"),
        3,
        "too little memory",
    ),
    "more providers than there are": (
        lambda job: (change(job, "k = 2", "k = 4"), change(job, "n = 3", "n = 5")),
        3,
        "it needs 4 providers",
    ),
}


def said(args, capfd):
    """Run a command in this process, which saves a second; return its exit code and stderr."""
    code = cli_main.run([str(arg) for arg in args])
    out, err = capfd.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return code, err


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_wrong_with_a_job_shows_before_anything_is_sent(mesh, job, capfd, kind):
    spoil, message = REFUSED[kind]
    spoil(job)
    code, err = said(["submit", job, "--data-dir", mesh[0].data_dir, "--output", job.parent / "out"], capfd)
    assert message in err
    assert code == 2
    assert len(err.splitlines()) == 1
    assert not (job.parent / "out").exists()


@pytest.mark.parametrize("kind", BAD)
def test_a_job_that_fails_is_explained_and_a_good_one_still_runs(mesh, job, tmp_path_factory, capfd, kind):
    spoil, code, message = BAD[kind]
    good = tmp_path_factory.mktemp("good")
    shutil.copytree(job.parent, good, dirs_exist_ok=True)
    spoil(job)
    done = said(["submit", job, "--data-dir", mesh[0].data_dir, "--output", job.parent / "out"], capfd)
    assert message in done[1]
    assert done[0] == code, done[1]
    assert not (job.parent / "out").exists()
    assert (
        cli_main.run(["submit", str(good / "job.toml"), "--data-dir", str(mesh[0].data_dir), "--output", f"{good}/out"])
        == 0
    )
    check(good / "job.toml")


def test_results_that_cannot_be_written_are_explained(mesh, job):
    (job.parent / "out").mkdir()
    (job.parent / "out" / "z.npy").mkdir()
    done = submit(mesh[0], job)
    assert done.returncode == 1
    assert "the result cannot be written" in done.stderr
    assert "depin-node job result" in done.stderr


def test_a_node_alone_says_why_nobody_works_for_it(nodes, job):
    config = nodes.folder / "config.toml"
    config.write_text("[waits]\nsuitable = 1\n")
    alone = nodes.start("--config", config)
    done = submit(alone, job)
    assert done.returncode == 3
    assert "nobody suitable took the work" in done.stderr
    lacks = "it needs 2 lenders of different groups, and waits 1 s for them: no lender is known, nor any other peer"
    assert f"queued: {lacks} (depin-node doctor says why); see: depin-node job explain " in done.stderr
    assert f" --data-dir {alone.data_dir}\n" in done.stderr
    assert "--lend" in done.stderr
    (failed,) = alone.json("job", "list")
    why = alone.json("job", "explain", failed["id"])
    assert (why["peers_known"], why["groups_needed"]) == (0, 2)
    said = alone.run("job", "explain", failed["id"][:12]).stdout
    assert "0 of 0 known peers, in 0 groups; it needs 2 providers of different groups" in said
    assert "- 2 more lenders of other groups (another owner, another /16): depin-node start --lend" in said


def test_a_job_that_waits_says_so_now_and_then(nodes, job):
    alone = nodes.start()
    with subprocess.Popen(
        command("submit", job, "--json", "--data-dir", alone.data_dir),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
    ) as waiting:
        assert waiting.stderr.readline().startswith("job ")
        assert waiting.stderr.readline().startswith("queued: it needs 2 lenders")
        assert waiting.stderr.readline().startswith("0 of 4 tasks done; queued: it needs 2 lenders")
        waiting.send_signal(signal.SIGINT)
        assert waiting.communicate(timeout=60)[0] == ""


def test_answers_that_never_agree_fail_verification(nodes, job):
    config = nodes.folder / "config.toml"
    config.write_text(
        f'devices = ["lying_device:LyingDevice"]\ndevice_path = "{Path(__file__).parent.parent / "support"}"\n'
    )
    first, *_ = nodes.mesh(3, "--config", config)
    done = submit(first, job)
    assert done.returncode == 4, done.stderr
    assert "no 2 of them agree" in done.stderr


def test_a_node_that_went_away_while_somebody_waits_is_named(nodes, job):
    first = nodes.start()
    waiting = subprocess.Popen(
        command("submit", job, "--data-dir", first.data_dir), stderr=subprocess.PIPE, env=environment(), text=True
    )
    with waiting:
        assert waiting.stderr.readline().startswith("job ")
        first.kill()
        _, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 3
    assert "went away" in err or "no node is running" in err
