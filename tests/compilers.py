"""What a model or a layer is compiled by in the tests.

aot_eager captures forward and backward whole, which is what is ours; inductor's C++ of them takes half a minute
each, and is in the quick tests of the operators. Whole models through inductor are part of ``make soak``.
"""

import pytest

COMPILERS = ["aot_eager", pytest.param("inductor", marks=pytest.mark.soak)]
