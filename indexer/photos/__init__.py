"""Reading picture files: upright RGB pixels, facts and thumbnails, in this process or in workers that may die."""

from indexer.photos._decode import THUMBNAIL_SIDE, DecodedPhoto, decode, read_photo, read_pixels, squash
from indexer.photos._formats import OPENED_FORMATS
from indexer.photos._memory import decoder_memory
from indexer.photos._open import open_regular, open_rgb
from indexer.photos._pillow import MAX_PIXELS, decoding
from indexer.photos._pool import TIME_LIMIT, Broken, Decoded, DecoderPool, Failed, Hashed, Vanished
from indexer.photos._process import START_LIMIT, set_up_decoder, spawn_decoder
from indexer.suffixes import SUPPORTED, is_supported

__all__ = [
    "MAX_PIXELS",
    "OPENED_FORMATS",
    "START_LIMIT",
    "SUPPORTED",
    "THUMBNAIL_SIDE",
    "TIME_LIMIT",
    "Broken",
    "Decoded",
    "DecodedPhoto",
    "DecoderPool",
    "Failed",
    "Hashed",
    "Vanished",
    "decode",
    "decoder_memory",
    "decoding",
    "is_supported",
    "open_regular",
    "open_rgb",
    "read_photo",
    "read_pixels",
    "set_up_decoder",
    "spawn_decoder",
    "squash",
]
