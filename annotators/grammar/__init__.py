"""A writer of natural sentences about a voice and its manner, without any model.

`writing.write` turns claims into a description. A language is a module that drafts a text from
claims and chance (`english`, `chinese`) and a table of its words (`en.yaml`, `zh.yaml`); to add
one, write both, give it a row in `writing`, and a lexicon in `annotators/lexicons`, since a test
holds that `annotators.claims` finds in every text what the grammar meant by it.
"""
