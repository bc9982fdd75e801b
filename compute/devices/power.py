"""What a device draws, where it says so: RAPL for processors on Linux, NVML for GPUs; nothing elsewhere.

Counters are of the whole package or GPU, idle power included, and of all that runs there. An attempt gets the mean
power since the reading before the last, times its time, shared evenly between the slots that were busy: an estimate,
good to compare machines by, and by nature the provider's word.

RAPL counters are microjoules in ``/sys/class/powercap/intel-rapl:N`` (AMD's have the same name), one for each package;
since Linux 5.10 only root may read them (CVE-2020-8694), so that most nodes report none.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from depin_node.compute.devices.gpu.nvidia import Gpu, total_energy_mj
from depin_node.core.clock import SECOND_NS

POWERCAP: Final = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Meter:
    """A counter of energy: ``read`` returns mJ since some moment, or None if it does not answer."""

    name: str
    read: Callable[[], int | None]


def find_meter(gpu: Gpu | None = None, powercap: Path = POWERCAP) -> Meter | None:
    """Return what measures the device that is lent: a GPU, else this machine's processors; None if nothing does."""
    if gpu is not None:
        meter = Meter("nvml", lambda: total_energy_mj(gpu))
    else:
        zones = _zones(powercap)
        if not zones:
            return None
        meter = Meter("rapl", Rapl(zones).read_mj)
    return meter if meter.read() is not None else None


def _zones(powercap: Path) -> list[Path]:
    try:
        return [zone for zone in sorted(powercap.glob("intel-rapl:*")) if zone.name.count(":") == 1]
    except OSError:
        return []


class Rapl:
    """The packages of one machine; their counters are narrow, and wrap around."""

    def __init__(self, zones: list[Path]) -> None:
        self._zones = zones
        self._last_uj: list[int] = []
        self._sum_uj = 0

    def read_mj(self) -> int | None:
        """Return the energy of all packages since the first reading."""
        try:
            now_uj = [int((zone / "energy_uj").read_text()) for zone in self._zones]
            ranges_uj = [int((zone / "max_energy_range_uj").read_text()) for zone in self._zones]
        except (OSError, ValueError):
            return None
        for last, now, range_uj in zip(self._last_uj, now_uj, ranges_uj, strict=False):
            self._sum_uj += now - last if now >= last else now - last + range_uj
        self._last_uj = now_uj
        return self._sum_uj // 1000


class PowerShare:
    """Shares a device's energy out to attempts. Pure: readings come in."""

    def __init__(self) -> None:
        self._before: tuple[int, int] | None = None  # at_ns, mJ
        self._power_w = 0.0

    def reading(self, energy_mj: int, at_ns: int) -> None:
        """Take a reading of the counter."""
        if self._before is not None and at_ns > self._before[0] and energy_mj >= self._before[1]:
            self._power_w = (energy_mj - self._before[1]) / 1000 / ((at_ns - self._before[0]) / SECOND_NS)
        self._before = (at_ns, energy_mj)

    def share_mj(self, duration_ns: int, slots_busy: int) -> int:
        """Return what an attempt took that ended just now, in mJ."""
        return round(self._power_w * duration_ns / SECOND_NS * 1000 / max(1, slots_busy))
