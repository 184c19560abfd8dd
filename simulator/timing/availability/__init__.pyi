from .base import Availability as Availability
from .counts import Counts as Counts
from .events import Events as Events
from .registry import AVAILABILITIES as AVAILABILITIES, as_availability as as_availability
from .renewal import Renewal as Renewal
