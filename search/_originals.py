from indexer.library import PhotoRecord
from indexer.scan import lies_inside


def unchanged(photo: PhotoRecord) -> bool:
    """Whether the file is still the one that was indexed. OSError when it is gone.

    An edited one shows something else than its vectors, match features and thumbnail. One that has become a link out of
    its folder may be any file of its owner's.
    """
    if not lies_inside(photo.path, photo.folder):
        return False
    now = photo.path.stat()
    # The record's time comes from a datetime, which drops what is below a microsecond.
    return now.st_size == photo.size and abs(now.st_mtime - photo.modified_at.timestamp()) < 1e-3
