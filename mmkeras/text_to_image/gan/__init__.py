"""The adversarial model of text to image: graph, networks, losses."""
