"""From a network's answers to ranked items: the catalogue, decoders, item scoring, rankers."""
