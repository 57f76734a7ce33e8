"""The trainer: packs of training sequences in, a checkpoint in the official layout out.

It knows tensors and files, and nothing of Ray, tables or how a corpus is read: where packs come from
is a `stream.PackStream`.
"""
