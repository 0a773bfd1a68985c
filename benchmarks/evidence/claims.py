"""How often the tests of ``crosshead compare`` claim what is not there, and find what is: 2,000 simulated comparisons.

``level``: two groups of one recipe; ``power``: a difference as large as is named detectable, found four times in five;
``dunnett`` and ``holm``: one of eight variants that lies 2.5 deviations above the control, and how often any of the
seven others is named.
"""

from typing import Any

import numpy as np

from crosshead.compare.differences import paired, welch
from crosshead.compare.recipes import against_control, detectable, holm

from .ledger import Job, Part

REPEATS, PLANTED, VARIANTS = 2000, 2.5, 8
TESTS = {"welch": welch, "paired": paired}
DRAWS = {
    "normal": lambda rng, seeds: rng.normal(size=seeds),
    "heavy": lambda rng, seeds: rng.standard_t(3, size=seeds),
}


def run(cell: str, seed: int) -> dict[str, Any]:
    what, *rest = cell.split("/")
    rng = np.random.default_rng(seed)
    if what in ("dunnett", "holm"):
        return _several(what, int(rest[0]), rng)
    test, draw, seeds = TESTS[rest[0]], DRAWS[rest[1]], int(rest[2])
    pairs = rest[0] == "paired"
    apart = detectable(seeds, 2**0.5 if pairs else 1.0, paired=pairs) if what == "power" else 0.0
    claimed = [test(draw(rng, seeds), draw(rng, seeds) + apart).differs() for _ in range(REPEATS)]
    return {"share": float(np.mean(claimed)), "planted": apart}


def _several(how: str, seeds: int, rng: np.random.Generator) -> dict[str, Any]:
    hits = false = 0
    for _ in range(REPEATS // 4):  # Dunnett's integral is dear
        control = rng.normal(size=seeds)
        others = {str(i): rng.normal(size=seeds) + PLANTED * (i == 0) for i in range(VARIANTS)}
        if how == "dunnett":
            found = [each.differs() for each in against_control(control, others).values()]
        else:
            found = [p < 0.05 for p in holm([welch(control, other).p for other in others.values()])]
        hits, false = hits + found[0], false + any(found[1:])
    return {"share": hits / (REPEATS // 4), "others": false / (REPEATS // 4), "planted": PLANTED}


PART = Part(
    "claims",
    "share of simulated comparisons in which a difference is claimed, by what/test/distribution/seeds",
    {"repeats": REPEATS, "several": REPEATS // 4, "variants": VARIANTS, "level": 0.05},
    [
        *(Job(f"level/{t}/{d}/{n}", 8100) for n in (3, 5, 10) for t in TESTS for d in DRAWS),
        *(Job(f"power/{t}/normal/{n}", 8101) for n in (3, 5, 8, 10) for t in TESTS),
        *(Job(f"{how}/{n}", 8102) for n in (3, 5) for how in ("dunnett", "holm")),
    ],
    run,
)
