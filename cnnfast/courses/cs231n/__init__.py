"""Stanford CS231n, assignment 2 (NCHW): modules under the file names of the `cs231n` folder.

A star import from any of them brings in exactly the names that the course's file brings in, never
a student's own function. Names, shapes, column orders and caches are those of the handouts of 2018
to 2026 (https://github.com/cs231n/cs231n.github.io); the code is our own.
"""
