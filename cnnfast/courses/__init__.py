"""Drop-ins for the hand-written layers of public courses, one module or package a course.

Each keeps its course's names, layouts, caches and conventions, and is written with cnnfast's
public functions alone. Valid for what the course's own functions accept: integers become float64,
mixed dtypes promote as in NumPy.

`activate` and `python -m cnnfast link` bring them to a course whose own imports stay as they are.
"""

from .activation import activate, deactivate

__all__ = ["activate", "deactivate"]
