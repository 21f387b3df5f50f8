"""The verbs: parse, delegate, print. What a verb does is imported inside it, to keep `invoke --list` instant."""
