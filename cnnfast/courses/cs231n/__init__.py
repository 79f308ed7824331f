"""Stanford CS231n, assignment 2 (NCHW): modules under the file names of the `cs231n` folder.

A star import from any of them brings in the names that the course's file defines, and of those that
come along there `np` and its like, but never a student's own function: `layers` has all layers that
students write, and no other module passes them on. Names, shapes, column orders and caches are
those of the handouts of 2018 to 2026 (https://github.com/cs231n/cs231n.github.io); the code is our
own.
"""
