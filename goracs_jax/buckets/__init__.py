"""The one room that speaks with buckets: s3://, gs:// and hf:// as paths.

A path in a bucket is a `Path` that is called by its URL. What is read is a `Remote`:
it is opened in ranges, and a library that needs a file of the operating system gets a
local copy. What a verb writes is a `Staged`: a local file or folder, which `deliver`
sends to the bucket.

Stores are those of fsspec, which orbax, datasets and huggingface_hub bring along. The
other choice, etils.epath, stands on fsspec, too, but opens no ranges of its own, and
its paths are no `Path`.
"""

from goracs_jax.buckets.paths import BucketPath as BucketPath
from goracs_jax.buckets.remote import Remote as Remote
from goracs_jax.buckets.remote import as_path as as_path
from goracs_jax.buckets.remote import local_folder as local_folder
from goracs_jax.buckets.staged import Staged as Staged
from goracs_jax.buckets.staged import deliver as deliver
from goracs_jax.buckets.staged import sending as sending
from goracs_jax.buckets.staged import writable as writable
