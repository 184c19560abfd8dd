from . import (
    corrections as corrections,
    lmo as lmo,
    look_ahead as look_ahead,
    momentum as momentum,
    staleness_models as staleness_models,
    staleness_weights as staleness_weights,
    stashing as stashing,
    tables as tables,
    work as work,
)
