"""How the package is built, measured in any checkout: its modules and imports as written, and the way of a value as it runs.

    PYTHONPATH=.:tests python -m structure                        this checkout
    PYTHONPATH=.:tests python -m structure BEFORE [AFTER]         one checkout, or two side by side
    PYTHONPATH=.:tests python -m structure --walks --tests …      the three walks too (a minute), and the tests collected (one more)
    PYTHONPATH=.:tests python -m structure --names …              what was counted, by name

Another commit is measured in a folder of its own: `git worktree add ../before COMMIT`. `imports` reads the source, `follow` runs
inside the run that it follows, and `walks` starts such runs.
"""
