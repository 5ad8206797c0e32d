"""Every error PhotoSeek raises on purpose.

Each carries one message for a person: what was wrong, and what to do about it.

    PhotoSeekError
     ├─ ModelError
     │   ├─ ModelNotFound         no such name, or no checkpoint at that path
     │   ├─ CheckpointInvalid     weights missing, unexpected or of another architecture
     │   └─ ModelMismatch         the library was built with another model
     ├─ LibraryError
     │   ├─ LibraryNotFound       no catalog in that directory
     │   ├─ LibraryLocked         another process is writing to it
     │   ├─ LibraryTooNew         its format is of a later PhotoSeek
     │   └─ LibraryDamaged        the catalog cannot be read
     ├─ FolderNotFound            a folder to index is not there, or cannot be listed
     ├─ PhotoNotFound             no photo of that id, or its file is gone
     ├─ PhotoUnreadable           a file cannot be decoded; the message is the recorded reason
     ├─ QueryInvalid              a search that asks for something impossible
     ├─ AnnotationsInvalid        captions to evaluate with that cannot be used
     └─ ServiceError              the search service cannot be reached, or answered with an error
"""


class PhotoSeekError(Exception):
    """Base of every error raised on purpose."""


class ModelError(PhotoSeekError):
    """Something about a model."""


class ModelNotFound(ModelError):
    """No model of that name, or no checkpoint at that path."""


class CheckpointInvalid(ModelError):
    """Weights are missing, unexpected, or of another architecture."""


class ModelMismatch(ModelError):
    """The library holds vectors of another model."""


class LibraryError(PhotoSeekError):
    """Something about a library directory."""


class LibraryNotFound(LibraryError):
    """The directory holds no catalog."""


class LibraryLocked(LibraryError):
    """Another process is writing to the library."""


class LibraryTooNew(LibraryError):
    """The library was written by a later version of PhotoSeek."""


class LibraryDamaged(LibraryError):
    """The catalog cannot be read."""


class FolderNotFound(PhotoSeekError):
    """A folder to index does not exist or cannot be listed."""


class PhotoNotFound(PhotoSeekError):
    """No photo of that id, or its file is gone."""


class PhotoUnreadable(PhotoSeekError):
    """A file that cannot be decoded; the message is the reason that is recorded."""


class QueryInvalid(PhotoSeekError):
    """A search that asks for something impossible."""


class AnnotationsInvalid(PhotoSeekError):
    """A file of captions to evaluate with that cannot be used."""


class ServiceError(PhotoSeekError):
    """The search service cannot be reached, or answered with an error."""
