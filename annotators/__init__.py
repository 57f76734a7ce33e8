"""Models that label audio: arrays and a sample rate in, typed results out. No Arrow, no Ray.

To add a model, write `annotators/<model>.py` and give its weights a row in
`annotators.registry`, so that a path, an installed package or the hub can provide them.
"""
