"""Arrays in, Figure out.

Everything that draws belongs here. What computes, reads or chooses does not. It may import the
ground and the scores that it draws, nothing above networks.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
