"""Photos in, library out.

The rooms: `indexer.photos` reads picture files, `indexer.model` makes vectors of them and of texts, `indexer.library`
keeps them, and `indexer.pipeline` brings the three together.
"""
