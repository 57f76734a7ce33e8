"""What people start: the command line, and the phase behind each command.

To add a run, write one function that names its stages and its tables.
"""
