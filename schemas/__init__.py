"""Row types, Arrow schemas, ids and errors: what every other room agrees on.

To add a column, add a field with its unit and the meaning of null to the table's dataclass in
`schemas.rows`. A changed meaning gets a new name; a changed table gets a new version in
`schemas.arrow`.
"""
