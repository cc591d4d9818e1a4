"""What both networks share: the machine, checkpoints, and the registry of names.

Another network of patterns is a builder in registry and keeps the training of pinn; only what is
trained in another way has a package of its own. Of files they know only bundles and checkpoints;
what a phase does with a network does not belong here.
"""
