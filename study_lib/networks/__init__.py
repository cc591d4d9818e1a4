"""What both networks share: the machine, checkpoints, and the registry of names.

A network has a package of its own beside these; of files they know only bundles and checkpoints.
What a phase does with a network does not belong here. It may import solvers and everything below.
"""
