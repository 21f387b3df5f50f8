"""The verbs: options in, work done, result shown. What a verb does is imported inside it, so `--list` stays instant."""
