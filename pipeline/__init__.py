"""The engine: sources, storage, Ray Data graphs, quarantine, filter policy, report, profiles.

It runs any stage and knows no particular one. To add a table, see `schemas`; to add a filter
rule, see `pipeline/policies/default.yaml`.
"""
