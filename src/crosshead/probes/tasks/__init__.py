"""The probes, a file each."""

from . import bandwidth as bandwidth
from . import chain as chain
from . import counting as counting
from . import distance as distance
from . import pairs as pairs
from . import recall as recall
from . import recall_pixels as recall_pixels
from . import regions as regions
