"""Small tasks that tell apart what kinds of heads can do: trained in seconds, on sequences made as they are needed.

    crosshead.probe("pairs", ["plain", "overlap:1", "talking"], seeds=[0, 1, 2]) -> ProbeReport

A probe of one's own is a frozen dataclass derived from ``Probe``, and ``register_probe``.
"""

from . import tasks as tasks
from .probe import IGNORED, PROBES, Probe, register_probe
from .report import Cell, ProbeReport
from .running import probe
from .training import Run

__all__ = ["IGNORED", "PROBES", "Cell", "Probe", "ProbeReport", "Run", "probe", "register_probe"]
