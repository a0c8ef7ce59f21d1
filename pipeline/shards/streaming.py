"""Reading a shard front to back from where it is kept: a folder, an address, or a command that prints it.

An address or a command is handed to `webdataset`, and a command from there to a shell. It is the user's own text; the
only foreign part is the name of the shard, which must therefore hold no character that a shell or an address reads.
"""

from __future__ import annotations

import shlex
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from typing import IO
from urllib.parse import urlsplit

from pipeline.errors import BadInput
from pipeline.foreign_files import open_regular

_CURE = "Copy the shard again from its source, or verify the shard set."


def stream_members(location: str, name: str, lengths: Mapping[str, int]) -> dict[str, bytes]:
    """The members of the shard `name` that are wanted, by name.

    location: a folder, or a path, address or command with "{shard}" in it. lengths: of each member in bytes, which
    bounds the memory. Raises BadInput "bad-name" for a name that an address or a command cannot hold, "damaged-shard"
    for a shard that cannot be read or lacks a member.
    """
    pattern = location if "{shard}" in location else location.rstrip("/") + "/{shard}"
    is_path = not urlsplit(pattern).scheme
    if not is_path and (shlex.quote(name) != name or name.startswith("-")):
        raise BadInput("bad-name", f"the shard {name!r} cannot be streamed, since its name holds more than letters, "
                       "digits and the characters @%+=:,.-_", file=location,
                       cure="Make the shards again, or copy them to this machine and set input.stream_from to nothing.")
    address = pattern.replace("{shard}", name)
    stream = None
    try:
        stream = open_regular(address) if is_path else _opened(address)
        members = _members(stream, lengths)
    except BadInput:
        raise
    except (OSError, EOFError, ValueError, RecursionError, tarfile.TarError) as error:
        raise BadInput("damaged-shard", f"cannot stream the shard: {error}.", file=address, cure=_CURE) from error
    finally:
        with suppress(OSError):     # a command that is not read to its end may say so
            if stream is not None:
                stream.close()
    if missing := sorted(lengths.keys() - members.keys()):
        raise BadInput("damaged-shard", f"the shard lacks {len(missing)} members that the index lists, such as "
                       f"{missing[0]!r}.", file=address, cure=_CURE)
    return members


def _opened(address: str) -> IO[bytes]:
    import webdataset  # half a second to import, and few runs stream

    return webdataset.gopen(address)


def _members(stream: IO[bytes], lengths: Mapping[str, int]) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    with tarfile.open(fileobj=stream, mode="r|*") as tar:
        for info in tar:
            tar.members = []            # they would gather in memory
            if info.name in lengths:
                if not info.isreg() or info.size != lengths[info.name]:
                    raise ValueError(f"its member {info.name!r} is not as the index lists it")
                members[info.name] = tar.extractfile(info).read()
            if len(members) == len(lengths):
                break
    return members
