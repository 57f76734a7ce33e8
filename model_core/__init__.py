"""The VoxCPM family in PyTorch. Modules see tensors, never Ray, ranks or paths.

To add a layer, give it a file of its own, or put it beside its only user until a second appears.
"""
