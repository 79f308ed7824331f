"""The checker: what is wrong with a hand-written layer, where, and what the mistake may be.

    problems     small seeded problems
    answers      what is right for each, by the reference
    conventions  the functions of the courses, and how each is called for a problem
    tasks        which of them a namespace has
    execute      one function, one problem: what came of it
    mistakes     the table: what each mistake would have given
    diagnose     the mistake that explains what came
    judge        from what came to what a teacher says
    report       as text and as JSON
    load, child, supervise   the same for a file, in a process that may hang or crash
    numerical    gradients by central differences

`cnnfast.gradcheck` is its face in Python, `python -m cnnfast check` the one on the command line.
"""
