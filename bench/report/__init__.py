"""Records as text, Markdown and HTML. Nothing is computed here."""
