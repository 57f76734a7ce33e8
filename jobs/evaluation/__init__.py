"""What a checkpoint's speech is worth: test utterances, speech, judges, figures with intervals.

    list or corpus → utterances → speech → judges → rows → figures → JSON, Markdown, table
                              recordings → AudioVAE → rows ↗

To add a measure: a column in `rows`, whoever fills it, and a line in `figures.MEASURES`.
"""
