"""Small model folders of every shape that the Hub has, and what each backend makes of them: the table in docs/models.md.

    PYTHONPATH=.:tests python -m folder_shapes              write docs/models.md (some minutes)
    PYTHONPATH=.:tests python -m folder_shapes NAME …       print the rows of these shapes alone

`spelling` writes tokenizers, `networks` weights, `layouts` what sentence-transformers lays around them; `shapes` is the list, and
`comparison` runs a shape and sentence-transformers' own loading of the same folder on the same pairs.
"""
