from . import forward as forward
from . import probe as probe
from . import scan as scan
from . import specimen as specimen
