"""The checker: what is wrong with a hand-written layer, where, and what the mistake may be.

    problems     small seeded problems, and what is right for each
    conventions  the functions of the courses, and how each is called for a problem
    execute      one function, one problem: what came of it
    mistakes     the table: what each mistake would have given
    judge        from what came to what a teacher says
    report       as text and as JSON
    load, child, supervise   the same for a file, in a process that may hang or crash
    numerical    gradients by central differences

`cnnfast.gradcheck` is its face in Python, `python -m cnnfast check` the one on the command line.
"""
