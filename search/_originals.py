from indexer.library import PhotoRecord


def unchanged(photo: PhotoRecord) -> bool:
    """Whether the file is still the one that was indexed. OSError when it is gone.

    An edited one shows something else than its vectors, match features and thumbnail.
    """
    now = photo.path.stat()
    # The record's time comes from a datetime, which drops what is below a microsecond.
    return now.st_size == photo.size and abs(now.st_mtime - photo.modified_at.timestamp()) < 1e-3
