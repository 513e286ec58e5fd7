"""From digit probabilities to items: ``any_order_beam`` (CPD, the paper), ``one_pass``, ``exhaustive``..."""
