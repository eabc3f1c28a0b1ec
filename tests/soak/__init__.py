"""The soak: random tasks, models, kills and faults for a given time, and what must hold after each.

    PYTHONPATH=.:tests python -m soak --minutes 20 --seed 7

`cases` makes the runs, `child` is a run in a process of its own, `troubles` what befalls it, `invariants` what must hold,
`growth` a process that lives long.
"""
