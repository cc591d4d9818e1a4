"""The experiment: arrays in, arrays out.

What light does on its way through probe, object and detector (simulation has its faults) belongs
here, and the likelihood of the counts that it leaves. Files, designs and the choices of an
algorithm do not.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
