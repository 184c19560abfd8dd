"""Problems: model + data + loss, and who holds which data. Knows neither time nor algorithms."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
