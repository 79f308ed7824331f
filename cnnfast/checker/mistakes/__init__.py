"""The table of mistakes, `MISTAKES`, and what else can be told from numbers, `RELATIONS`.

Rows are tried in their order, and the order of the imports is a part of it.
"""

from . import conv, geometry, other, pool  # noqa: F401 - they fill the table
from .relations import RELATIONS
from .table import MISTAKES, RAISES, Mistake, Prediction

__all__ = ["MISTAKES", "RAISES", "RELATIONS", "Mistake", "Prediction"]
