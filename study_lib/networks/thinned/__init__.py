"""The network that learns from thinned counts, `pinn-thinned`.

What it is shown, its training, its ensemble and the studies of its parts belong here. The
denoisers that it mixes do not. It may import what networks may.
"""
