"""A corpus in the formats of others: `voxquarry export`.

`choice` says which clips go out and `splits` to which side, `shards` cuts them into pieces that are
written whole or not at all, `folder` keeps the books of what is there, `audio` reads and converts,
`card` writes the README. A format is one file with a class of `formats.Format`, named in
`registry`; it turns a shard of clips into files.
"""
