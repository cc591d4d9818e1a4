"""The thinning network: it learns from thinned counts.

What it is shown, its training, its ensemble and the studies of its parts belong here. The
denoisers that it mixes do not.
"""
