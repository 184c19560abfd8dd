from .link import link as link
from .network import Network as Network, as_network as as_network
from .regions import between_regions as between_regions, regions as regions
