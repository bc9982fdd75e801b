from depin_node.compute.devices.power import PowerShare, Rapl, find_meter
from depin_node.core.clock import SECOND_NS


def zone(powercap, name, energy_uj, range_uj=1000_000):
    folder = powercap / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{range_uj}\n")


def test_packages_are_added_and_parts_of_them_are_not(tmp_path):
    zone(tmp_path, "intel-rapl:0", 100_000)
    zone(tmp_path, "intel-rapl:0:0", 70_000)  # its cores
    zone(tmp_path, "intel-rapl:1", 900_000)
    meter = find_meter(powercap=tmp_path)
    assert meter.name == "rapl"
    before = meter.read()
    zone(tmp_path, "intel-rapl:0", 150_000)
    zone(tmp_path, "intel-rapl:1", 100_000)  # it wrapped around
    assert meter.read() - before == 50 + 200


def test_where_nothing_measures_there_is_no_meter(tmp_path):
    assert find_meter(powercap=tmp_path / "none") is None
    (tmp_path / "intel-rapl:0").mkdir()  # there, and not to be read
    assert find_meter(powercap=tmp_path) is None
    zone(tmp_path, "intel-rapl:0", "garbage")
    assert Rapl([tmp_path / "intel-rapl:0"]).read_mj() is None


def test_energy_is_shared_between_busy_slots():
    share = PowerShare()
    assert share.share_mj(SECOND_NS, 1) == 0
    share.reading(1_000, 0)
    assert share.share_mj(SECOND_NS, 1) == 0  # one reading is no power yet
    share.reading(31_000, SECOND_NS)  # 30 W
    assert share.share_mj(SECOND_NS, 1) == 30_000
    assert share.share_mj(SECOND_NS // 10, 3) == 1_000
    assert share.share_mj(SECOND_NS, 0) == 30_000
    share.reading(5, 2 * SECOND_NS)  # the counter began anew
    assert share.share_mj(SECOND_NS, 1) == 30_000
