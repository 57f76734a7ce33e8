"""The names of the phases, for whoever runs none of them.

Importing a phase itself imports its stages, which takes seconds.
"""

CURATE = "curate"
MINE, NEAR_DUPLICATES = "mine", "duplicates"
ANNOTATE, DESCRIBE = "annotate", "describe"
CLONE, ENCODE = "clone", "encode"
