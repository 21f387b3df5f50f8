"""The verbs: parse, delegate, print. What a verb does is imported inside it, to keep `invoke --list` instant."""

ENGINE_HELP = "a built configuration, source:CHECKOUT[@CONFIGURATION], or path; default: the sglang on PATH"
