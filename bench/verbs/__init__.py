"""The verbs: parse, delegate, print. What a verb uses is imported inside it, so that `invoke --list` is instant."""
