"""From a sequence to patches: one request or many, whole or as they come.

`requests` says what is asked and answered, `rows` runs a batch of them, `engine` feeds it.
"""
