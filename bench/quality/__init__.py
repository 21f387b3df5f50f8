"""How good the outputs are beside how fast they came: pictures against pictures, and the thresholds for them."""
